"""HumanEval+ and MBPP+ in EvalPlus' own format: inputs, and a reference solution that programs must not see."""

import time
from typing import Any

import pytest
from tests.verify.shared_data import load_benchmark, shared_rows

from progrpo.tasks import CodeTask
from progrpo.tasks.evalplus import as_in
from progrpo.tasks.rows import BadRowError
from progrpo.verify import Limits, Verdict
from progrpo.verify.code.programs import read_gold, verify_programs

PRESETS = CodeTask.PRESETS

ROW = {
    "task_id": "Mbpp/0",
    "prompt": '"""\nWrite a function to swap a pair.\nassert swap((1, 2)) == (2, 1)\n"""\n',
    "entry_point": "swap",
    "canonical_solution": "\ndef swap(pair):\n    return pair[::-1]\n",
    "base_input": [[[1, 2]]],
    "atol": 0,
    "plus_input": [[[3, 4]], [[0.1, 5]]],
    "contract": "",
    "assertion": "\nassert swap((1, 2)) == (2, 1)\n",
}


def verdict(row: dict[str, Any], program: str, preset: str = "mbpp_plus", **limits: Any) -> Verdict:
    item = PRESETS[preset].read(row)
    return verify_programs([item.gold], [f"```python\n{program}\n```"], limits=Limits(**limits))[0]


def function(body: str, name: str = "swap") -> str:
    return f"def {name}(x):\n    {body}"


def test_the_reference_decides_on_every_input() -> None:
    assert verdict(ROW, function("return (x[1], x[0])")).correct
    assert not verdict(ROW, function("return [x[1], x[0]]")).correct  # JSON has no tuples, the assertion does
    assert not verdict(ROW, function("return (2, 1)")).correct  # right only on the base input
    assert not verdict(ROW, function("return (x[1], 4 if x[0] == 0.1 else x[0])")).correct
    assert verdict(ROW | {"plus_input": {}}, function("return (2, 1)")).correct


def test_the_prompt_is_the_one_of_evalplus() -> None:
    item = PRESETS["mbpp_plus"].read(ROW)
    assert item.problem == ROW["prompt"].strip()
    hub = {
        "prompt": "Write a function to swap a pair.",
        "code": ROW["canonical_solution"],
        "test_list": ["assert swap((1, 2)) == (2, 1)", "assert swap((3, 4)) == (4, 3)"],
        "test_imports": [],
        "test": "assert swap((1, 2)) == (2, 1)",
    }
    assert PRESETS["mbpp_plus"].read(hub).problem == item.problem


@pytest.mark.parametrize(
    "program",
    [
        "return _reference(x)",
        "return _expected[0]",
        "import __main__; return __main__._reference(x)",
        "import gc; return next(f for f in gc.get_objects() if 'swap' in str(f)[:40] and f is not swap)(x)",
        "import sys; f = sys._getframe()\n    while f.f_back: f = f.f_back\n    return f.f_globals['_expected'][0]",
        "x.sort() if hasattr(x, 'sort') else None; return type('Equal', (), {'__eq__': lambda *a: True})()",
    ],
)
def test_a_program_cannot_reach_the_expected_values(program: str) -> None:
    assert verdict(ROW, function(program)).status == "incorrect"


def test_a_reference_changes_only_a_copy_of_its_input() -> None:
    row = ROW | {
        "canonical_solution": "def swap(x):\n    x.append(len(x))\n    return x[-1]\n",
        "assertion": "assert swap([1, 2]) == 2",
    }
    assert verdict(row, function("return len(x)")).correct


def test_a_failing_reference_is_the_datasets_fault() -> None:
    row = ROW | {"canonical_solution": "def swap(x):\n    raise ValueError('no')\n"}
    assert verdict(row, function("return (x[1], x[0])")).status == "error"
    slow = ROW | {"canonical_solution": "def swap(x):\n    while True: pass\n"}
    assert verdict(slow, function("return (x[1], x[0])"), seconds=0.3).status == "error"


@pytest.mark.parametrize(
    ("expected", "atol", "output", "same"),
    [
        ("1.0", 0, "1.0000009", True),  # EvalPlus: 1e-6 for floats
        ("1.0", 0, "1.000002", False),
        ("[1.0, 2.0]", 0, "[1.0, 2.0000009]", True),
        ("[1.0, 2.0]", 0, "[1.0]", False),
        ("[1.0, 2.0]", 0, "1.0", False),
        ("[1, 2.0]", 0, "[1, 2.0000009]", False),  # not only floats
        ("1", 0, "1.0000009", False),
        ("1.0", 1e-4, "1.00009", True),
        ("1.0", 1e-4, "1.0002", False),
        ("float('inf')", 0, "float('inf')", True),
        ("float('inf')", 0, "1.0", False),
        ("1.0", 0, "float('nan')", False),
        ("1.0", 0, "'1.0'", False),
        ("'a'", 0, "'a'", True),
        ("None", 0, "None", True),
        ("{1, 2}", 0, "{2, 1}", True),
        ("(1, 2)", 0, "[1, 2]", False),
    ],
)
def test_outputs_are_compared_as_evalplus_does(expected: str, atol: float, output: str, same: bool) -> None:
    row = ROW | {"canonical_solution": f"def swap(x):\n    return {expected}\n", "atol": atol}
    assert verdict(row, function(f"return {output}")).correct == same


def test_unordered_results_compare_as_sets_and_a_match_as_true() -> None:
    lists = ROW | {"entry_point": "Diff", "canonical_solution": "def Diff(x):\n    return [x[0], x[1]]\n"}
    assert verdict(lists, function("return [x[1], x[0]]", "Diff")).correct
    assert not verdict(lists, function("return [x[1]]", "Diff")).correct
    truth = ROW | {"entry_point": "check_str", "canonical_solution": "def check_str(x):\n    return x[0] == 1\n"}
    assert verdict(truth, "import re\n" + function("return re.match('1', str(x[0]))", "check_str")).correct
    assert not verdict(truth, function("return True", "check_str")).correct


HUB_ROOT = """
import math

def _poly(xs: list, x: float):
    return sum([coeff * math.pow(x, i) for i, coeff in enumerate(xs)])

def check(candidate):
    inputs = [[[-1, 0, 1]], [[-4, 0, 4]]]
    results = [1.0, 1.0]
    for i, (inp, exp) in enumerate(zip(inputs, results)):
        assert _poly(*candidate(*inp), inp) <= 0.0001
"""


def test_any_root_of_the_polynomial_passes() -> None:
    prompt = (
        "def poly(xs, x):\n    return sum(c * x**i for i, c in enumerate(xs))\n\n\ndef find_zero(xs):\n    'A root.'\n"
    )
    row = ROW | {"prompt": prompt, "entry_point": "find_zero", "canonical_solution": "    return 1.0\n", "atol": 1e-4}
    row |= {"base_input": [[[-1, 0, 1]]], "plus_input": [[[-4, 0, 4]]]}
    for root, right in ((1.0, True), (-1.0, True), (1.00001, True), (1.01, False)):
        for either_format in (row, row | {"test": HUB_ROOT}):
            judged = verdict(either_format, f"def find_zero(xs):\n    return {root}", "humaneval_plus")
            assert judged.correct == right, judged


def test_humaneval_plus_continues_its_prompt() -> None:
    row = ROW | {
        "prompt": 'def twice(x: list) -> list:\n    """Two times."""\n',
        "entry_point": "twice",
        "canonical_solution": "    return x * 2\n",
    }
    item = PRESETS["humaneval_plus"].read(row)
    right, wrong = verify_programs([item.gold] * 2, ["    return x + x\n", "    return x\n"])
    assert right.correct
    assert wrong.status == "incorrect"


def test_each_call_has_its_own_time() -> None:
    inputs = [[[i, i + 1]] for i in range(6)]
    row = ROW | {"plus_input": inputs}
    body = "import time; time.sleep(0.4); return (x[1], x[0])"
    assert verdict(row, function(body), seconds=1.2).correct
    started = time.perf_counter()
    judged = verdict(row, function("while True: pass"), seconds=1.2)
    assert judged.reason == "the program took more than 1.2 s"
    assert time.perf_counter() - started < 6


def test_arguments_have_the_types_of_the_examples() -> None:
    nested = (4, (7, (2, 4)))
    assert as_in([1, [2, [3, [4]]]], [nested]) == (1, (2, (3, (4,))))
    assert as_in([[1], [[2]]], [[(1, 2)]]) == [(1,), ([2],)]
    assert as_in([[1, 2], []], [[{1}]]) == [{1, 2}, set()]
    assert as_in({"a": [1]}, [{"b": (2,)}]) == {"a": (1,)}
    assert as_in("1j", [1]) == 1j
    assert as_in("one", [1]) == "one"
    assert as_in([], []) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"base_input": 3}, "column 'base_input' is 3, where a list of lists"),
        ({"base_input": "[[1]"}, "column 'base_input' is not valid JSON: "),
        ({"base_input": [], "plus_input": []}, "has no inputs"),
        ({"assertion": "assert swap("}, "column 'assertion' is not Python"),
        ({"entry_point": ""}, "column 'entry_point' is ''"),
    ],
)
def test_a_row_without_inputs_is_bad(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRowError, match="^" + reason.replace("(", r"\(")):
        PRESETS["mbpp_plus"].read(ROW | change)


def test_reference_solutions_pass_and_their_mutants_get_the_verdict_of_a_plain_process() -> None:
    """Every sixteenth of the 399 rows; all were run once (docs/verify-code.md)."""
    benchmark, rows = load_benchmark("code_verification"), shared_rows("mbppplus_v010.jsonl")
    assert all(read_gold(PRESETS["mbpp_plus"].read(row).gold) for row in rows)
    some = [row for row in rows[::16] if row["task_id"] != "Mbpp/599"]  # its reference takes half a minute
    items = [PRESETS["mbpp_plus"].read(row) for row in some]
    right = verify_programs([item.gold for item in items], [item.solution or "" for item in items])
    assert {row["task_id"]: v.reason for row, v in zip(some, right, strict=True) if not v.correct} == {}
    solved = [
        benchmark.Solved(row["canonical_solution"], read_gold(item.gold)[0])
        for row, item in zip(some, items, strict=True)
    ]
    changed = benchmark.mutants(solved)
    assert len(changed) > len(some) / 2
    verdicts, plain = benchmark.pass_isolated(changed, 6), benchmark.pass_plainly(changed, 20)
    assert [
        (mutant.program, v, p) for mutant, v, p in zip(changed, verdicts, plain, strict=True) if v.correct != p
    ] == []
    assert {v.status for v in verdicts} >= {"incorrect"}
