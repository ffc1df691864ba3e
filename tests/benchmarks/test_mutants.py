"""The command that counts how many faults the tests notice, on code for which this number is known."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
try:
    from mutations import KINDS, draw, mutants_of
finally:
    sys.path.remove(str(ROOT / "benchmarks"))

SOURCE = '''
"""A module: 1 + 1."""
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    LIMIT = 5

logger = logging.getLogger(__name__)
__all__ = ["clip"]


def clip(x: "int | None", low: int = 0) -> "int | None":
    """At least 0."""
    if x is None or not (  # nothing to do
        x < low
    ):
        return x
    logger.info("low = " + str(low))
    assert low == 0
    names = dict(zip("ab", [x - 1], strict=True))
    if "é" not in names:
        raise ValueError(f"x is {x + 1}" + "and low")
    return None
'''
CHANGES = [
    ("constant", "0", "1"),
    ("operator", "or", "and"),
    ("comparison", "is", "is not"),
    ("operator", "not ", ""),
    ("comparison", "<", "<="),
    ("statement", "return x", "return None"),
    ("statement", 'names = dict(zip("ab", [x - 1], strict=True))', "pass"),
    ("constant", '"ab"', "'xabx'"),
    ("operator", "-", "+"),
    ("constant", "1", "2"),
    ("comparison", "not in", "in"),
    ("constant", '"é"', "'xéx'"),
    ("statement", 'raise ValueError(f"x is {x + 1}" + "and low")', "pass"),
    ("operator", "+", "-"),
]

NUMBERS = """
def double(x):
    return x * 2


def executed(x):
    return x + 3


def triple_in_another_process(x):
    return x * 3


def count_down(n):
    while n:
        n -= 1
"""
TESTS = """
import subprocess, sys

from progrpo.core.numbers import count_down, double, executed


def test_double():
    assert double(3) == 6


def test_executed():
    executed(1)


def test_triple():
    code = "from progrpo.core.numbers import triple_in_another_process as triple; print(triple(2))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "6\\\\n"


def test_count_down():
    count_down(2)


def test_that_fails_anyway():
    assert double(1) == 3
"""
RUN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import mutant_tests, mutants
mutant_tests.MORE_SECONDS = 2
mutants.main()
"""


def test_a_change_replaces_one_operator_comparison_constant_or_statement(tmp_path: Path) -> None:
    file = tmp_path / "clip.py"
    file.write_text(SOURCE, encoding="utf-8")
    mutants = mutants_of(file, tmp_path)
    assert sorted((m.kind, m.before, m.after) for m in mutants) == sorted(CHANGES)
    for mutant in mutants:
        changed = mutant.apply(SOURCE)
        assert changed.replace(mutant.after, "", 1) != SOURCE
        compile(changed, "clip.py", "exec")
        assert [a == b for a, b in zip(changed.split("\n"), SOURCE.split("\n"), strict=True)].count(False) == 1
        assert SOURCE.split("\n")[mutant.line - 1].strip() == mutant.text


def test_every_change_of_the_core_is_python() -> None:
    files = sorted((ROOT / "src" / "progrpo" / "core").glob("*.py"))
    mutants = [mutant for file in files for mutant in mutants_of(file, ROOT)]
    assert len(mutants) > 400
    assert len({mutant.key for mutant in mutants}) == len(mutants)
    for mutant in mutants:
        compile(mutant.apply((ROOT / mutant.path).read_text(encoding="utf-8")), mutant.path, "exec")


def test_the_draw_depends_on_the_seed_and_not_on_other_lines(tmp_path: Path) -> None:
    file = tmp_path / "clip.py"
    file.write_text(SOURCE, encoding="utf-8")
    first = draw(mutants_of(file, tmp_path), 8, seed=0)
    assert [mutant.kind for mutant in first] == [*KINDS, *KINDS]
    assert {mutant.key for mutant in draw(mutants_of(file, tmp_path), 8, seed=1)} != {mutant.key for mutant in first}
    file.write_text(SOURCE.replace("LIMIT = 5", "LIMIT = 6\n"), encoding="utf-8")
    moved = draw(mutants_of(file, tmp_path), 8, seed=0)
    assert [mutant.key for mutant in moved] == [mutant.key for mutant in first]
    assert [mutant.line for mutant in moved] == [mutant.line + 1 for mutant in first]


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-c", RUN, str(ROOT / "benchmarks"), "--root", str(folder), "--only", "core", *arguments]
    out = ["--count", "100", "--out", str(folder)]
    subprocess.run([*command, *out], check=True, capture_output=True, text=True, timeout=120)
    summary: dict[str, Any] = json.loads((folder / "mutants.json").read_text(encoding="utf-8"))["figures"]
    return summary


@pytest.mark.skipif(sys.platform != "linux", reason="what a run leaves behind is ended by means of Linux")
def test_mutants_are_caught_survive_or_are_late(tmp_path: Path) -> None:
    for name, text in {
        "src/progrpo/__init__.py": "",
        "src/progrpo/core/__init__.py": "",
        "src/progrpo/core/numbers.py": NUMBERS,
        "tests/core/test_numbers.py": TESTS.replace("\\\\n", "\\n"),
        "benchmarks/mutants_explained.tsv": (
            "file\tline\tchange\treason\nsrc/progrpo/core/numbers.py\treturn x + 3\t3 -> 4\tnobody looks at it\n"
        ),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    summary = run(tmp_path)
    by_change = {(m["text"], m["before"], m["after"]): m for m in summary["mutants"]}
    assert {what: mutant["outcome"] for what, mutant in by_change.items()} == {
        ("return x * 2", "*", "/"): "killed",
        ("return x * 2", "2", "3"): "killed",
        ("return x * 2", "return x * 2", "return None"): "killed",
        ("return x + 3", "+", "-"): "survived",
        ("return x + 3", "3", "4"): "survived",
        ("return x + 3", "return x + 3", "return None"): "survived",
        ("return x * 3", "*", "/"): "killed",
        ("return x * 3", "3", "4"): "killed",
        ("return x * 3", "return x * 3", "return None"): "killed",
        ("n -= 1", "-=", "+="): "timeout",
        ("n -= 1", "1", "2"): "survived",
        ("n -= 1", "n -= 1", "pass"): "timeout",
    }
    assert by_change["return x * 2", "*", "/"]["by"] == "tests/core/test_numbers.py::test_double"
    assert by_change["return x * 3", "*", "/"]["by"] == "tests/core/test_numbers.py::test_triple"
    assert summary["parts"]["core"] == summary["all"]
    assert summary["all"] == {
        "mutants": 12,
        "caught": 8,
        "share": 0.6667,
        "share_of_unexplained": 0.7273,
        "survivors_explained": 1,
        "survivors_unexplained": 3,
    }
    assert by_change["return x + 3", "3", "4"]["explained"] == "nobody looks at it"
    assert (tmp_path / "src/progrpo/core/numbers.py").read_text(encoding="utf-8") == NUMBERS

    # A new test catches two of the survivors; what was caught before is not run again.
    more = TESTS.replace("\\\\n", "\\n") + "\n\ndef test_executed_is_right():\n    assert executed(1) == 4\n"
    (tmp_path / "tests/core/test_numbers.py").write_text(more, encoding="utf-8")
    again = run(tmp_path, "--resume", "--survivors")
    assert again["all"]["caught"] == 11
    assert [m["took"] for m in again["mutants"] if m["outcome"] == "timeout"] == [
        m["took"] for m in summary["mutants"] if m["outcome"] == "timeout"
    ]
