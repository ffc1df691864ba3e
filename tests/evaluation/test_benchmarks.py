"""Every benchmark reads as many rows as published, and tells right answers from wrong ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.test_choice_task import GPQA
from tests.tasks.test_code_task import ROWS
from tests.verify.shared_data import shared_file

from progrpo.common.errors import ConfigError
from progrpo.evaluation.benchmarks import BENCHMARKS, benchmark
from progrpo.tasks import CodeTask, Problem
from progrpo.verify.registry import VERIFIERS

FILES: Mapping[str, tuple[str, int]] = {
    "aime24": ("aime24.jsonl", 30),
    "aime25": ("aime25.jsonl", 30),
    "amc23": ("amc23.jsonl", 40),
    "math500": ("math500.jsonl", 500),
    "minerva": ("minerva_math.jsonl", 272),
    "olympiadbench": ("olympiadbench_math_en.jsonl", 673),
    "codeforces": ("codeforces_rllm_test.jsonl", 408),
    "humaneval": ("humaneval.jsonl", 164),
    "mbpp": ("mbpp.jsonl", 500),
    "mbpp_plus": ("mbppplus_v010.jsonl", 399),
    "mmlu_pro": ("mmlu_pro_sample_1400.jsonl", 1400),
}
"""Each benchmark's local file and its number of problems. MBPP+ is an earlier version, MMLU-Pro a sample."""
WRITTEN = {"gpqa": (GPQA, ""), **{name: (row, right) for name, row, right in ROWS}}
"""For the other benchmarks, a row of the published schema and a right response."""


def right_response(name: str, problem: Problem, row: dict[str, Any]) -> str:
    """The gold as a model would write it; for a program, the row's solution."""
    kind = BENCHMARKS[name].kind
    if kind is not CodeTask:
        gold = problem["gold"]
        return rf"So \boxed{{{json.loads(gold)['answer'] if problem['verifier'] == 'choice' else gold}}}"
    if name == "humaneval":
        return str(row["canonical_solution"])
    return CodeTask.PRESETS[BENCHMARKS[name].preset].read(row).solution or ""


@pytest.mark.parametrize("name", FILES)
def test_the_real_rows_are_read(name: str) -> None:
    file, count = FILES[name]
    path = shared_file(file)
    problems = benchmark(name).task(str(path)).heldout_problems()
    assert len(problems) == count
    assert len({problem["problem_id"] for problem in problems}) == count
    if name not in ("mbpp_plus", "mmlu_pro"):
        assert count + benchmark(name).unusable == benchmark(name).problems
    assert all(problem["prompt"][0]["role"] == "user" for problem in problems)


@pytest.mark.parametrize("name", [name for name in FILES if name != "codeforces"])
def test_the_gold_is_right_and_another_answer_wrong(name: str) -> None:
    path = shared_file(FILES[name][0])
    task = benchmark(name).task(str(path), limit=3)
    problems = task.heldout_problems()
    lines = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
    rows = [row for row in lines if name != "mbpp" or row["task_id"] >= 11]
    for problem, row in zip(problems, rows[:3], strict=True):
        assert task.verify(problem, right_response(name, problem, row)).correct, problem
        for response in (r"\boxed{123456789}", r"\boxed{Z}", "```python\nx = 1\n```", ""):
            assert task.verify(problem, response).status == "incorrect"


def test_a_codeforces_problem_is_solved_or_not() -> None:
    """1971A asks for the smaller of two digits first."""
    task = benchmark("codeforces").task(str(shared_file(FILES["codeforces"][0])), limit=1)
    problem = task.heldout_problems()[0]
    program = "```python\nfor _ in range(int(input())):\n    print(*sorted(map(int, input().split())))\n```"
    assert task.verify(problem, program).correct
    assert not task.verify(problem, program.replace("split())", "split()), reverse=True")).correct


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in FILES or name == "mbpp_plus"])
def test_rows_of_the_published_schema(name: str, tmp_path: Path) -> None:
    row, right = WRITTEN[BENCHMARKS[name].preset if name in ("livecodebench",) else name]
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    task = benchmark(name).task(str(tmp_path / "rows.jsonl"))
    problem = task.heldout_problems()[0]
    assert task.verify(problem, right or right_response(name, problem, row)).correct
    assert task.verify(problem, r"\boxed{Z}").status == "incorrect"


def test_every_benchmark_is_tested() -> None:
    assert set(FILES) | {"gpqa", "livecodebench", "humaneval_plus"} == set(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_table_is_consistent(name: str) -> None:
    one = BENCHMARKS[name]
    assert one.verifier in VERIFIERS
    assert f"{one.problems:,}" in one.about
    assert one.source.startswith(f"{one.kind.PRESETS[one.preset].hub}, ")
    ks = [int(metric.partition("@")[2]) for metric in one.metrics]
    assert max(ks) <= one.samples
    assert {metric.partition("@")[0] for metric in one.metrics} <= {"avg", "pass", "maj"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "aime2024",
            "there is no benchmark 'aime2024'; did you mean 'aime24'? The benchmarks are aime24, aime25, amc23",
        ),
        ("MATH500", "did you mean 'math500'?"),
        ("mbpp+", "did you mean 'mbpp'?"),
        ("xyz", "there is no benchmark 'xyz'; the benchmarks are aime24, "),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        benchmark(name)
    assert message in str(raised.value)


def test_an_evaluation_chooses_template_and_limit() -> None:
    path = str(shared_file("aime24.jsonl"))
    prompts = [p["prompt"] for p in benchmark("aime24").task(path, limit=2, template="base").heldout_problems()]
    assert len(prompts) == 2
    assert all(prompt.startswith("Problem: ") for prompt in prompts)
    with pytest.raises(ConfigError, match="template must be one of plain, base, chat, or a text with"):
        benchmark("aime24").task(path, template="cat")
    with pytest.raises(ConfigError, match="limit must be at least 1, got 0"):
        benchmark("aime24").task(path, limit=0)


def test_only_known_unusable_rows_are_left_out(tmp_path: Path) -> None:
    rows = [{"problem": "p?", "answer": "1"}, {"problem": "q?"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = str(tmp_path / "rows.jsonl")
    with pytest.raises(ConfigError, match="1 bad row"):
        benchmark("aime24").task(path).heldout_problems()
    assert len(benchmark("aime24").task(path, skip_bad_rows=True).heldout_problems()) == 1
    assert len(benchmark("olympiadbench").task(path).heldout_problems()) == 1
    with pytest.raises(ConfigError, match="1 bad row"):
        benchmark("olympiadbench").task(path, skip_bad_rows=False).heldout_problems()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_samples_and_budgets(name: str) -> None:
    mathematics = {"aime24", "aime25", "amc23", "math500", "minerva", "olympiadbench"}
    contests = {"livecodebench", "codeforces"}
    others = {"gpqa": (8, 8192), "mmlu_pro": (1, 4096)}
    expected = (32, 8192) if name in mathematics else (16, 8192) if name in contests else others.get(name, (20, 2048))
    assert (BENCHMARKS[name].samples, BENCHMARKS[name].max_new_tokens) == expected
