import json
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.reference import statistics

from progrpo.common.errors import ConfigError
from progrpo.evaluation.evaluate import count, evaluate, open_store
from progrpo.evaluation.intervals import mean_over_problems
from progrpo.evaluation.results import Evaluation, ProblemResult
from progrpo.evaluation.store import Judged, read_samples
from progrpo.sampling import Request, Sample, Sampling
from progrpo.tasks import Countdown, Problem, Task
from progrpo.verify import Verdict, VerifierFailedError


class FakeTask:
    """A response is its verdict: ``right:NAME``, ``wrong`` or ``broken``."""

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

    def count_votes(self, problem: Problem, responses: Sequence[str]) -> tuple[list[int], int] | None:
        named = Counter(response for response in responses if response != "wrong")
        return sorted(named.values(), reverse=True), responses.count("wrong")

    def count_solutions(self, problem: Problem) -> int | None:
        return self.solutions


def counted(task: Task, problem: Problem, samples: list[Sample]) -> ProblemResult:
    """Judge the samples of one problem, and count them."""
    return count(task, problem, [Judged.of(sample, task.verify(problem, sample.text)) for sample in samples])


def samples_of(*texts: str, entropies: Sequence[float] = (1.0,)) -> list[Sample]:
    return [Sample(text, [0] * len(entropies), [-1.0] * len(entropies), list(entropies)) for text in texts]


A = ProblemResult("a", samples=4, correct=1, errors=0, distinct=1, solutions=4, entropy=0.5, tokens=30)
B = ProblemResult("b", samples=4, correct=3, errors=0, distinct=2, solutions=2, entropy=0.1, tokens=10)
EVALUATION = Evaluation({"task": "fake", "samples": 4}, [A, B])


def test_counting_the_samples_of_a_problem() -> None:
    samples = samples_of("right:x", "wrong", "right:y", "right:x", entropies=(0.5, 1.0))
    assert counted(FakeTask(), {"problem_id": "p"}, samples) == ProblemResult(
        "p",
        samples=4,
        correct=3,
        errors=0,
        distinct=2,
        solutions=4,
        entropy=0.75,
        tokens=8,
        solution_counts=[2, 1],
        wrong_votes=[],
        no_answer=1,
    )


def test_samples_on_which_the_verifier_failed_are_counted_separately() -> None:
    result = counted(FakeTask(None), {"problem_id": "p"}, samples_of("right:x", "broken", "wrong", "broken", "right:x"))
    assert (result.samples, result.correct, result.errors, result.distinct) == (3, 2, 2, 1)
    assert result.solutions is None
    # Tokens and entropy do not depend on the verifier.
    assert result.tokens == 5


def test_the_entropy_of_a_problem_is_over_its_tokens_and_not_its_responses() -> None:
    samples = samples_of("wrong", entropies=(1.0,)) + samples_of("wrong", entropies=(0.0, 0.0, 0.0))
    assert counted(FakeTask(), {"problem_id": "p"}, samples).entropy == 0.25


def test_samples_without_tokens() -> None:
    result = counted(FakeTask(), {"problem_id": "p"}, samples_of("wrong", entropies=()))
    assert (result.entropy, result.tokens) == (None, 0)


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
    assert EVALUATION.values("pass@3").tolist() == pytest.approx([float(statistics.pass_at_k(4, c, 3)) for c in (1, 3)])


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
            "truncated": 0.0,
            "errors": 0.0,
        }
    )


def test_an_estimate_is_the_mean_over_problems_with_its_interval() -> None:
    assert EVALUATION.estimate("pass@1") == mean_over_problems(EVALUATION.values("pass@1"))
    assert EVALUATION.estimate("pass@1").mean == pytest.approx(0.5)


def test_an_evaluation_survives_json() -> None:
    record = json.loads(json.dumps(EVALUATION.to_json(), allow_nan=False))
    assert Evaluation.from_json(record) == EVALUATION
    assert record["summary"] == pytest.approx(EVALUATION.summary())
    assert set(record["intervals"]) == {"pass@1", "pass@2", "pass@3", "pass@4", "distinct", "coverage"}
    for measure, interval in record["intervals"].items():
        assert set(interval) == {"mean", "low", "high", "over", "problems"}
        assert interval["mean"] == pytest.approx(EVALUATION.values(measure).mean())
        assert interval["low"] <= interval["mean"] <= interval["high"]


@pytest.mark.filterwarnings("error")
def test_without_known_solutions_there_is_no_coverage() -> None:
    evaluation = Evaluation({}, [replace(A, solutions=None), replace(B, solutions=None)])
    assert np.isnan(evaluation.values("coverage")).all()
    record = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert "coverage" not in record["summary"]
    assert "coverage" not in record["intervals"]
    assert Evaluation.from_json(record) == evaluation


@pytest.mark.filterwarnings("error")
def test_a_problem_on_which_the_verifier_always_failed_is_left_out_and_counted() -> None:
    lost = ProblemResult("lost", samples=0, correct=0, errors=4, distinct=0, solutions=None, entropy=9.0, tokens=1)
    evaluation = Evaluation(EVALUATION.settings, [A, lost, B])
    assert evaluation.samples == 4
    summary = evaluation.summary()
    assert summary["pass@1"] == EVALUATION.summary()["pass@1"]
    assert (summary["errors"], summary["unjudged problems"]) == (4, 1)
    assert "unjudged problems" not in EVALUATION.summary()
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json(), allow_nan=False))) == evaluation


class FakeBackend:
    """Sample i of prompt p is ``SCRIPT[p][i]``, in pieces of two. ``drawn`` lists the requested samples."""

    name = "fake"

    def __init__(self, script: dict[str, list[str]], *, fails_after: int = 10**9, model_digest: str = "m") -> None:
        self.script, self.fails_after, self.model_digest = script, fails_after, model_digest
        self.drawn: list[tuple[str, int]] = []

    def sample(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> Generator[tuple[int, list[Sample]], None, None]:
        for place, request in reversed(list(enumerate(requests))):
            assert isinstance(request.prompt, str)
            indices = list(range(request.first, request.first + request.count))
            for two in (indices[i : i + 2] for i in range(0, len(indices), 2)):
                if len(self.drawn) >= self.fails_after:
                    raise ConnectionError("gone")
                self.drawn += [(request.prompt, i) for i in two]
                yield place, samples_of(*(self.script[request.prompt][i] for i in two))


PROBLEMS: list[Problem] = [{"problem_id": name, "prompt": name} for name in "ab"]
SCRIPT = {
    "a": ["right:x", "wrong", "right:y", "wrong", "wrong"],
    "b": ["wrong", "right:x", "right:x", "wrong", "wrong"],
}


def test_an_evaluation_counts_the_answers_to_each_problem() -> None:
    progress: list[int] = []
    evaluation = evaluate(
        FakeBackend(SCRIPT), FakeTask(), Sampling(8), n=5, problems=PROBLEMS, on_progress=progress.append
    )
    assert [(p.problem_id, p.samples, p.correct, p.distinct) for p in evaluation.problems] == [
        ("a", 5, 2, 2),
        ("b", 5, 2, 1),
    ]
    assert sum(progress) == 10
    assert evaluation.settings["backend"] == "fake"
    assert evaluation.settings["entropy"] == "distribution"


def test_an_interrupted_evaluation_goes_on_and_counts_no_sample_twice(tmp_path: Path) -> None:
    task, sampling = FakeTask(), Sampling(8)
    whole = evaluate(FakeBackend(SCRIPT), task, sampling, n=5, problems=PROBLEMS)
    drawn: list[tuple[str, int]] = []
    for fails_after in (2, 4, 100):
        backend = FakeBackend(SCRIPT, fails_after=fails_after)
        store = open_store(tmp_path / "s", backend, task, sampling)
        try:
            evaluation = evaluate(backend, task, sampling, n=5, problems=PROBLEMS, store=store)
        except ConnectionError:
            assert fails_after < 100
        drawn += backend.drawn
    assert evaluation == whole
    assert sorted(drawn) == [(problem, i) for problem in "ab" for i in range(5)]
    assert len(read_samples(tmp_path / "s")) == 10


def test_more_samples_later_are_added_to_the_stored_ones(tmp_path: Path) -> None:
    task, sampling = FakeTask(), Sampling(8)

    def with_n(n: int) -> tuple[Evaluation, FakeBackend]:
        backend = FakeBackend(SCRIPT)
        store = open_store(tmp_path / "s", backend, task, sampling)
        return evaluate(backend, task, sampling, n=n, problems=PROBLEMS, store=store), backend

    with_n(2)
    more, backend = with_n(5)
    assert len(backend.drawn) == 6
    assert more == evaluate(FakeBackend(SCRIPT), task, sampling, n=5, problems=PROBLEMS)
    fewer, backend = with_n(1)
    assert backend.drawn == []
    assert [p.samples for p in fewer.problems] == [1, 1]


@pytest.mark.parametrize(
    ("sampling", "digest", "named"),
    [
        (Sampling(8, seed=1), "m", "seed 0, not 1"),
        (Sampling(8, temperature=0.5), "m", "temperature 1.0, not 0.5"),
        (Sampling(9), "m", "max_new_tokens 8, not 9"),
        (Sampling(8), "other", "model 'm', not 'other'"),
    ],
)
def test_samples_of_another_evaluation_are_refused(tmp_path: Path, sampling: Sampling, digest: str, named: str) -> None:
    open_store(tmp_path / "s", FakeBackend(SCRIPT), FakeTask(), Sampling(8))
    with pytest.raises(ConfigError, match=f"holds samples of another evaluation .{named}"):
        open_store(tmp_path / "s", FakeBackend(SCRIPT, model_digest=digest), FakeTask(), sampling)


def test_an_evaluation_stops_if_the_verifier_keeps_failing() -> None:
    script = {"a": ["right:x"] * 40, "b": ["broken"] * 40}
    with pytest.raises(VerifierFailedError, match="failed on 32 of the last 32"):
        evaluate(FakeBackend(script), FakeTask(), Sampling(8), n=40, problems=PROBLEMS, max_error_share=0.1)


def test_without_distributions_the_entropy_is_estimated_from_the_drawn_tokens() -> None:
    samples = [Sample("wrong", [1, 2], [-1.0, -3.0]), Sample("wrong", [1], [-0.5])]
    judged = [Judged.of(sample, Verdict("incorrect")) for sample in samples]
    assert count(FakeTask(), {"problem_id": "p"}, judged).entropy == pytest.approx(1.5)
    unknown = [Judged.of(Sample("wrong", [1, 2], []), Verdict("incorrect"))]
    assert count(FakeTask(), {"problem_id": "p"}, [*judged, *unknown]).entropy is None


VOTED = [
    ProblemResult("a", 6, 3, 0, 2, None, 0.1, 9, truncated=3, solution_counts=[2, 1], wrong_votes=[2], no_answer=1),
    ProblemResult("b", 6, 1, 0, 1, None, 0.1, 9, solution_counts=[1], wrong_votes=[3, 1], no_answer=1),
    ProblemResult("c", 6, 0, 0, 0, None, 0.1, 9, solution_counts=[], wrong_votes=[4, 1, 1]),
]


def test_votes_and_solutions_at_k_worked_by_hand() -> None:
    evaluation = Evaluation({}, VOTED)
    assert evaluation.values("maj@6").tolist() == [1.0, 0.0, 0.0]
    assert evaluation.values("maj@1") == pytest.approx([3 / 6, 1 / 6, 0.0])
    assert evaluation.values("distinct@6").tolist() == [2.0, 1.0, 0.0]
    assert evaluation.values("distinct@1") == pytest.approx([3 / 6, 1 / 6, 0.0])
    assert evaluation.values("truncated").tolist() == [0.5, 0.0, 0.0]
    assert evaluation.summary()["maj@6"] == pytest.approx(1 / 3)
    assert np.isnan(EVALUATION.values("maj@2")).all()
    assert "maj@4" not in EVALUATION.summary()
    with pytest.raises(ValueError, match="k is 7 but a problem has only 6 samples"):
        evaluation.values("maj@7")


@pytest.mark.parametrize("measure", ["avg", "pass@1", "pass@3", "maj@3", "distinct@2"])
def test_the_interval_over_sampling_leaves_out_each_sample_once(measure: str) -> None:
    """Against the jackknife written out over single samples."""
    without: list[list[ProblemResult]] = []
    for p in VOTED:
        solutions, wrong = p.solution_counts or [], p.wrong_votes or []
        fewer = replace(p, samples=5)
        less = [[n - (i == j) for j, n in enumerate(solutions)] for i, n in enumerate(solutions) for _ in range(n)]
        ways = [replace(fewer, correct=p.correct - 1, solution_counts=counts) for counts in less]
        less = [[n - (i == j) for j, n in enumerate(wrong)] for i, n in enumerate(wrong) for _ in range(n)]
        ways += [replace(fewer, wrong_votes=counts) for counts in less]
        ways += [replace(fewer, no_answer=p.no_answer - 1)] * p.no_answer
        assert len(ways) == 6
        without.append(ways)
    variance = sum(5 / 6 * np.sum((t - t.mean()) ** 2) for w in without for t in [Evaluation({}, w).values(measure)])
    estimate = Evaluation({}, VOTED).sampling_estimate(measure)
    assert estimate.over == "sampling"
    assert estimate.mean == pytest.approx(Evaluation({}, VOTED).values(measure).mean())
    assert estimate.high - estimate.mean == pytest.approx(1.959964 * np.sqrt(variance) / 3, rel=1e-6)


def test_an_unknown_measure_has_no_interval_over_sampling() -> None:
    assert np.isnan(EVALUATION.sampling_estimate("maj@2").high)
    assert np.isnan(EVALUATION.sampling_estimate("pass@4").high)
    single = Evaluation({}, [replace(A, samples=1), replace(B, samples=1, correct=1)])
    assert (single.sampling_estimate("avg").mean, np.isnan(single.sampling_estimate("avg").low)) == (1.0, True)
    # pass@1 needs no votes for its interval: p (1 - p) / (n - 1).
    wanted = 1.959964 * (0.1875 / 3 * 2) ** 0.5 / 2
    estimate = EVALUATION.sampling_estimate("pass@1")
    assert estimate.high - estimate.mean == pytest.approx(wanted, rel=1e-6)


def test_the_entropy_is_weighted_by_tokens_and_0_is_a_known_value() -> None:
    counted = {"samples": 4, "correct": 1, "errors": 0, "distinct": 1, "solutions": None}
    problems = [
        ProblemResult(problem_id=name, entropy=entropy, tokens=tokens, **counted)  # type: ignore[arg-type]
        for name, entropy, tokens in (("a", 0.0, 10), ("b", 1.0, 30), ("c", None, 50))
    ]
    assert Evaluation({}, problems[:2]).entropy == 0.75
    assert np.isnan(Evaluation({}, problems[2:]).entropy)
