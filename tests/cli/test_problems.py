"""``progrpo problems``, and how the command line reports bad rows."""

import json
from pathlib import Path
from typing import Any

import pytest

ROWS = [
    {"problem": "3 + 4?", "answer": "7"},
    {"problem": "A half of 3?", "answer": r"\frac{3}{2}"},
    {"problem": "What?", "answer": r"\frac{1}{"},
    {"problem": "", "answer": "1"},
]


@pytest.fixture
def recipe(cli: Any) -> Path:
    (cli.folder / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in ROWS) + "{oh no\n", encoding="utf-8"
    )
    file: Path = cli.folder / "my.toml"
    file.write_text(
        'name = "mine"\n[task]\nname = "math"\nexamples = 0\ntrain = {preset = "word_problems", limit = 3}\n'
        'heldout = {path = "rows.jsonl"}\n'
    )
    return file


def test_bad_rows_are_listed_with_their_lines(cli: Any, recipe: Path) -> None:
    done = cli("problems", str(recipe), code=2)
    assert "3 bad row(s); correct them, or leave them out with --skip-bad-rows" in done.err
    assert r"rows.jsonl:3: the gold '\\frac{1}{' has unbalanced braces" in done.err
    assert "rows.jsonl:4: column 'problem'" in done.err
    assert "rows.jsonl:5: not valid JSON" in done.err
    assert "Traceback" not in done.err


def test_with_skip_bad_rows_they_are_counted(cli: Any, recipe: Path) -> None:
    done = cli("problems", str(recipe), "--skip-bad-rows", "--show", "2")
    assert "math: 3 problems to train on, 2 held out; verifier math" in done.out
    assert "3 rows are bad" in done.out
    assert "--- held out" in done.out
    assert "A half of 3?" in done.out


def test_a_missing_file_and_a_missing_preset(cli: Any, recipe: Path) -> None:
    done = cli("problems", str(recipe), "task.heldout={path = 'no.jsonl'}", code=2)
    assert "no.jsonl" in done.err
    done = cli("problems", str(recipe), "task.heldout={preset = 'no'}", code=2)
    assert "preset 'no' is not one of" in done.err
