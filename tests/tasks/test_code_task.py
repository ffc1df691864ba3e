"""The presets of the code task: rows in each dataset's published schema, and real rows where they are available."""

import base64
import json
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.verify.shared_data import shared_file

from progrpo.common.errors import ConfigError
from progrpo.tasks import CodeTask, Data
from progrpo.tasks.generated import small_functions

PRESETS = CodeTask.PRESETS

ADD = "```python\na, b = map(int, input().split())\nprint(a + b)\n```"
TWICE = "```python\ndef twice(x):\n    return x * 2\n```"
SOLUTION = "```python\nclass Solution:\n    def twice(self, x):\n        return x * 2\n```"
STDIN = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}, {"input": "2 2", "output": "4", "testtype": "stdin"}]
FUNCTIONAL = [{"input": "[1, 2]", "output": "[1, 2, 1, 2]", "testtype": "functional"}]


def compressed(tests: Any) -> str:
    """LiveCodeBench's private tests: JSON, pickled as text, compressed, in base 64."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def livecodebench(public: Any, private: Any, metadata: Any = None) -> dict[str, Any]:
    return {
        "question_title": "t",
        "question_content": "p",
        "platform": "leetcode",
        "starter_code": "class Solution:\n    def twice(self, x):\n",
        "public_test_cases": json.dumps(public),
        "private_test_cases": private,
        "metadata": json.dumps(metadata or {}),
    }


EVALPLUS_SCRIPT = """import numpy as np
from math import inf

def is_floats(x) -> bool:
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)):
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False

def assertion(out, exp, atol):
    exact_match = out == exp
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not exact_match and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact_match, f"out: {out}, exp: {exp}"

"""
EVALPLUS_LOOP = """inputs = [[4], [0.1], [[1, 2]], [inf]]
results = [8, 0.2000001, [1, 2, 1, 2], inf]
for i, (inp, exp) in enumerate(zip(inputs, results)):
    assertion({candidate}(*inp), exp, 0)
"""


def deepcoder(tests: Any, **more: Any) -> dict[str, Any]:
    return {"problem": "p", "solutions": [], "tests": json.dumps(tests), **more}


ROWS: list[tuple[str, dict[str, Any], str]] = [
    ("deepcoder", deepcoder(STDIN), ADD),
    ("deepcoder", deepcoder([{"type": "stdin_stdout", "input": "1 2", "output": "3", "fn_name": None}]), ADD),
    ("deepcoder", deepcoder({"inputs": ["1 2\n", ["3 4"]], "outputs": ["3\n", ["7"]]}), ADD),
    (
        "deepcoder",
        deepcoder({"inputs": [[[1, 2]], [[0]]], "outputs": [[1, 2, 1, 2], [0, 0]], "fn_name": "twice"}),
        TWICE,
    ),
    # PrimeIntellect's tests of functions, and most of TACO's, put the output into a list.
    (
        "deepcoder",
        deepcoder([{"type": "function_call", "fn_name": "twice", "input": ["ab"], "output": ["abab"]}]),
        TWICE,
    ),
    (
        "deepcoder",
        deepcoder({"inputs": [[[1, 2]], [[0]]], "outputs": [[[1, 2, 1, 2]], [[0, 0]]], "fn_name": "twice"}),
        TWICE,
    ),
    ("deepcoder", deepcoder([{**FUNCTIONAL[0], "metadata": {"func_name": "twice"}}], starter_code="s"), SOLUTION),
    ("deepcoder", {"problem": "p", "tests": {"functional": "assert Solution().twice(4) == 8"}}, SOLUTION),
    ("codeforces", deepcoder(STDIN), ADD),
    ("livecodebench_v5_window", livecodebench(STDIN, compressed(STDIN)) | {"contest_date": "2024-08-03T00:00:00"}, ADD),
    ("livecodebench", livecodebench(STDIN, compressed(STDIN)), ADD),
    ("livecodebench", livecodebench(STDIN, json.dumps(STDIN)), ADD),
    ("livecodebench", livecodebench(FUNCTIONAL, compressed(FUNCTIONAL), {"func_name": "twice"}), SOLUTION),
    (
        "code_contests",
        {
            "name": "n",
            "description": "p",
            "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
            "private_tests": {"input": ["4 4\n"], "output": ["8\n"]},
            "generated_tests": {"input": [], "output": []},
        },
        ADD,
    ),
    (
        "humaneval",
        {
            "task_id": "HumanEval/x",
            "prompt": 'def twice(x):\n    """Two times x."""\n',
            "entry_point": "twice",
            "canonical_solution": "    return x * 2\n",
            "test": "def check(candidate):\n    assert candidate(4) == 8\n",
        },
        "    return x * 2\n",
    ),
    (
        "humaneval_plus",
        {
            "task_id": "HumanEval/x",
            "prompt": 'def twice(x):\n    """Two times x."""\n',
            "entry_point": "twice",
            "canonical_solution": "    return x * 2\n",
            "test": EVALPLUS_SCRIPT
            + "def check(candidate):\n"
            + "".join(f"    {line}\n" for line in EVALPLUS_LOOP.format(candidate="candidate").split("\n")),
        },
        "    return x * 2\n",
    ),
    (
        "mbpp_plus",
        {
            "task_id": 2,
            "code": "def twice(x):\n    return x + x\n",
            "prompt": "Write a function.",
            "source_file": "f",
            "test_imports": ["import math"],
            "test_list": ["assert twice(4) == 8"],
            "test": EVALPLUS_SCRIPT + EVALPLUS_LOOP.format(candidate="twice"),
        },
        TWICE,
    ),
    (
        "mbpp_test",
        {"text": "p", "code": "c", "task_id": 11, "test_setup_code": "", "test_list": ["assert twice(4) == 8"]},
        TWICE,
    ),
    (
        "mbpp",
        {"text": "p", "code": "c", "task_id": 1, "test_setup_code": "", "test_list": ["assert twice(4) == 8"]},
        TWICE,
    ),
    (
        "mbpp",  # sanitized
        {
            "prompt": "p",
            "code": "c",
            "task_id": 1,
            "test_imports": ["import math"],
            "test_list": ["assert twice(math.floor(4.5)) == 8"],
        },
        TWICE,
    ),
    ("small_functions", {"text": "p", "code": "c", "test_list": ["assert twice(4) == 8"]}, TWICE),
]


def problem_of(preset: str, row: dict[str, Any], folder: Path) -> tuple[CodeTask, dict[str, Any]]:
    file = folder / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    data = Data(preset=preset, path=str(file)) if PRESETS[preset].hub else Data(preset=preset, limit=1)
    task = CodeTask(Data(preset="small_functions", seed=5, limit=1), data)
    if PRESETS[preset].hub:
        return task, task.heldout_problems()[0]
    return task, {"gold": PRESETS[preset].read(row).gold, "verifier": "code"}


def test_there_is_a_row_for_every_preset() -> None:
    assert {preset for preset, _, _ in ROWS} == set(PRESETS)


@pytest.mark.parametrize(("preset", "row", "right"), ROWS)
def test_a_row_of_the_published_schema(preset: str, row: dict[str, Any], right: str, tmp_path: Path) -> None:
    task, problem = problem_of(preset, row, tmp_path)
    assert task.verify(problem, right).correct, task.verify(problem, right)
    wrong = right.replace("* 2", "* 3").replace("a + b", "a - b")
    assert task.verify(problem, wrong).status == "incorrect"


def test_the_starter_code_and_the_instruction_are_in_the_prompt(tmp_path: Path) -> None:
    _, problem = problem_of("livecodebench", livecodebench(STDIN, compressed(STDIN)), tmp_path)
    text = problem["prompt"][0]["content"]
    assert "class Solution:" in text
    assert "one ```python code block" in text


@pytest.mark.parametrize(
    ("date", "kept"),
    [("2024-07-31T23:59:59", False), ("2024-08-01T00:00:00", True), ("2025-01-31", True), ("2025-02-01", False)],
)
def test_livecodebench_window_follows_the_contest_dates(date: str, kept: bool) -> None:
    row = livecodebench(STDIN, compressed(STDIN)) | {"contest_date": date}
    assert (PRESETS["livecodebench_v5_window"].read(row) is not None) == kept


def test_codeforces_problems_keep_their_published_order() -> None:
    """If rows have no ids, ratings are looked up by place, so no row may be left out or moved."""
    path = shared_file("codeforces_rllm_test.jsonl")
    problems = CodeTask(None, Data(preset="codeforces", path=str(path))).heldout_problems()
    ids = json.loads(shared_file("codeforces_metadata.jsonl").read_bytes())["data"]
    assert len(problems) == len(ids)
    assert "minimum of $x$ and $y$" in problems[ids.index("1971A")]["prompt"][0]["content"]
    assert not any("source_id" in problem for problem in problems)


def test_a_codeforces_row_may_have_its_id(tmp_path: Path) -> None:
    row = {"id": "1971/A", "problem": "Print 1.", "tests": [{"input": "", "output": "1", "type": "stdin_stdout"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    [problem] = CodeTask(None, Data(preset="codeforces", path=str(tmp_path / "rows.jsonl"))).heldout_problems()
    assert problem["source_id"] == "1971A"


class Harmful:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_harmful_pickle_in_a_dataset_does_nothing(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    private = base64.b64encode(zlib.compress(pickle.dumps(Harmful(target)))).decode()
    pickle.loads(zlib.decompress(base64.b64decode(private)))
    assert target.exists(), "the pickle does harm where it is trusted"
    target.unlink()
    with pytest.raises(ConfigError, match="column 'private_test_cases' can't be read"):
        problem_of("livecodebench", livecodebench(STDIN, private), tmp_path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("preset", "row", "reason"),
    [
        ("deepcoder", deepcoder([]), "has no tests"),
        ("deepcoder", deepcoder([{"input": "1"}]), "a test has no input and output"),
        ("deepcoder", deepcoder({"inputs": ["1"], "outputs": []}), "has 1 inputs and 0 outputs"),
        ("deepcoder", deepcoder({}), "column 'tests' is neither"),
        ("deepcoder", {"problem": "p", "tests": "[1"}, "column 'tests' is not valid JSON"),
        ("deepcoder", deepcoder([*STDIN, *FUNCTIONAL]), "has tests of standard input and of a function mixed"),
        ("livecodebench", livecodebench(STDIN, "?"), "column 'private_test_cases' can't be read"),
        (
            "livecodebench",
            livecodebench(STDIN, compressed({"a": 1})),
            "column 'private_test_cases' holds no list of tests",
        ),
        (
            "code_contests",
            {"description": "p", "public_tests": {"input": ["1"], "output": []}},
            "column 'public_tests' must have as many inputs as outputs",
        ),
        ("humaneval", {"prompt": "p", "test": "t"}, "has no column 'entry_point'"),
        ("mbpp", {"text": "p", "test_list": []}, "column 'test_list' is []"),
    ],
)
def test_a_row_without_usable_tests_is_bad(preset: str, row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        problem_of(preset, row, tmp_path)
    assert f"rows.jsonl:1: {reason}" in str(raised.value)


def row_of(preset: str, place: int = 0) -> dict[str, Any]:
    return [row for name, row, _ in ROWS if name == preset][place]


MBPP, MBPP_SANITIZED = row_of("mbpp"), row_of("mbpp", 1)
EVALPLUS_MBPP = {
    "task_id": "Mbpp/2", "prompt": '"""\nTwice.\n"""\n', "entry_point": "twice",
    "canonical_solution": "def twice(x):\n    return x * 2\n",
    "base_input": [[4]], "plus_input": [[5]], "atol": 0, "assertion": "assert twice(4) == 8",
}  # fmt: skip
EVALPLUS_HUMANEVAL = EVALPLUS_MBPP | {
    "prompt": row_of("humaneval")["prompt"], "canonical_solution": "    return x * 2\n"
}  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "row", "reason"),
    [
        ("humaneval_plus", row_of("humaneval"), "has HumanEval's own tests, which are fewer than HumanEval+'s"),
        ("humaneval_plus", EVALPLUS_MBPP, "has no head of 'twice' to be completed"),
        ("humaneval", row_of("humaneval_plus"), "has the tests of HumanEval+, which are more than HumanEval's"),
        ("humaneval", EVALPLUS_HUMANEVAL, "has the tests of HumanEval+"),
        ("mbpp_plus", MBPP, "has MBPP's own tests, which are fewer than MBPP+'s"),
        ("mbpp_plus", MBPP_SANITIZED, "has MBPP's own tests"),
        ("mbpp_plus", EVALPLUS_HUMANEVAL, "has the head of a function to be completed"),
        ("mbpp", row_of("mbpp_plus"), "has the tests of MBPP+, which are more than MBPP's"),
        ("mbpp_test", row_of("mbpp_plus") | {"task_id": 11}, "has the tests of MBPP+"),
        ("mbpp", EVALPLUS_MBPP, "has the tests of MBPP+"),
        ("codeforces", deepcoder({"inputs": ["1"], "outputs": ["2"]}), "has no list of inputs and outputs"),
        ("codeforces", {"problem": "p", "tests": {"functional": "assert True"}}, "has no list of inputs and outputs"),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_a_preset_refuses_the_rows_of_another_dataset(
    preset: str, row: dict[str, Any], reason: str, skip: bool, tmp_path: Path
) -> None:
    """The refusal is one sentence, and --skip-bad-rows does not prevent it."""
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    task = CodeTask(None, Data(preset=preset, path=str(tmp_path / "rows.jsonl")), skip_bad_rows=skip)
    with pytest.raises(ConfigError) as raised:
        task.heldout_problems()
    message = str(raised.value)
    assert message.startswith(f"preset {preset!r} was given rows of another dataset: rows.jsonl:1 {reason}")
    assert f"give it the rows of {PRESETS[preset].hub}, or choose the preset" in message
    assert "\n" not in message


def test_humaneval_plus_refuses_the_real_rows_of_humaneval() -> None:
    task = CodeTask(None, Data(preset="humaneval_plus", path=str(shared_file("humaneval.jsonl"))))
    with pytest.raises(ConfigError, match=r"humaneval.jsonl:1 has HumanEval's own tests"):
        task.heldout_problems()


def test_livecodebench_counts_two_questions_with_the_same_words(tmp_path: Path) -> None:
    row = livecodebench(STDIN, compressed(STDIN)) | {"contest_date": "2024-08-03"}
    rows = [json.dumps(row | {"question_id": name}) for name in ("abc_a", "arc_a")]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    for preset in ("livecodebench", "livecodebench_v5_window"):
        task = CodeTask(None, Data(preset=preset, path=str(tmp_path / "rows.jsonl")))
        assert [problem["problem_id"] for problem in task.heldout_problems()] == ["abc_a", "arc_a"]


@pytest.mark.parametrize(
    ("preset", "file", "count"),
    [
        ("humaneval", "humaneval.jsonl", 164),
        ("mbpp", "mbpp.jsonl", 974),
        ("deepcoder", "codeforces_rllm_test.jsonl", 408),
        ("deepcoder", "code_contests_rllm_test.jsonl", 165),
    ],
)
def test_the_real_rows_are_all_good(preset: str, file: str, count: int) -> None:
    task = CodeTask(Data(preset="small_functions", limit=1), Data(preset=preset, path=str(shared_file(file))))
    assert len(task.heldout_problems()) == count


def test_worked_examples_solve_other_problems_than_the_prompts() -> None:
    task = CodeTask(
        Data(preset="small_functions", limit=8), Data(preset="small_functions", seed=1, limit=4), examples=4
    )
    first_items = [
        item for item, _ in zip(map(PRESETS["small_functions"].read, small_functions(0)), range(4), strict=False)
    ]
    problem = task.train_problems()[0]
    assert len(problem["prompt"]) == 9
    examples = [message["content"] for message in problem["prompt"] if message["role"] == "assistant"]
    for item, example in zip(first_items, examples, strict=True):
        assert task.verify({"gold": item.gold, "verifier": "code"}, example).correct
        assert task.verify(problem, example).status == "incorrect"
