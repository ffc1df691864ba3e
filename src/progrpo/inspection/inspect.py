"""Rollout files in, an :class:`Inspection` out: all that the terminal and the page show."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from progrpo.common.errors import ConfigError
from progrpo.common.files import write_file
from progrpo.core.advantages import ACTIVATIONS, CENTERS
from progrpo.core.checks import check_choice, check_number
from progrpo.inspection.collapse import LEAST_GROUPS, Collapse, collapse, warnings
from progrpo.inspection.columns import choose_columns
from progrpo.inspection.files import RolloutFile
from progrpo.inspection.folders import find_files
from progrpo.inspection.lists import splitter
from progrpo.inspection.notes import how_read, how_scored, what_lacks
from progrpo.inspection.score import Scored, choose_responses, pairs_of, score, with_scores
from progrpo.inspection.table import Source, Table, fractions_with, read_rows, read_table
from progrpo.inspection.values import SEVERAL
from progrpo.inspection.verdicts import Judge
from progrpo.inspection.what_if import Settings, WhatIf, what_if
from progrpo.runs.folder import RunFolder
from progrpo.tasks.templates import template_opens_thinking

LONG_BYTES = 20_000_000
"""Files that are read in a second have no progress bar."""


class Watch(Protocol):
    """Who watches: a bar of :mod:`progrpo.cli.progress`."""

    def stage(self, name: str, total: int, completed: int = 0) -> None: ...

    def advance(self, amount: int = 1, **values: float) -> None: ...


@dataclass(frozen=True)
class Options:
    """What to look at, and how.

    Args:
        columns: fields of :class:`progrpo.inspection.columns.Columns` by name, each the name of a column.
        rewards: columns of rewards, separated by commas, each with its weight after a colon if that is not 1.
        correct_above: a response is right if its reward is above this. None takes the setting of a run folder's run,
            else 0.
        correct_reward: the column of the reward that means right; None takes that of a run folder's run, else the
            weighted sum of ``rewards``.
        alpha, low_prob_fraction, activation, center: ProGRPO's. None takes what a run folder's run was trained with,
            if its method corrects at all; else 1, 0.2, ``"any_correct"`` and ``"prompt"``, or ``"group"`` where c(q)
            is not known.
        model: computes log-probs that are missing, as :func:`progrpo.sampling.models.load_model` takes it.
        groups: of how many groups it computes them.
        temperature: of those log-probs.
        verify: a verifier by name, whose verdicts by the column of golds take the place of rewards.
        opens_thinking: the chat template of prompts that are messages ends inside of a thinking part; with ``model``,
            its template says so.

    Raises:
        ConfigError: an option out of its range.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    rewards: str | None = None
    correct_above: float | None = None
    correct_reward: str | None = None
    alpha: float | None = None
    low_prob_fraction: float | None = None
    center: str | None = None
    activation: str | None = None
    model: str | None = None
    groups: int = 256
    temperature: float = 1.0
    verify: str | None = None
    opens_thinking: bool = False

    def __post_init__(self) -> None:
        try:
            if self.correct_above is not None and not math.isfinite(self.correct_above):
                raise ValueError(f"--correct-above must be a finite number, got {self.correct_above!r}.")
            if self.alpha is not None:
                check_number("--alpha", self.alpha, low=0.0)
            if self.low_prob_fraction is not None:
                check_number("--low-prob-fraction", self.low_prob_fraction, low=0.0, high=1.0, open_low=True)
            check_number("--temperature", self.temperature, low=0.0, open_low=True)
            check_number("--groups", self.groups, low=1)
            if self.activation is not None:
                check_choice("--activation", self.activation, ACTIVATIONS)
            if self.center is not None:
                check_choice("--center", self.center, CENTERS)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if (self.verify is None) != ("gold" not in self.columns):
            raise ConfigError(
                "--verify NAME and --gold COL go together: a verifier compares with the golds of a column."
            )
        if self.verify is not None and self.rewards is not None:
            raise ConfigError("--verify takes the place of --reward: give one of them.")
        if self.opens_thinking and self.verify is None:
            raise ConfigError("--opens-thinking says how --verify reads responses: add that, or leave it away.")


@dataclass(frozen=True)
class Inspection:
    """What was found."""

    source: Source
    settings: Settings
    table: Table
    scored: dict[int, Scored]
    """By number of the response, those that a model scored."""
    decode: Callable[[int], str] | None
    """Token id -> text, where a tokenizer is at hand."""
    collapse: Collapse
    what_if: WhatIf | None
    warnings: list[str]
    notes: list[str]
    """How the file was read, and what it lacks for the rest."""


def inspect(paths: Sequence[Path], options: Options, watch: Watch | None = None) -> Inspection:
    """Read rollouts, measure them, and work out what ProGRPO would have done.

    Memory does not grow with the length of responses: about 120 bytes a response are kept.

    Args:
        paths: files or folders, see :func:`progrpo.inspection.files.find_files`.
        options: what to look at.
        watch: told of the progress.

    Raises:
        ConfigError: a file or an option that can't be used.

    >>> import json, tempfile
    >>> given = (("2", 1, 0.1), ("3", 0, 2), ("two", 1, 1))
    >>> rows = [{"q": "1 + 1?", "o": text, "r": r, "lp": [-p]} for text, r, p in given]
    >>> file = Path(tempfile.mkdtemp(), "rollouts.jsonl")
    >>> _ = file.write_text("".join(json.dumps(row) + chr(10) for row in rows))
    >>> found = inspect([file], Options(columns={"prompt": "q", "response": "o", "logps": "lp"}, rewards="r"))
    >>> found.collapse.overall["groups/mixed"], found.collapse.overall["distinct_solutions"]
    (1.0, 2.0)
    >>> found.what_if.settings.center  # there are no log-probs of prompts
    'group'
    >>> bool(found.what_if.progrpo_B[2] > found.what_if.progrpo_B[0])  # right and less likely: it gains more
    True
    """
    files = [RolloutFile(path) for path in find_files(paths)]
    # Before the files are read: a wrong name or path is then told at once.
    judge = Judge(options.verify, options.opens_thinking) if options.verify is not None else None
    loaded = _load_model(options.model) if options.model is not None else None
    settings, correct_reward, unknown = _settings(paths[0], options, files[0])
    named = dict(options.columns) | ({"correct_reward": correct_reward} if correct_reward and not judge else {})
    title, columns = choose_columns(files[0].columns, named, options.rewards)
    for file in files:
        file.split = splitter(columns) if files[0].columns[columns.response] in SEVERAL else None
    source = Source(_name(paths), files, title, columns, fractions_with(settings.low_prob_fraction), judge)
    if judge is not None and loaded is not None:
        judge.template_opens |= template_opens_thinking(loaded[1])
    progress = _by_megabytes(watch, source.bytes) if watch and source.bytes > LONG_BYTES else None
    table = read_table(source, progress, correct_above=settings.correct_above)
    notes = [*unknown, *how_read(source, table), *source.notes, *(judge.notes() if judge else [])]
    decode = None
    scored: dict[int, Scored] = {}
    if loaded is not None:
        decode = _decoder(loaded[1])
        table, scored = _scored(source, table, loaded, options, watch, notes)
    settings = replace(settings, center=_center(table, options.center or settings.center, options.center is not None))
    found = what_if(table, settings)
    measured = collapse(table, settings.low_prob_fraction)
    notes += what_lacks(table, settings, found)
    if measured.first and not measured.enough_groups:
        notes.append(
            f"The first or the last tenth of the steps has fewer than {LEAST_GROUPS} groups with a reward, too few to "
            "tell what changes."
        )
    told = warnings(measured, answers_are_final=columns.answer not in (None, "canonical"))
    return Inspection(source, settings, table, scored, decode, measured, found, told, notes)


def write_corrections(inspection: Inspection, out: Path) -> None:
    """One row a response, as parquet: its number, step, group, reward, c(q), c(o|q), A, correction, A~.

    ``row`` counts the responses of all files, in their order, from 0. What is not known is null.
    """
    import pandas as pd

    table, found = inspection.table, inspection.what_if
    grpo_B, progrpo_B = (np.full(table.size, np.nan) for _ in range(2))
    if found is not None:
        grpo_B[found.rows_B], progrpo_B[found.rows_B] = found.grpo_B, found.progrpo_B
    frame = pd.DataFrame(
        {
            "row": np.arange(table.size),
            "step": table.steps_B,
            "group": table.groups_B,
            "reward": table.rewards_B,
            "prompt_confidence": table.c_q_B,
            "answer_confidence": table.c_o_B(inspection.settings.low_prob_fraction),
            "grpo_advantage": grpo_B,
            "correction": progrpo_B - grpo_B,
            "advantage": progrpo_B,
        }
    )
    with write_file(out) as beside:
        frame.to_parquet(beside, index=False)


def _name(paths: Sequence[Path]) -> str:
    """``10.jsonl``, ``1.jsonl and 9 more``; of ``.`` the folder's name."""
    first = paths[0].resolve().name
    return first if len(paths) == 1 else f"{first} and {len(paths) - 1} more"


def _load_model(path: str) -> tuple[Any, Any]:
    import transformers

    from progrpo.sampling.models import load_model

    transformers.utils.logging.disable_progress_bar()
    return load_model(path)


def _decoder(tokenizer: Any) -> Callable[[int], str]:
    return lambda token: str(tokenizer.decode([token]))


def _scored(
    source: Source, table: Table, loaded: tuple[Any, Any], options: Options, watch: Watch | None, notes: list[str]
) -> tuple[Table, dict[int, Scored]]:
    """The table with log-probs that were missing, and what the model says of the responses that it was asked about."""
    if not np.isnan(table.c_o_FB).all() and not np.isnan(table.c_q_B).all():
        notes.append(f"All log-probs are in the file: {options.model} computed none.")
        return table, {}
    rows = choose_responses(table, options.groups)
    raw = read_rows(source, rows.tolist())
    if watch is not None:
        watch.stage("log-probs", len(rows))
    pairs = pairs_of(source, [raw[row] for row in rows.tolist()])
    advance = watch.advance if watch is not None else None
    found = score(*loaded, pairs, temperature=options.temperature, on_progress=advance)
    notes.append(how_scored(source, table, options.model, options.temperature, rows))
    return with_scores(table, rows, found), dict(zip(rows.tolist(), found, strict=True))


def _settings(path: Path, options: Options, file: RolloutFile) -> tuple[Settings, str | None, list[str]]:
    """ProGRPO's options as given, as the run has them, or as they are by default; the reward that means right; and what
    the run had that its rollouts don't."""
    own: dict[str, Any] = {}
    if (folder := RunFolder(path)).recipe_file.exists():
        recipe = folder.recipe()
        own = recipe.method_settings() | recipe.trl
    correct_reward, unknown = options.correct_reward or own.get("correct_reward"), []
    if options.correct_reward is None and correct_reward is not None and correct_reward not in file.columns:
        unknown.append(
            f"The run took reward {correct_reward!r} for what says whether a response is right, and its rollouts don't "
            "hold it: here the whole reward says so."
        )
        correct_reward = None
    if not own.get("alpha", 0.0) > 0:  # GRPO: ProGRPO is asked about as it is by default
        own = {name: value for name, value in own.items() if name == "correct_above"}
    names = [field.name for field in fields(Settings)]
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return Settings(**{name: own[name] for name in names if name in own} | given), correct_reward, unknown


def _center(table: Table, center: str, is_given: bool) -> str:
    """The center, or ``"group"`` in the place of one that c(q) is missing for, unless it was asked for."""
    if center != "prompt" or not np.isnan(table.c_q_B).all():
        return center
    if is_given and not np.isnan(table.c_o_FB).all():
        raise ConfigError(
            "--center prompt needs log-probs of prompts, which the file does not have; name their column with "
            "--prompt-logps, compute them with --model, or take --center group."
        )
    return "group"


def _by_megabytes(watch: Watch, total: int) -> Callable[[int], None]:
    """Bytes read, told to the watcher in whole megabytes."""
    watch.stage("read, MB", max(total // 1_000_000, 1))
    read = told = 0

    def advance(size: int) -> None:
        nonlocal read, told
        read += size
        if read // 1_000_000 > told:
            watch.advance(read // 1_000_000 - told)
            told = read // 1_000_000

    return advance
