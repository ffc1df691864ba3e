import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from progrpo.evaluation.evaluate import Evaluation, ProblemResult, count, judge
from progrpo.evaluation.intervals import mean_over_problems
from progrpo.evaluation.sample import Sample
from progrpo.tasks import Countdown, Problem, Task
from progrpo.verify import Verdict, VerifierFailedError
from reference import statistics


class FakeTask:
    """A response says its own verdict: ``right:NAME``, ``wrong`` or ``broken``."""

    name = verifier = "fake"
    max_response_tokens = 8

    def __init__(self, solutions: int | None = 4) -> None:
        self.solutions = solutions

    def train_problems(self) -> Sequence[Problem]:
        return []

    def heldout_problems(self) -> Sequence[Problem]:
        return []

    def verify(self, problem: Problem, response: str) -> Verdict:
        kind, _, name = response.partition(":")
        if kind == "right":
            return Verdict("correct", canonical=name)
        return Verdict("error", "lost") if kind == "broken" else Verdict("incorrect", "wrong")

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        return [self.verify(problem, response) for problem, response in zip(problems, responses, strict=True)]

    def gold(self, problem: Problem) -> str:
        return ""

    def count_solutions(self, problem: Problem) -> int | None:
        return self.solutions


def counted(task: Task, problem: Problem, samples: list[Sample]) -> ProblemResult:
    """Judge the samples of one problem, and count them."""
    return count(task, problem, judge(task, [problem], [samples], max_error_share=1.0)[0])


def samples_of(*texts: str, entropies: Sequence[float] = (1.0,)) -> list[Sample]:
    return [Sample(text, [0] * len(entropies), [-1.0] * len(entropies), list(entropies)) for text in texts]


A = ProblemResult("a", samples=4, correct=1, errors=0, distinct=1, solutions=4, entropy=0.5, tokens=30)
B = ProblemResult("b", samples=4, correct=3, errors=0, distinct=2, solutions=2, entropy=0.1, tokens=10)
EVALUATION = Evaluation({"task": "fake", "samples": 4}, [A, B])


def test_counting_the_samples_of_a_problem() -> None:
    samples = samples_of("right:x", "wrong", "right:y", "right:x", entropies=(0.5, 1.0))
    assert counted(FakeTask(), {"problem_id": "p"}, samples) == ProblemResult(
        "p", samples=4, correct=3, errors=0, distinct=2, solutions=4, entropy=0.75, tokens=8
    )


def test_what_the_verifier_failed_on_is_counted_apart() -> None:
    result = counted(FakeTask(None), {"problem_id": "p"}, samples_of("right:x", "broken", "wrong", "broken", "right:x"))
    assert (result.samples, result.correct, result.errors, result.distinct) == (3, 2, 2, 1)
    assert result.solutions is None
    # Tokens and entropy are the policy's, whatever the verifier made of them.
    assert result.tokens == 5


def test_the_entropy_of_a_problem_is_over_its_tokens_and_not_its_responses() -> None:
    samples = samples_of("wrong", entropies=(1.0,)) + samples_of("wrong", entropies=(0.0, 0.0, 0.0))
    assert counted(FakeTask(), {"problem_id": "p"}, samples).entropy == 0.25


def test_samples_without_tokens() -> None:
    result = counted(FakeTask(), {"problem_id": "p"}, samples_of("wrong", entropies=()))
    assert (result.entropy, result.tokens) == (0.0, 0)


def test_counting_countdown_finds_every_solution_once() -> None:
    task = Countdown(numbers=3)
    problem = {"problem_id": "2 2 2 : 6 ;", "numbers": [2, 2, 2], "target": 6}
    texts = ["2 + 2 = 4 , 4 + 2 = 6", "2 + 2 = 4 , 2 + 4 = 6", "2 * 2 = 4 , 4 + 2 = 6", "2 + 2 = 4 , 4 - 2 = 2"]
    result = counted(task, problem, samples_of(*texts))
    assert (result.correct, result.distinct, result.solutions) == (3, 2, 2)


def test_measures_of_each_problem_worked_by_hand() -> None:
    assert EVALUATION.values("pass@1") == pytest.approx([0.25, 0.75], abs=1e-15)
    assert EVALUATION.values("pass@2") == pytest.approx([0.5, 1.0], abs=1e-15)
    assert EVALUATION.values("avg").tolist() == [0.25, 0.75]
    assert EVALUATION.values("distinct").tolist() == [1.0, 2.0]
    assert EVALUATION.values("coverage").tolist() == [0.25, 1.0]
    assert EVALUATION.values("entropy").tolist() == [0.5, 0.1]
    assert EVALUATION.pass_at(3).tolist() == pytest.approx([float(statistics.pass_at_k(4, c, 3)) for c in (1, 3)])


def test_the_summary_worked_by_hand() -> None:
    assert EVALUATION.samples == 4
    # (0.5 * 30 + 0.1 * 10) / 40: every token weighs the same.
    assert EVALUATION.entropy == pytest.approx(0.4)
    assert EVALUATION.summary() == pytest.approx(
        {
            "pass@1": 0.5,
            "pass@2": 0.75,
            "pass@4": 1.0,
            "avg@4": 0.5,
            "distinct": 1.5,
            "coverage": 0.625,
            "entropy": 0.4,
            "errors": 0.0,
        }
    )


def test_a_summary_of_problems_with_fewer_judged_samples_stops_at_the_fewest() -> None:
    evaluation = Evaluation({}, [A, replace(B, samples=2, correct=1, errors=2)])
    summary = evaluation.summary()
    assert evaluation.samples == 2
    assert "pass@2" in summary
    assert "pass@4" not in summary
    assert summary["errors"] == 2
    with pytest.raises(ValueError, match="k is 4 but a problem has only 2 samples"):
        evaluation.values("pass@4")


def test_an_estimate_is_the_mean_over_problems_with_its_interval() -> None:
    assert EVALUATION.estimate("pass@1") == mean_over_problems(EVALUATION.values("pass@1"))
    assert EVALUATION.estimate("pass@1").mean == pytest.approx(0.5)


def test_an_evaluation_comes_back_from_json_as_it_was() -> None:
    record = json.loads(json.dumps(EVALUATION.to_json(), allow_nan=False))
    assert Evaluation.from_json(record) == EVALUATION
    assert record["summary"] == pytest.approx(EVALUATION.summary())
    assert set(record["intervals"]) == {"pass@1", "pass@2", "pass@3", "pass@4", "distinct", "coverage"}
    for measure, interval in record["intervals"].items():
        assert set(interval) == {"mean", "low", "high"}
        assert interval["mean"] == pytest.approx(EVALUATION.values(measure).mean())
        assert interval["low"] <= interval["mean"] <= interval["high"]


@pytest.mark.filterwarnings("error")
def test_an_evaluation_whose_solutions_are_not_known_has_no_coverage() -> None:
    evaluation = Evaluation({}, [replace(A, solutions=None), replace(B, solutions=None)])
    assert np.isnan(evaluation.values("coverage")).all()
    record = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert "coverage" not in record["summary"]
    assert "coverage" not in record["intervals"]
    assert Evaluation.from_json(record) == evaluation


@pytest.mark.filterwarnings("error")
def test_a_problem_on_which_the_verifier_always_failed_is_left_out_and_said_so() -> None:
    lost = ProblemResult("lost", samples=0, correct=0, errors=4, distinct=0, solutions=None, entropy=9.0, tokens=1)
    evaluation = Evaluation(EVALUATION.settings, [A, lost, B])
    assert evaluation.samples == 4
    summary = evaluation.summary()
    assert summary["pass@1"] == EVALUATION.summary()["pass@1"]
    assert (summary["errors"], summary["unjudged problems"]) == (4, 1)
    assert "unjudged problems" not in EVALUATION.summary()
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json(), allow_nan=False))) == evaluation


def test_an_evaluation_stops_where_the_verifier_keeps_failing() -> None:
    samples = [samples_of(*["broken"] * 40), samples_of(*["right:x"] * 1000)]
    with pytest.raises(VerifierFailedError, match="failed on 40 of the last 40"):
        judge(FakeTask(), [{"problem_id": "a"}, {"problem_id": "b"}], samples, 0.1)
