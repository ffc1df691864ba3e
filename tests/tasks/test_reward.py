from collections.abc import Sequence
from typing import Any

import pytest

from progrpo.tasks import Countdown, Problem
from progrpo.tasks.reward import TaskReward
from progrpo.verify import Verdict


class SpyTask:
    """Right is the row's answer, "broken" is the verifier's failure; it remembers what it was asked."""

    name = "spy"
    max_response_tokens = 8

    def __init__(self) -> None:
        self.asked: list[tuple[Problem, str]] = []

    def train_problems(self) -> Sequence[Problem]:
        return []

    def heldout_problems(self) -> Sequence[Problem]:
        return []

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
    rewards = TaskReward(task)(["p", "p", "q"], ["a", "b", "b"], problem_id=["1", "1", "2"], answer=["a", "a", "b"])
    assert rewards == [1.0, 0.0, 1.0]
    assert task.asked == [
        ({"problem_id": "1", "answer": "a"}, "a"),
        ({"problem_id": "1", "answer": "a"}, "b"),
        ({"problem_id": "2", "answer": "b"}, "b"),
    ]


def test_an_error_of_the_verifier_has_no_reward() -> None:
    reward = TaskReward(SpyTask())
    assert reward(["p"] * 3, ["broken", "a", "b"], problem_id=["1"] * 3, answer=["a"] * 3) == [None, 1.0, 0.0]
    assert reward.canonical_form({"problem_id": "1", "answer": "a"}, "broken") is None


def test_columns_that_are_not_one_value_a_row_are_left_out() -> None:
    task = SpyTask()
    TaskReward(task)(["p"], ["a"], problem_id=["1"], answer=["a"], trainer_state=object(), other=[1, 2], text="x")
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
def test_of_messages_the_last_one_is_verified(completion: list[dict[str, str]]) -> None:
    reward = TaskReward(SpyTask())
    assert reward([["p"]], [completion], problem_id=["1"], answer=["a"]) == [1.0]
    assert reward.canonical_form({"problem_id": "1", "answer": "a"}, completion) == "the a"


def test_telling_solutions_apart_verifies_nothing_twice() -> None:
    task = SpyTask()
    reward = TaskReward(task)
    reward(["p", "p"], ["a", "a"], problem_id=["1", "1"], answer=["a", "a"])
    assert reward.canonical_form({"problem_id": "1", "answer": "a"}, "a") == "the a"
    assert reward.verdict({"problem_id": "1", "answer": "a"}, "a").correct
    assert len(task.asked) == 1


def test_the_same_text_is_another_answer_to_another_problem() -> None:
    reward = TaskReward(SpyTask())
    assert reward(["p", "q"], ["a", "a"], problem_id=["1", "2"], answer=["a", "b"]) == [1.0, 0.0]


def test_the_verdicts_of_an_earlier_batch_are_forgotten() -> None:
    reward = TaskReward(SpyTask())
    assert reward(["p"], ["a"], problem_id=["1"], answer=["a"]) == [1.0]
    assert reward(["p"], ["a"], problem_id=["1"], answer=["b"]) == [0.0]


def test_no_completion_has_no_reward() -> None:
    assert TaskReward(SpyTask())([], [], problem_id=[]) == []


def test_the_function_is_named_after_its_task() -> None:
    assert TaskReward(Countdown()).__name__ == "countdown_reward"


def test_countdown_rewards() -> None:
    columns: dict[str, Any] = {"problem_id": ["a"] * 2, "numbers": [[2, 3, 5]] * 2, "target": [16, 16]}
    completions = ["3 + 5 = 8 , 8 * 2 = 16", "3 + 5 = 8 , 8 * 2 = 61"]
    assert TaskReward(Countdown(numbers=3))(["2 3 5 : 16 ;"] * 2, completions, **columns) == [1.0, 0.0]
