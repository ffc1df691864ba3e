"""The guards on the golds of public benchmarks: respelled golds stay right, altered golds are wrong."""

import importlib
import random
from pathlib import Path
from types import ModuleType

import pytest
from tests.verify.shared_data import FOLDER

pytest.importorskip("math_verify")

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
FILES = ["math500", "math_test_5000", "math_train_7474", "olympiadbench_math_en"]


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("math_guards")


@pytest.fixture
def golds(guards: ModuleType) -> list[str]:
    golds: list[str] = guards.read_golds(FOLDER, FILES)
    return golds or pytest.skip("the benchmark rows are missing: ../shared/data/math500.jsonl and others")


def test_no_guard_refuses_an_infinity(guards: ModuleType, golds: list[str]) -> None:
    infinite = [gold for gold in golds if r"\infty" in gold and "$" not in gold]
    assert len(infinite) > 50
    answers = [(rf"x\in {gold}", gold) for gold in infinite]
    answers += [(gold.replace(r"\infty", r"+\infty").replace(r"-+", "-"), gold) for gold in infinite]
    cases = [guards.Case("infinity", gold, answer, True) for answer, gold in answers]
    assert guards.sweep(cases)["respellings that were refused"] == []


@pytest.mark.parametrize("kind", ["an equation", "a list or a pair", "a number", "any"])
def test_respelled_golds_are_right_and_altered_golds_are_not(kind: str, guards: ModuleType, golds: list[str]) -> None:
    """Twenty of each kind; benchmarks/math_guards.py has all."""
    respellings = importlib.import_module("respellings")
    is_kind = {
        "an equation": respellings.equation,
        "a list or a pair": lambda gold: respellings.members(gold) or respellings.ends(gold),
        "a number": lambda gold: respellings.value(gold.removesuffix(r"\%")) is not None,
        "any": lambda gold: True,
    }[kind]
    some = random.Random(0).sample([gold for gold in golds if is_kind(gold)], 20)
    result = guards.sweep(guards.make_cases(some))
    assert result["respellings"]["all"]["right"] > 100
    assert result["respellings that were refused"] == []
    assert result["alterations that were accepted"] == []


def test_the_command_writes_counts_and_exceptions(
    guards: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath("aime24.jsonl").write_text('{"answer": "204"}\n{"answer": "33"}\n', encoding="utf-8")
    out = tmp_path / "results"
    monkeypatch.setattr("sys.argv", ["math_guards.py", str(tmp_path), "--out", str(out)])
    guards.main()
    result = guards.json.loads((out / "math_guards.json").read_text(encoding="utf-8"))["figures"]
    assert result["golds"] == 2
    assert result["respellings"]["with %"] == {"right": 2}
    assert result["alterations"]["sign"] == {"not equal": 2}
    assert result["alterations that were accepted"] == []


def test_a_folder_without_golds_is_named(
    guards: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["math_guards.py", str(tmp_path)])
    with pytest.raises(SystemExit):
        guards.main()
    assert f"{tmp_path} has none of the files math500" in capsys.readouterr().err
