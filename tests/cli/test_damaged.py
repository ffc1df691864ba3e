"""Files of a run folder that are damaged: the report names the file, what is wrong, and what to do."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Damage = Callable[[Path], object]

DAMAGES: dict[str, Damage] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
    "no text": lambda path: path.write_bytes(bytes(range(128, 256))),
    "a list": lambda path: path.write_text("[1, 2]\n"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
FILES = (
    "recipe.json",
    "environment.json",
    "evaluations/final.json",
    "evaluations/step-000003.json",
    "evaluations/final-samples/part-000000.parquet",
    "rollouts/step-000001-rank0.parquet",
)


@pytest.fixture
def run(cli: Any, finished_run: Path) -> Path:
    run = cli.folder / "run"
    shutil.copytree(finished_run, run)
    return run


def refused(cli: Any, *arguments: str) -> str:
    done = cli(*arguments, code=2)
    assert done.err.startswith("progrpo: ")
    assert done.err.strip().count("\n") == 0
    return done.err


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_report_names_the_damaged_file(cli: Any, run: Path, file: str, damage: str) -> None:
    DAMAGES[damage](run / file)
    assert str(Path("run") / file) in refused(cli, "report", "run", "--out", "page.html")
    assert not (cli.folder / "page.html").exists()


@pytest.mark.parametrize("line", ["[1, 2]", "{}", '{"step": "x"}', "{"])
def test_a_report_names_the_damaged_line(cli: Any, run: Path, line: str) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    for arguments in (("report", "run"), ("train", "--resume", "run")):
        (run / "evaluations" / "final.json").unlink(missing_ok=True)
        assert "line 2 of 'run/metrics.jsonl' is damaged; put the file back" in refused(cli, *arguments)


def test_the_report_names_a_damaged_rollout_that_it_leaves_out(cli: Any, run: Path) -> None:
    rollout = run / "rollouts" / "step-000001-rank0.parquet"
    DAMAGES["cut off"](rollout)
    said = refused(cli, "report", "run", "--out", "page.html")
    assert "is damaged (Could not open Parquet input source" in said
    assert "put it back from a copy, or remove it: the report then goes without." in said
    rollout.unlink()
    cli("report", "run", "--out", "page.html")


@pytest.mark.parametrize("damage", ["cut off", "no text"])
def test_a_report_needs_no_tokenizer(cli: Any, run: Path, damage: str) -> None:
    DAMAGES[damage](run / "checkpoints" / "checkpoint-6" / "tokenizer.json")
    cli("report", "run", "--out", "page.html")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_key_of_the_samples_is_named(cli: Any, damage: str) -> None:
    evaluation = ("evaluate", "countdown", "task.heldout_size=2", "--samples", "2", "--out", "e")
    cli(*evaluation)
    DAMAGES[damage](cli.folder / "e" / "countdown-samples" / "_key.json")
    assert "'e/countdown-samples/_key.json' is damaged (" in refused(cli, *evaluation)


def test_a_run_whose_final_evaluation_is_gone_is_not_called_unfinished(cli: Any, run: Path) -> None:
    (run / "evaluations" / "final.json").unlink()
    cli("report", "run", "--out", "page.html")
    page = (cli.folder / "page.html").read_text()
    assert "has all its 6 steps, but no final evaluation: it was interrupted, or its file was removed" in page
    assert "progrpo train --resume run" in page
    assert "not finished" not in page
    cli("train", "--resume", "run")
    assert (run / "evaluations" / "final.json").exists()
