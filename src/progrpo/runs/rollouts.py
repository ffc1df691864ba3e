"""The rollout table: the responses of a step, one row each, in the same format whichever engine trains.

A run folder has one file for each step and process: ``rollouts/step-000010-rank0.parquet``. :data:`COLUMNS` is the one
definition of the table.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from progrpo.common.files import damaged_file, write_file

if TYPE_CHECKING:
    import pandas as pd


class Column(NamedTuple):
    """A column of the rollout table."""

    name: str
    type: str
    """``int64``, ``double``, ``string`` or a ``list<...>`` of one of them, as Arrow names them."""
    meaning: str


COLUMNS = (
    Column("step", "int64", "the first optimiser step that the rollout serves"),
    Column("group", "int64", "the group of the response: the responses to one prompt of the step"),
    Column("problem_id", "string", "the problem's id in its task"),
    Column("problem_digest", "string", "a digest of the problem with its gold; TRL only"),
    Column("prompt", "string", "the prompt's text"),
    Column("text", "string", "the response's text; it begins with `<think>` where the prompt ended with it"),
    Column("status", "string", "the verdict: `correct`, `incorrect` or `error`"),
    Column("reason", "string", "the reason of the verdict"),
    Column("canonical", "string", "the canonical form of a correct response, null for the others"),
    Column("token_ids", "list<int64>", "the sampled tokens"),
    Column("logps", "list<double>", "the log-prob of each sampled token under the policy that sampled it, nats"),
    Column("reward", "double", "the reward; null where the response could not be scored"),
    Column("prompt_confidence", "double", "c(q)"),
    Column("answer_confidence", "double", "c(o|q)"),
    Column("grpo_advantage", "double", "A"),
    Column("correction", "double", "A~ - A"),
    Column("advantage", "double", "A~"),
)
"""The columns in their order."""
OPTIONAL = "problem_digest"
"""The only column that may be missing: rollouts of verl don't have it."""


def is_recorded(step: int, every: int, updates: int = 1) -> bool:
    """Whether the rollout of a step, from 1, is written: the first one, and the first at or after each multiple.

    ``every`` is the recipe's ``training.rollouts_every``, and a rollout serves ``updates`` optimiser steps.

    >>> [step for step in range(1, 13, 2) if is_recorded(step, every=4, updates=2)]
    [1, 5, 9]
    """
    return step == 1 or step // every > (step - updates) // every


def rollout_file(folder: Path, step: int, process: int = 0) -> Path:
    """``step-000010-rank0.parquet`` in a folder of rollouts."""
    return folder / f"step-{step:06d}-rank{process}.parquet"


def step_of_file(file: Path) -> int:
    """The step in the name of a file of a run folder: 50 of ``step-000050.json`` and ``step-000050-rank0.parquet``."""
    return int(file.name.split("-")[1].split(".")[0])


def recorded_steps(folder: Path) -> list[int]:
    """The steps whose rollouts are in a folder, in order."""
    return sorted({step_of_file(file) for file in folder.glob("step-*.parquet")})


def write_rollout(file: Path, values: Mapping[str, Any]) -> None:
    """Write a rollout table, whole or not at all; the responses of a group get adjacent rows.

    ``values`` holds for each column one value for each row; a single number is for all rows. A ValueError is raised if
    a column is missing, or is not one of :data:`COLUMNS`.
    """
    import pandas as pd
    import pyarrow as pa

    columns = [column for column in COLUMNS if column.name in values or column.name != OPTIONAL]
    if values.keys() != {column.name for column in columns}:
        raise ValueError(f"a rollout table has the columns {', '.join(c.name for c in columns)}, got {list(values)}.")
    frame = pd.DataFrame({column.name: values[column.name] for column in columns})
    schema = pa.schema([(column.name, _arrow_type(column.type)) for column in columns])
    with write_file(file) as beside:
        frame.sort_values("group", kind="stable").to_parquet(beside, index=False, schema=schema)


def read_rollout(folder: Path, step: int, columns: list[str] | None = None) -> "pd.DataFrame":
    """The table of one of the :func:`recorded_steps`, from all processes; a ConfigError if a file is damaged."""
    import pandas as pd

    frames = []
    for file in sorted(folder.glob(f"step-{step:06d}-rank*.parquet")):
        try:
            frames.append(pd.read_parquet(file, columns=columns))
        except (OSError, ValueError, KeyError) as error:  # pyarrow's ArrowInvalid is a ValueError
            remedy = "put it back from a copy, or remove it: the report then goes without"
            raise damaged_file(file, error, remedy) from None
    return pd.concat(frames, ignore_index=True)


def _arrow_type(name: str) -> Any:
    import pyarrow as pa

    if name.startswith("list<"):
        return pa.list_(_arrow_type(name[len("list<") : -1]))
    return pa.type_for_alias(name)
