"""The problems of reasoning-gym, and its scorers in the sandbox."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from progrpo.common.errors import ConfigError
from progrpo.tasks import ReasoningGymTask
from progrpo.verify.code.sandbox import Isolation
from progrpo.verify.reasoning_gym import answers as reasoning_gym_answers
from progrpo.verify.reasoning_gym.answers import extract_tagged_answer, verify_reasoning_gym
from progrpo.verify.reasoning_gym.scorer import CodeInAnswerError, refuse_programs

reasoning_gym = pytest.importorskip("reasoning_gym")
if Path(reasoning_gym.__file__).resolve().is_relative_to("/tmp"):
    pytest.skip("the environment lies in /tmp, which the sandbox hides", allow_module_level=True)

# Each kind of scorer: the default one, those that evaluate the answer, and special ones.
DATASETS = (
    "gsm_symbolic",
    "countdown",
    "puzzle24",
    "simple_integration",
    "polynomial_multiplication",
    "string_insertion",
    "spiral_matrix",
    "number_sorting",
    "binary_matrix",
    "n_queens",
    "codeio",
    "chain_sum",
    "sudoku",
)


def gold(dataset: str, index: int = 0) -> str:
    return json.dumps({"dataset": dataset, "config": {}, "seed": 5, "size": 3, "index": index})


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """The right answers, from reasoning-gym itself in a process where sets have the same order as in the sandbox."""
    script = f"""
import json, reasoning_gym
print(json.dumps({{name: reasoning_gym.create_dataset(name, seed=5, size=3)[0]["answer"] for name in {DATASETS}}}))
"""
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    made = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    return json.loads(made.stdout)


def test_right_answers_are_correct_and_others_incorrect(answers: dict[str, str]) -> None:
    golds = [gold(name) for name in DATASETS]
    right = verify_reasoning_gym(golds, [f"<answer>{answers[name]}</answer>" for name in DATASETS])
    assert [name for name, verdict in zip(DATASETS, right, strict=True) if not verdict.correct] == []
    assert right[0].canonical == answers[DATASETS[0]]
    wrong = verify_reasoning_gym(golds, ["<answer>no idea</answer>"] * len(DATASETS))
    assert {verdict.status for verdict in wrong} == {"incorrect"}


ATTACKS = (
    "__import__('os').system('touch {target}')",
    "exec(\"open('{target}', 'w').close()\")",
    "open('{target}', 'w')",
    "().__class__.__base__.__subclasses__()",
    "[c for c in [open] if c('{target}', 'w')]",
    "(lambda: setattr(__import__('reasoning_gym'), 'x', 1))()",
    'sympify(\'__import__("os").system("touch {target}")\')',
    'S(\'open("{target}", "w")\')',
    "globals().update(score=1)",
)


@pytest.mark.parametrize("dataset", ["countdown", "puzzle24", "string_insertion", "simple_integration", "n_queens"])
def test_an_answer_that_is_a_program_is_not_run(dataset: str, tmp_path: Path) -> None:
    target = tmp_path / "touched"
    attacks = [attack.replace("{target}", str(target)) for attack in ATTACKS]
    verdicts = verify_reasoning_gym([gold(dataset)] * len(attacks), [f"<answer>{a}</answer>" for a in attacks])
    assert {verdict.status for verdict in verdicts} == {"incorrect"}, verdicts
    assert not target.exists()


def test_outside_the_sandbox_the_same_answer_does_harm(tmp_path: Path) -> None:
    """This is why there is a sandbox. Here, reasoning-gym's own scorer is called as in its examples."""
    target = tmp_path / "touched"
    dataset = reasoning_gym.create_dataset("countdown", seed=5, size=1)
    dataset.score_answer(f"__import__('os').system('touch {target}')", dataset[0])
    assert target.exists()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "x.__class__",
        "open('x')",
        "[y for y in (1,) if eval('1')]",
        "(lambda: exec('1'))()",
        "getattr(x, 'y')",
        "vars()",
        *(f"{name}('1')" for name in ("parse_expr", "sympify", "lambdify", "preview", "python", "S")),
    ],
)
def test_code_that_reaches_for_more_than_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(CodeInAnswerError, match="the answer uses"):
        refuse_programs(compile(text, "<string>", "eval"))


@pytest.mark.parametrize(
    "text", ["2 * (3 + x) ** 2", "Integer (2 )+Symbol ('x' )", "[[1, 2], [3, 4]]", "abs(min(1, -2))"]
)
def test_arithmetic_is_allowed(text: str) -> None:
    refuse_programs(compile(text, "<string>", "eval"))


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<answer>7</answer>", "7"),
        ("<answer>1</answer> no, <answer>\n2\n</answer>!", "2"),
        ("<think><answer>1</answer></think> 2", None),
        ("<think><answer>1</answer>", None),
        ("7", None),
        ("<answer>7", None),
    ],
)
def test_the_answer_is_the_last_tagged_one_after_the_thinking(response: str, answer: str | None) -> None:
    assert extract_tagged_answer(response) == answer


def test_without_an_answer_there_is_nothing_to_score() -> None:
    verdict = verify_reasoning_gym([gold("countdown")], ["7"])[0]
    assert (verdict.status, verdict.reason) == ("incorrect", "the response has no <answer>...</answer>")


def test_problems_come_from_seeds_and_the_held_out_ones_are_the_same_for_all() -> None:
    first, second = (ReasoningGymTask("chain_sum", train_size=30, heldout_size=10, seed=seed) for seed in (0, 1))
    assert first.heldout_problems() == second.heldout_problems()
    assert first.train_problems() != second.train_problems()
    ids = [problem["problem_id"] for problem in first.train_problems()]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & {problem["problem_id"] for problem in first.heldout_problems()}
    problem = first.heldout_problems()[3]
    where = json.loads(problem["gold"])
    entry = reasoning_gym.create_dataset("chain_sum", seed=where["seed"], size=where["size"])[where["index"]]
    assert problem["prompt"][0]["content"].startswith(entry["question"])
    assert first.verify(problem, f"<answer>{entry['answer']}</answer>").correct


def test_dataset_settings_are_passed_on_or_refused() -> None:
    task = ReasoningGymTask("chain_sum", config={"min_terms": 5, "max_terms": 5}, train_size=3, heldout_size=3)
    assert task.train_problems()
    with pytest.raises(ConfigError, match="'chainsum' is not one of reasoning-gym's: ab, acre, "):
        ReasoningGymTask("chainsum").heldout_problems()
    with pytest.raises(ConfigError, match=r"reasoning-gym's 'chain_sum' refuses task.config"):
        ReasoningGymTask("chain_sum", config={"terms": 5}).heldout_problems()


def test_an_environment_that_the_sandbox_hides_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = SimpleNamespace(origin="/tmp/env/reasoning_gym/__init__.py")
    monkeypatch.setattr(reasoning_gym_answers, "find_spec", lambda name: hidden)
    monkeypatch.setattr(reasoning_gym_answers, "isolation_level", lambda: (Isolation.FULL, {}))
    reasoning_gym_answers._sandbox.cache_clear()
    try:
        [verdict] = verify_reasoning_gym([gold("countdown")], ["<answer>1</answer>"])
    finally:
        reasoning_gym_answers._sandbox.cache_clear()
    assert verdict.status == "error"
    assert "make the environment elsewhere" in verdict.reason
