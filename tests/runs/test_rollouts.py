"""The rollout table is read as it was written, and the documentation names its columns."""

from pathlib import Path
from typing import Any

import pytest
from pyarrow.parquet import read_schema

from progrpo.common.errors import ConfigError
from progrpo.runs.rollouts import COLUMNS, read_rollout, recorded_steps, rollout_file, write_rollout

VALUES: dict[str, Any] = {
    "step": 5,
    "group": [3, 1, 3],
    "problem_id": ["b", "a", "b"],
    "problem_digest": ["y", "x", "y"],
    "prompt": ["2?", "1?", "2?"],
    "text": ["two", "one", ""],
    "status": ["incorrect", "correct", "error"],
    "reason": ["no number", "", "lost worker"],
    "canonical": [None, None, None],
    "token_ids": [[7], [8, 9], []],
    "logps": [[-0.5], [-1.0, -2.0], []],
    "reward": [0.0, 1.0, float("nan")],
    "prompt_confidence": [0.5] * 3,
    "answer_confidence": [0.25, 0.5, float("nan")],
    "grpo_advantage": [-1.0, 1.0, 0.0],
    "correction": [0.0] * 3,
    "advantage": [-1.0, 1.0, 0.0],
}


def test_a_rollout_reads_as_it_was_written_with_the_groups_together(tmp_path: Path) -> None:
    write_rollout(rollout_file(tmp_path, 5), VALUES)
    write_rollout(rollout_file(tmp_path, 5, process=1), VALUES)
    frame = read_rollout(tmp_path, 5)
    assert recorded_steps(tmp_path) == [5]
    assert list(frame) == list(VALUES)
    assert frame["step"].tolist() == [5] * 6
    assert frame["group"].tolist() == [1, 3, 3] * 2
    assert frame["text"].tolist() == ["one", "two", ""] * 2
    assert [list(ids) for ids in frame["token_ids"][:3]] == [[8, 9], [7], []]
    assert frame["reward"].isna().tolist() == [False, False, True] * 2


def test_every_file_has_the_types_of_the_table_whatever_its_values(tmp_path: Path) -> None:
    file = rollout_file(tmp_path, 1)
    write_rollout(file, VALUES)
    types = {field.name: str(field.type).replace("element: ", "").replace("item: ", "") for field in read_schema(file)}
    assert types == {column.name: column.type for column in COLUMNS}


def test_a_column_that_is_missing_or_unknown_is_refused(tmp_path: Path) -> None:
    for values in (VALUES | {"answer": ["?"] * 3}, {name: VALUES[name] for name in VALUES if name != "text"}):
        with pytest.raises(ValueError, match="a rollout table has the columns step, group, "):
            write_rollout(rollout_file(tmp_path, 1), values)
    write_rollout(rollout_file(tmp_path, 1), {name: VALUES[name] for name in VALUES if name != "problem_digest"})
    assert "problem_digest" not in read_rollout(tmp_path, 1)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = rollout_file(tmp_path, 1)
    file.write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"step-000001-rank0\.parquet' is damaged"):
        read_rollout(tmp_path, 1)


def test_the_documentation_describes_every_column() -> None:
    page = (Path(__file__).parents[2] / "docs" / "run-folder.md").read_text(encoding="utf-8")
    for column in COLUMNS:
        meaning = column.meaning.replace("|", "\\|")
        assert f"| `{column.name}` | `{column.type}` | {meaning} |" in page
