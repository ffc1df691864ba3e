"""The README's commands for runs work on the runs of ``make demo``."""

import re
import shlex
from pathlib import Path
from typing import Any

from tests.cli.conftest import TINY

ROOT = Path(__file__).parents[2]


def test_the_commands_on_runs_work_after_the_demo(cli: Any) -> None:
    [demo] = re.findall(r"^\t\S*/progrpo (compare .*--out runs/demo)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    cli(*shlex.split(demo), *TINY, "training.steps=1", "evaluation.every=0")
    pages = {path: path.read_text() for path in cli.folder.rglob("report.html")}
    assert len(pages) == 3, "one of each run, one of both"
    readme = (ROOT / "README.md").read_text()
    lines = re.findall(r"^    progrpo ((?:evaluate|report|inspect|train) .*?runs/.*?) *#", readme, re.MULTILINE)
    assert len(lines) == 2
    for line in (*lines, "report runs/*", "report runs/demo/*"):
        words = [argument for word in shlex.split(line) for argument in (sorted(cli.folder.glob(word)) or [word])]
        cli(*(str(word.relative_to(cli.folder) if isinstance(word, Path) else word) for word in words))
    assert {path: path.read_text() for path in pages} == pages, "no page was written over"
    assert (cli.folder / "runs" / "demo" / "comparison.html").exists()
    assert list(cli.folder.glob("evaluations/*/countdown.json"))
