import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from progrpo.tasks import Countdown, MathTask, Problem
from progrpo.tasks.rewards import (
    FEWEST_JUDGED,
    ErrorWatch,
    Reward,
    compute_score,
    task_reward,
    verified_reward,
    verl_row,
)
from progrpo.tasks.rows import Data
from progrpo.verify import Verdict, VerifierFailedError


class SpyTask:
    """The row's answer is right, and "broken" makes the verifier fail; ``asked`` lists the responses that it
    verified."""

    name = verifier = "spy"
    max_response_tokens = 8

    def __init__(self) -> None:
        self.asked: list[tuple[Problem, str]] = []

    def train_problems(self) -> Sequence[Problem]:
        return []

    def heldout_problems(self) -> Sequence[Problem]:
        return []

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        return [self.verify(problem, response) for problem, response in zip(problems, responses, strict=True)]

    def gold(self, problem: Problem) -> str:
        return problem["answer"]

    def verify(self, problem: Problem, response: str) -> Verdict:
        self.asked.append((problem, response))
        if response == "broken":
            return Verdict("error", "the worker was lost")
        if response == problem["answer"]:
            return Verdict("correct", canonical=f"the {response}")
        return Verdict("incorrect", "wrong")

    def count_solutions(self, problem: Problem) -> int | None:
        return None


def test_each_completion_is_verified_with_its_own_row() -> None:
    task = SpyTask()
    rewards = task_reward(task)(["p", "p", "q"], ["a", "b", "b"], problem_id=["1", "1", "2"], answer=["a", "a", "b"])
    assert rewards == [1.0, 0.0, 1.0]
    assert task.asked == [
        ({"problem_id": "1", "answer": "a"}, "a"),
        ({"problem_id": "1", "answer": "a"}, "b"),
        ({"problem_id": "2", "answer": "b"}, "b"),
    ]


def test_an_error_of_the_verifier_has_no_reward() -> None:
    reward = task_reward(SpyTask())
    assert reward(["p"] * 3, ["broken", "a", "b"], problem_id=["1"] * 3, answer=["a"] * 3) == [None, 1.0, 0.0]
    assert reward.canonical_form({"problem_id": "1", "answer": "a"}, "broken") is None


def test_columns_without_one_value_per_row_are_left_out() -> None:
    task = SpyTask()
    task_reward(task)(["p"], ["a"], problem_id=["1"], answer=["a"], trainer_state=object(), other=[1, 2], text="x")
    assert task.asked[0][0] == {"problem_id": "1", "answer": "a"}


@pytest.mark.parametrize(
    "completion",
    [
        [{"role": "assistant", "content": "a"}],
        [
            {"role": "assistant", "content": "wait"},
            {"role": "tool", "content": "b"},
            {"role": "assistant", "content": "a"},
        ],
    ],
)
def test_the_last_message_is_verified(completion: list[dict[str, str]]) -> None:
    reward = task_reward(SpyTask())
    assert reward([["p"]], [completion], problem_id=["1"], answer=["a"]) == [1.0]
    assert reward.canonical_form({"problem_id": "1", "answer": "a"}, completion) == "the a"


def test_a_message_in_parts_and_a_completion_without_messages_get_a_reward() -> None:
    reward = verified_reward("math", gold="solution")
    parts = [{"role": "assistant", "content": [{"type": "text", "text": r"It is \boxed{5}."}]}]
    columns = {"solution": ["5"] * 2}
    assert reward([[{"role": "user", "content": "2 + 3?"}]] * 2, [parts, []], **columns) == [1.0, 0.0]


def test_canonical_forms_need_no_second_verification() -> None:
    task = SpyTask()
    reward = task_reward(task)
    reward(["p", "p"], ["a", "a"], problem_id=["1", "1"], answer=["a", "a"])
    assert reward.canonical_form({"problem_id": "1", "answer": "a"}, "a") == "the a"
    assert reward.verdict({"problem_id": "1", "answer": "a"}, "a").correct
    assert len(task.asked) == 1


def test_the_same_text_is_judged_for_each_problem() -> None:
    reward = task_reward(SpyTask())
    assert reward(["p", "q"], ["a", "a"], problem_id=["1", "2"], answer=["a", "b"]) == [1.0, 0.0]


def test_an_evaluation_does_not_evict_training_verdicts() -> None:
    task = SpyTask()
    reward = task_reward(task)
    reward(["p"], ["a"], problem_id=["1"], answer=["a"])
    for i in range(100):
        reward(["q"] * 8, [f"{i}-{k}" for k in range(8)], problem_id=["2"] * 8, answer=["b"] * 8)
    asked = len(task.asked)
    assert reward.verdict({"prompt": "p", "problem_id": "1", "answer": "a"}, "a").correct
    assert len(task.asked) == asked == 801


def test_the_newest_verdicts_and_the_whole_last_batch_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("progrpo.tasks.rewards.KEPT_VERDICTS", 3)
    task = SpyTask()
    reward = task_reward(task)
    for texts in (["old"], ["a", "b", "c", "d"]):
        reward(["p"] * len(texts), texts, problem_id=["1"] * len(texts), answer=["a"] * len(texts))
    for text in "abcd":
        reward.verdict({"problem_id": "1", "answer": "a"}, text)
    assert len(task.asked) == 5
    reward.verdict({"problem_id": "1", "answer": "a"}, "old")
    assert len(task.asked) == 6


def test_trls_extra_columns_do_not_change_the_problem() -> None:
    task = SpyTask()
    reward = task_reward(task)
    row = {"prompt": "p", "problem_id": "1", "answer": "a"}
    beside: dict[str, Any] = {"completion_ids": [[1], [2, 3]], "environments": [object(), object()]}
    assert reward(["p"] * 2, ["a", "a"], problem_id=["1"] * 2, answer=["a"] * 2, **beside) == [1.0, 1.0]
    assert reward.canonical_form(row, "a") == "the a"
    assert task.asked == [({"problem_id": "1", "answer": "a"}, "a")]


@pytest.mark.parametrize(
    "golds",
    [
        [[1], [True]],
        ["1", 1],
        [["ab", "c"], ["a", "bc"]],
        [{"a": "1"}, {"a": "2"}],
        [np.arange(3000), np.where(np.arange(3000) == 1500, 0, np.arange(3000))],
        ["x" * 10**6 + "1", "x" * 10**6 + "2"],
        [None, "None"],
        ["\ud800", "\ud801"],
    ],
    ids=["bool", "int", "cut", "nested", "array", "long", "none", "surrogates"],
)
def test_problems_whose_golds_differ_are_different_problems(golds: list[Any]) -> None:
    asked: list[Any] = []

    def verify_batch(rows: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        asked.extend(row["gold"] for row in rows)
        return [Verdict("correct", canonical=str(len(asked) - len(rows) + i)) for i in range(len(rows))]

    reward = Reward(verify_batch)
    same = {"prompts": ["p"] * 4, "completions": ["4"] * 4, "problem_id": ["1"] * 4}
    reward(**same, gold=[*golds, *golds])
    assert len(asked) == 2
    forms = [reward.canonical_form({"prompt": "p", "problem_id": "1", "gold": gold}, "4") for gold in golds]
    assert len(set(forms)) == 2
    assert len(asked) == 2


def test_long_tests_are_not_copied_for_each_response() -> None:
    def column() -> list[str]:
        """A new copy of the text in each row, as in a dataset."""
        return ["".join(["t" * 500_000, str(i // 8)]) for i in range(64)]

    reward = Reward(lambda rows, texts: [Verdict("correct") for _ in texts])
    tests, texts = column(), [f"answer {i}" for i in range(64)]
    tracemalloc.start()
    try:
        assert reward(["p"] * 64, texts, tests=tests) == [1.0] * 64
        for row, text in zip(column(), texts, strict=True):
            assert reward.verdict({"prompt": "p", "tests": row}, text).correct
            del row
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        reward(["p"] * 64, texts, tests=tests)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000, "one row's tests and the digests"
    assert peak - kept < 2_000_000


def test_an_error_is_recorded_and_verified_again_in_the_next_batch() -> None:
    task = SpyTask()
    reward = task_reward(task)
    for tries in (1, 2):
        assert reward(["p"] * 2, ["broken"] * 2, problem_id=["1"] * 2, answer=["a"] * 2) == [None, None]
        assert reward.verdict({"problem_id": "1", "answer": "a"}, "broken").status == "error"
        assert len(task.asked) == tries


def test_a_recorded_verdict_is_not_verified_again() -> None:
    task = SpyTask()
    reward = task_reward(task)
    problem = reward.problem_digest({"prompt": "2 + 2", "problem_id": "a", "answer": "4"})
    reward.recall(problem, "4", Verdict("correct", canonical="recorded"))
    reward.recall(problem, "broken", Verdict("error", "the worker was lost"))
    asked = {"prompts": ["2 + 2"] * 4, "completions": ["4", "5", "broken", "4"], "problem_id": ["a"] * 4}
    assert reward(**asked, answer=["4"] * 4) == [1.0, 0.0, None, 1.0]
    assert [response for _, response in task.asked] == ["5", "broken"], "a failure of the verifier is tried again"
    assert reward.canonical_form({"problem_id": "a", "answer": "4"}, "4") == "recorded"
    assert reward(["2 + 2"], ["4"], problem_id=["b"], answer=["4"]) == [1.0], "another problem"
    assert len(task.asked) == 3


def test_a_recorded_verdict_is_looked_up_by_the_row() -> None:
    task = SpyTask()
    reward = task_reward(task)
    row = {"prompt": [{"role": "user", "content": "2 + 2"}], "problem_id": 7, "answer": "4"}
    reward.recall(reward.problem_digest(row), "4", Verdict("correct", canonical="recorded"))
    assert reward.canonical_form(row, "4") == "recorded"
    assert task.asked == []


@pytest.mark.parametrize("problem_id", [{"problem_id": "a"}, {}], ids=["id", "no id"])
def test_a_recorded_verdict_is_valid_only_for_its_own_gold(problem_id: dict[str, str]) -> None:
    task = SpyTask()
    reward = task_reward(task)
    digest = reward.problem_digest({"prompt": "2 + 2", **problem_id, "answer": "4"})
    reward.recall(digest, "4", Verdict("correct", canonical="recorded"))
    columns: dict[str, Any] = {name: [value] * 2 for name, value in problem_id.items()}
    assert reward(["2 + 2"] * 2, ["4"] * 2, **columns, answer=["4", "5"]) == [1.0, 0.0]
    assert [problem["answer"] for problem, _ in task.asked] == ["5"]


def test_no_completion_has_no_reward() -> None:
    assert task_reward(SpyTask())([], [], problem_id=[]) == []


def test_the_function_is_named_after_its_task() -> None:
    assert task_reward(Countdown()).__name__ == "countdown_reward"


def test_countdown_rewards() -> None:
    columns: dict[str, Any] = {"problem_id": ["a"] * 2, "numbers": [[2, 3, 5]] * 2, "target": [16, 16]}
    completions = ["3 + 5 = 8 , 8 * 2 = 16", "3 + 5 = 8 , 8 * 2 = 61"]
    assert task_reward(Countdown(numbers=3))(["2 3 5 : 16 ;"] * 2, completions, **columns) == [1.0, 0.0]


def test_errors_are_logged_and_stop_the_run_past_their_share(caplog: pytest.LogCaptureFixture) -> None:
    reward = task_reward(SpyTask(), max_error_share=0.25)
    logged: list[tuple[str, float]] = []

    def call(*texts: str) -> list[float | None]:
        n = len(texts)
        columns: dict[str, Any] = {"problem_id": [str(i) for i in range(n)], "answer": ["a"] * n}
        return reward(["p"] * n, list(texts), log_metric=lambda *pair: logged.append(pair), **columns)

    assert call(*["a"] * 30, "broken", "broken")[-3:] == [1.0, None, None]
    assert logged == [("verifier/errors", 2 / 32)]
    assert "failed on 2 of 32 responses: the worker was lost" in caplog.text
    with pytest.raises(VerifierFailedError, match=r"failed on 12 of the last 42 responses.*0\.25.*the worker was lost"):
        call(*["broken"] * 10)


def test_the_share_counts_the_newest_responses_and_needs_enough_of_them() -> None:
    watch, right, lost = ErrorWatch(0.1), Verdict("correct"), Verdict("error", "lost")
    watch.see([lost] * (FEWEST_JUDGED - 1))
    with pytest.raises(VerifierFailedError, match=f"{FEWEST_JUDGED} of the last {FEWEST_JUDGED}"):
        watch.see([lost])
    watch = ErrorWatch(0.1)
    watch.see([lost] * 3)
    watch.see([right] * 600)
    watch.see([right] * 460 + [lost] * 51)
    with pytest.raises(VerifierFailedError, match="52 of the last 512"):
        watch.see([lost])
    ErrorWatch(1.0).see([lost] * 100)
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.5"):
        ErrorWatch(1.5)


def test_a_reward_for_your_own_dataset() -> None:
    reward = verified_reward("countdown", gold="problem")
    gold = '{"numbers": [2, 3, 5], "target": 16}'
    right, wrong = "3 + 5 = 8 , 8 * 2 = 16", "3 + 5 = 9 , 9 * 2 = 18"
    messages = [{"role": "assistant", "content": right}]
    assert reward(["p"] * 3, [right, wrong, messages], problem=[gold] * 3) == [1.0, 0.0, 1.0]
    assert reward(["p"], [right], problem=["16"]) == [None]
    assert reward.__name__ == "countdown_reward"
    with pytest.raises(KeyError, match=r"no column 'problem' \(gold=...\); it has solution"):
        reward(["p"], [right], solution=[gold])
    with pytest.raises(ValueError, match="verifier must be one of math, "):
        verified_reward("maths")


def test_the_same_reward_in_verls_form() -> None:
    task = Countdown(numbers=3, train_size=2)
    problem = {"prompt": "2 3 5 : 16 ;", "problem_id": "x", "numbers": [2, 3, 5], "target": 16}
    row = verl_row(task, problem)
    assert row["prompt"] == [{"role": "user", "content": "2 3 5 : 16 ;"}]

    def score(response: str, **changes: Any) -> dict[str, Any]:
        arguments = {"data_source": row["data_source"], "ground_truth": row["reward_model"]["ground_truth"]}
        return compute_score(solution_str=response, extra_info=row["extra_info"], **(arguments | changes))

    assert score("3 + 5 = 8 , 8 * 2 = 16") == {
        "score": 1.0,
        "verifier_error": 0.0,
        "reason": "",
        "canonical": "2*8=16,3+5=8",
        "problem_id": "x",
    }
    assert score("3 + 5 = 8 , 8 * 2 = 17")["score"] == 0.0
    assert score("3 + 5 = 8 , 8 * 2 = 16", data_source="dapo")["score"] == 1.0  # by extra_info
    assert score("3 + 5 = 8", ground_truth="?")["verifier_error"] == 1.0
    assert score("16", verifier="exact", ground_truth="16")["score"] == 1.0
    with pytest.raises(ValueError, match="data_source 'dapo' names no verifier"):
        compute_score("dapo", "16", "16")


def test_a_row_for_verl_from_a_dataset_task() -> None:
    task = MathTask(Data(preset="word_problems", limit=2), Data(preset="word_problems", seed=1, limit=2))
    problem = task.train_problems()[0]
    row = verl_row(task, problem)
    assert row["data_source"] == "progrpo/math"
    assert row["reward_model"] == {"style": "rule", "ground_truth": problem["gold"]}
    assert row["prompt"] == problem["prompt"]
    assert compute_score(row["data_source"], f"So \\boxed{{{problem['gold']}}}.", problem["gold"])["score"] == 1.0


CUT_OFF = r"Maybe \boxed{5}? Wait, that can't be right"


@pytest.mark.parametrize(
    ("prompt", "template_opens", "score"),
    [
        ([{"role": "user", "content": "2 + 3?"}], True, 0.0),
        ([{"role": "user", "content": "2 + 3?"}], False, 1.0),
        ("2 + 3? <think>", False, 0.0),
        ("2 + 3?", False, 1.0),
    ],
)
def test_a_row_for_verl_says_whether_its_prompt_opens_a_thinking_part(
    prompt: Any, template_opens: bool, score: float
) -> None:
    data = Data(preset="word_problems", limit=2)
    task = MathTask(data, data.model_copy(update={"seed": 1}))
    problem = task.train_problems()[0] | {"prompt": prompt, "gold": "5"}
    row = verl_row(task, problem, template_opens_thinking=template_opens)

    def scored(response: str, **settings: Any) -> float:
        return compute_score(
            row["data_source"], response, row["reward_model"]["ground_truth"], row["extra_info"], **settings
        )["score"]

    assert scored(CUT_OFF) == score
    assert scored(CUT_OFF + r"</think> It is \boxed{5}.") == 1.0
    assert scored(CUT_OFF, opens_thinking=True) == 0.0, "reward_kwargs come first"
    assert scored(CUT_OFF, opens_thinking=False) == 1.0


def test_a_recorded_verdict_is_looked_up_by_the_response_with_its_thinking() -> None:
    """A run folder keeps the response with its ``<think>``, and a resumed run looks it up by that text."""
    task = SpyTask()
    reward = task_reward(task, opens_thinking=True)
    prompt, row = [{"role": "user", "content": "2 + 2"}], {"problem_id": "a", "answer": "4"}
    text = reward.response_text(prompt, "hm</think>4")
    assert text == "<think>\nhm</think>4"
    reward.recall(reward.problem_digest(row), text, Verdict("correct", canonical="recorded"))
    assert reward([prompt], ["hm</think>4"], problem_id=["a"], answer=["4"]) == [1.0]
    assert reward.verdict(row | {"prompt": prompt}, "hm</think>4").canonical == "recorded"
    assert task.asked == []
