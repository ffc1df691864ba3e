"""What an evaluation adds up to: counts by problem, their means and intervals.

A sample that the verifier failed on is not judged. Where problems have lost samples that way, pass@k, maj@k and
distinct@k are over the problems that have at least k judged ones: fewer than k samples allow no unbiased estimate. How
many problems that are is always said, for the problems that lost samples may be the hard ones.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progrpo.evaluation.diversity import answer_entropy, distinct_at_k
from progrpo.evaluation.intervals import Estimate, mean_over_problems, mean_over_sampling
from progrpo.evaluation.majority import majority_at_k
from progrpo.evaluation.pass_at_k import pass_at_k

SUMMARY_KS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""The k of pass@k in a summary, as far as there are samples."""


@dataclass(frozen=True)
class ProblemResult:
    """The samples of one problem, counted."""

    problem_id: str
    samples: int
    correct: int
    """Correct samples."""
    errors: int
    """Samples that the verifier failed on: counted among ``samples`` no more, shown so that none goes unseen."""
    distinct: int
    """Different correct solutions among the samples."""
    solutions: int | None
    """How many there are, where that can be known."""
    entropy: float | None
    """Mean over response tokens, in nats; None where log-probs are not known. ``settings["entropy"]`` says of what."""
    tokens: int
    """Response tokens, all samples together."""
    truncated: int = 0
    """Samples cut off by the budget of tokens."""
    solution_counts: list[int] | None = None
    """How many samples each different correct solution has, the most frequent first."""
    wrong_votes: list[int] | None = None
    """How many samples give each wrong answer, the most frequent first; None where a vote makes no sense."""
    no_answer: int = 0
    """Samples that give no answer, of those that have a vote."""
    diversity: dict[str, float | None] | None = None
    """See :func:`progrpo.evaluation.diversity.diversity`; None where it was not measured."""

    @property
    def drawn(self) -> int:
        """Samples, those among them that the verifier failed on."""
        return self.samples + self.errors


@dataclass(frozen=True)
class Evaluation:
    """The results by problem, and what they add up to."""

    settings: dict[str, Any]
    problems: list[ProblemResult]

    @cached_property
    def judged(self) -> list[ProblemResult]:
        """The problems with a judged sample: all of them, unless the verifier failed on every sample of one."""
        return [p for p in self.problems if p.samples]

    def values(self, measure: str) -> NDArray[np.float64]:
        """A measure of each judged problem: ``pass@K``, ``maj@K``, ``distinct@K``, ``avg``, ``distinct``, ``coverage``,
        ``entropy``, ``answer_entropy``, ``truncated``, and the names of
        :func:`progrpo.evaluation.diversity.diversity`.

        ``distinct@K`` is the expected number of different correct solutions among K samples; ``coverage`` the share of
        a problem's solutions that were found, ``truncated`` the share of its samples that were cut off. NaN where it is
        not known: a measure at K of a problem with fewer than K judged samples is not.

        Raises:
            ValueError: K above the judged samples of every problem.
        """
        name, at, k = measure.partition("@")
        if at:
            values = np.full(len(self.judged), np.nan)
            enough = np.array([p.samples >= int(k) for p in self.judged])
            enough |= not enough.any()  # a k that no problem has is refused with the measure's own sentence
            values[enough] = _AT_K[name]([p for p, has in zip(self.judged, enough, strict=True) if has], int(k))
            return values
        if measure in self.diversity_measures:
            return _floats((p.diversity or {}).get(measure) for p in self.judged)
        if measure == "answer_entropy":
            votes = [None if p.wrong_votes is None else [p.correct, *p.wrong_votes] for p in self.judged]
            return _floats(None if counts is None else answer_entropy(counts) for counts in votes)
        if measure == "truncated":
            return _floats(p.truncated / p.drawn for p in self.judged)
        if measure == "avg":
            return _floats(p.correct / p.samples for p in self.judged)
        if measure == "coverage":
            return _floats(p.distinct / p.solutions if p.solutions else None for p in self.judged)
        return _floats(getattr(p, measure) for p in self.judged)

    @cached_property
    def diversity_measures(self) -> list[str]:
        """The measures of words and meaning that were taken."""
        return list(dict.fromkeys(name for p in self.problems for name in p.diversity or {}))

    def estimate(self, measure: str) -> Estimate:
        """A measure's mean over the problems where it is known, with its 95 % interval over problems."""
        values = self.values(measure)
        return mean_over_problems(values[~np.isnan(values)])

    def sampling_estimate(self, measure: str) -> Estimate:
        """The same with its 95 % interval over sampling only, for ``avg``, ``pass@K``, ``maj@K`` and ``distinct@K``.

        The interval is NaN where one of the problems that the mean is over has no sample more than K (1 for ``avg``).
        """
        k = int(measure.partition("@")[2] or 1)
        problems = [p for p in self.judged if p.samples >= k]
        values = Evaluation({}, problems or self.judged).values(measure)
        if min(p.samples for p in problems) <= k:
            return Estimate(float(values.mean()), float("nan"), float("nan"), "sampling", len(problems))
        without = [_without_one(problem) for problem in problems]
        fewer = iter(Evaluation({}, [one for of_problem in without for one, _ in of_problem]).values(measure))
        thetas = [([next(fewer) for _ in of_problem], [count for _, count in of_problem]) for of_problem in without]
        return mean_over_sampling(values, thetas, [p.samples for p in problems])

    @property
    def samples(self) -> int:
        """n: the most judged samples that a problem has; one that lost samples to the verifier has fewer."""
        return max(p.samples for p in self.judged)

    def problems_at(self, k: int) -> int:
        """How many problems have at least k judged samples: what a measure at k is over."""
        return sum(p.samples >= k for p in self.judged)

    @property
    def unjudged(self) -> list[str]:
        """The ids of the problems without a judged sample, which no mean is over."""
        return [p.problem_id for p in self.problems if not p.samples]

    @property
    def entropy(self) -> float:
        """Token-weighted mean entropy over all responses, in nats; NaN where it is not known of every problem."""
        sampled = [p for p in self.problems if p.tokens]
        if not sampled or any(p.entropy is None for p in sampled):
            return float("nan")
        return float(np.average([p.entropy or 0.0 for p in sampled], weights=[p.tokens for p in sampled]))

    def summary(self) -> dict[str, float]:
        """The means, under the field's names; ``problems with K samples`` where measures at K are not over all."""
        n = self.samples
        summary = {f"pass@{k}": _mean(self.values(f"pass@{k}")) for k in SUMMARY_KS if k <= n}
        if all(p.wrong_votes is not None for p in self.judged):
            summary[f"maj@{n}"] = _mean(self.values(f"maj@{n}"))
        summary[f"avg@{n}"] = _mean(self.values("avg"))
        summary["distinct"] = _mean(self.values("distinct"))
        for measure in ("coverage", "entropy", "answer_entropy", *self.diversity_measures):
            mean = self.entropy if measure == "entropy" else _mean(self.values(measure))
            if not np.isnan(mean):
                summary[measure] = mean
        summary["truncated"] = sum(p.truncated for p in self.judged) / sum(p.drawn for p in self.judged)
        summary["errors"] = float(sum(p.errors for p in self.problems))
        most = max(p.drawn for p in self.judged)
        for k in sorted({k for k in SUMMARY_KS if k <= most} | {n, most}):
            if self.problems_at(k) < len(self.judged):
                summary[f"problems with {k} samples"] = float(self.problems_at(k))
        if self.unjudged:
            summary["unjudged problems"] = float(len(self.unjudged))
        return summary

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``evaluations/*.json`` of a run folder."""
        coverage = None if any(p.solutions is None for p in self.problems) else "coverage"
        measures = [f"pass@{k}" for k in range(1, self.samples + 1)] + ["distinct", *([coverage] if coverage else [])]
        return {
            "settings": self.settings,
            "summary": self.summary(),
            "intervals": {name: asdict(self.estimate(name)) for name in measures},
            "problems": [asdict(problem) for problem in self.problems],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Evaluation":
        return cls(value["settings"], [ProblemResult(**problem) for problem in value["problems"]])


def fewer_problems(samples: Sequence[int]) -> str:
    """Over how many problems a measure at k is, from each k on where that changes; empty where it never does.

    Args:
        samples: judged samples of each problem.

    >>> fewer_problems([64, 64, 63, 3])
    '3 of 4 problems from k = 4, 2 from k = 64'
    >>> fewer_problems([64, 64])
    ''
    """
    told = [(left + 1, sum(n > left for n in samples)) for left in sorted(set(samples))[:-1]]
    if len(told) > MOST_TOLD:
        told = [*told[: MOST_TOLD - 1], told[-1]]
    counts = [f"{count} from k = {k}" for k, count in told]
    return ", ".join(counts).replace(" from", f" of {len(samples)} problems from", 1)


MOST_TOLD = 6
"""A sentence holds no more counts; the JSON has those of every k."""


def _floats(values: Iterable[float | None]) -> NDArray[np.float64]:
    """As an array, NaN for what is not known."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _mean(values: NDArray[np.float64]) -> float:
    """Over the problems where it is known; NaN if that is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _pass_at(problems: Sequence[ProblemResult], k: int) -> NDArray[np.float64]:
    return np.atleast_1d(pass_at_k([p.samples for p in problems], [p.correct for p in problems], k))


def _majority_at(problems: Sequence[ProblemResult], k: int) -> NDArray[np.float64]:
    _pass_at(problems, k)  # refuses a k above n
    return np.array(
        [
            np.nan if p.wrong_votes is None else _majority(p.correct, tuple(p.wrong_votes), p.no_answer)[k - 1]
            for p in problems
        ]
    )


_majority = lru_cache(maxsize=4096)(majority_at_k)


def _distinct_at(problems: Sequence[ProblemResult], k: int) -> NDArray[np.float64]:
    _pass_at(problems, k)
    return np.array(
        [np.nan if p.solution_counts is None else distinct_at_k(p.solution_counts, p.samples, k) for p in problems]
    )


_AT_K = {"pass": _pass_at, "maj": _majority_at, "distinct": _distinct_at}


def _without_one(problem: ProblemResult) -> list[tuple[ProblemResult, int]]:
    """The problem without one of its samples: each way that makes a difference, and how many samples it is for."""
    fewer = replace(problem, samples=problem.samples - 1)
    right = replace(fewer, correct=problem.correct - 1)
    if problem.solution_counts is None:
        ways = [(right, problem.correct)]
    else:
        ways = [(replace(right, solution_counts=less), n) for less, n in _one_less(problem.solution_counts)]
    unanswered = problem.samples - problem.correct
    if problem.wrong_votes is None:
        ways.append((fewer, unanswered))
    else:
        ways += [(replace(fewer, wrong_votes=less), n) for less, n in _one_less(problem.wrong_votes)]
        ways.append((replace(fewer, no_answer=problem.no_answer - 1), unanswered - sum(problem.wrong_votes)))
    return [(way, samples) for way, samples in ways if samples]


def _one_less(counts: list[int]) -> list[tuple[list[int], int]]:
    """The classes without one of their samples, and how many samples that is true of: classes of one size are alike."""
    ways = []
    for size, classes in Counter(counts).items():
        less = list(counts)
        less[less.index(size)] -= 1
        ways.append((sorted(less, reverse=True), size * classes))
    return ways
