"""The results of an evaluation: counts by problem, their means and intervals.

A sample on which the verifier failed is not judged. pass@k, maj@k and distinct@k need k judged samples for an unbiased
estimate, so they are over the problems that have at least k. The number of these problems is always shown, because the
problems that lost samples may be the hard ones.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progrpo.evaluation.at_k import distinct_at_k, majority_at_k, pass_at_k
from progrpo.evaluation.diversity import answer_entropy
from progrpo.evaluation.intervals import Estimate, mean_over_problems, mean_over_sampling

SUMMARY_KS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""The k of pass@k in a summary, as far as there are samples."""
MOST_COUNTS = 6  # a sentence of fewer_problems has at most so many counts; the JSON has the counts of every k


@dataclass(frozen=True)
class ProblemResult:
    """The counts of one problem's samples.

    Attributes:
        samples: the judged ones; ``errors`` counts those on which the verifier failed.
        distinct: different correct solutions among the samples.
        solutions: how many solutions there are, if that is known.
        entropy: mean over response tokens, in nats; None without log-probs. ``settings["entropy"]`` says which it is.
        tokens: response tokens of all samples.
        truncated: samples cut off by the budget of tokens.
        solution_counts: how many samples each different correct solution has, the most frequent first.
        wrong_votes: how many samples each wrong answer has, the most frequent first; None if a vote makes no sense.
        no_answer: samples without an answer, if there is a vote.
        diversity: see :func:`progrpo.evaluation.diversity.diversity`; None if it was not measured.
    """

    problem_id: str
    samples: int
    correct: int
    errors: int
    distinct: int
    solutions: int | None
    entropy: float | None
    tokens: int
    truncated: int = 0
    solution_counts: list[int] | None = None
    wrong_votes: list[int] | None = None
    no_answer: int = 0
    diversity: dict[str, float | None] | None = None

    @property
    def drawn(self) -> int:
        """All samples, including those on which the verifier failed."""
        return self.samples + self.errors


@dataclass(frozen=True)
class Evaluation:
    """The results by problem, and their means and intervals."""

    settings: dict[str, Any]
    problems: list[ProblemResult]

    @cached_property
    def judged(self) -> list[ProblemResult]:
        """The problems with a judged sample: all, unless the verifier failed on every sample of a problem."""
        return [p for p in self.problems if p.samples]

    def values(self, measure: str) -> NDArray[np.float64]:
        """A measure of each judged problem; NaN where it is not known, such as at K for a problem with fewer samples.

        ``measure`` is ``pass@K``, ``maj@K``, or ``distinct@K``, the expected number of different correct solutions
        among K samples; ``avg``, ``distinct``, ``coverage`` (the share of a problem's solutions among the samples),
        ``entropy``, ``answer_entropy``, ``truncated`` (the share of samples that were cut off), or a name of
        :func:`progrpo.evaluation.diversity.diversity`. Raises ValueError if no problem has K judged samples.
        """
        name, at, number = measure.partition("@")
        if measure in self.diversity_measures:
            return _floats((p.diversity or {}).get(measure) for p in self.judged)
        if not at:
            return _floats(map(_MEASURES[measure], self.judged))
        k = int(number)
        # Without a problem that has k samples, pass_at_k raises the error for this k.
        problems = [p for p in self.judged if p.samples >= k] or self.judged
        pass_values = np.atleast_1d(pass_at_k([p.samples for p in problems], [p.correct for p in problems], k))
        at_k = iter(pass_values if name == "pass" else [_MEASURES_AT_K[name](p, k) for p in problems])
        return _floats(next(at_k) if p.samples >= k else None for p in self.judged)

    @cached_property
    def diversity_measures(self) -> list[str]:
        """The names of the measures of words and meaning in these results."""
        return list(dict.fromkeys(name for p in self.problems for name in p.diversity or {}))

    def estimate(self, measure: str) -> Estimate:
        """A measure's mean over the problems for which it is known, with its 95 % interval over problems."""
        values = self.values(measure)
        return mean_over_problems(values[~np.isnan(values)])

    def sampling_estimate(self, measure: str) -> Estimate:
        """The same mean of ``avg``, ``pass@K``, ``maj@K`` or ``distinct@K`` with its 95 % interval over sampling only.

        The interval is NaN if one of the problems that the mean is over has no more than K samples (1 for ``avg``).
        """
        k = int(measure.partition("@")[2] or 1)
        problems = [p for p in self.judged if p.samples >= k]
        values = Evaluation({}, problems or self.judged).values(measure)
        if min(p.samples for p in problems) <= k:
            return Estimate(float(values.mean()), np.nan, np.nan, "sampling", len(problems))
        without = [_without_one(problem) for problem in problems]
        fewer = iter(Evaluation({}, [way for ways in without for way, _ in ways]).values(measure))
        thetas = [([next(fewer) for _ in ways], [count for _, count in ways]) for ways in without]
        return mean_over_sampling(values, thetas, [p.samples for p in problems])

    @property
    def samples(self) -> int:
        """n: the most judged samples of a problem. A problem on which the verifier failed has fewer."""
        return max(p.samples for p in self.judged)

    def problems_at(self, k: int) -> int:
        """How many problems have at least k judged samples. A measure at k is over these."""
        return sum(p.samples >= k for p in self.judged)

    @property
    def unjudged(self) -> list[str]:
        """The ids of the problems without a judged sample. They are in no mean."""
        return [p.problem_id for p in self.problems if not p.samples]

    @property
    def entropy(self) -> float:
        """Token-weighted mean entropy over all responses, in nats; NaN if it is not known for every problem."""
        sampled = [p for p in self.problems if p.tokens]
        entropies = _floats(p.entropy for p in sampled)
        return float(np.average(entropies, weights=[p.tokens for p in sampled])) if sampled else np.nan

    def summary(self) -> dict[str, float]:
        """The means by measure; and ``problems with K samples``, if measures at K are not over all problems."""
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
        """Everything, for a JSON file."""
        measures = [*(f"pass@{k}" for k in range(1, self.samples + 1)), "distinct"]
        if all(p.solutions is not None for p in self.problems):
            measures.append("coverage")
        return {
            "settings": self.settings,
            "summary": self.summary(),
            "intervals": {name: asdict(self.estimate(name)) for name in measures},
            "problems": [asdict(problem) for problem in self.problems],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Evaluation":
        """The evaluation that :meth:`to_json` wrote."""
        return cls(value["settings"], [ProblemResult(**problem) for problem in value["problems"]])


def fewer_problems(samples: Sequence[int]) -> str:
    """How many problems a measure at k is over, for each k where the number falls; empty if it never does. ``samples``
    are the judged ones of each problem.

    >>> fewer_problems([64, 64, 63, 3])
    '3 of 4 problems from k = 4, 2 from k = 64'
    >>> fewer_problems([64, 64])
    ''
    """
    counts = [(fewer + 1, sum(n > fewer for n in samples)) for fewer in sorted(set(samples))[:-1]]
    if len(counts) > MOST_COUNTS:
        counts = [*counts[: MOST_COUNTS - 1], counts[-1]]
    sentence = ", ".join(f"{problems} from k = {k}" for k, problems in counts)
    return sentence.replace(" from", f" of {len(samples)} problems from", 1)


def _floats(values: Iterable[float | None]) -> NDArray[np.float64]:
    """An array with NaN for None."""
    return np.array(list(values), dtype=np.float64)


def _mean(values: NDArray[np.float64]) -> float:
    """The mean over the known values; NaN if there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


_majority = lru_cache(maxsize=4096)(majority_at_k)
_MEASURES_AT_K: dict[str, Callable[[ProblemResult, int], float | None]] = {
    "maj": lambda p, k: (
        None if p.wrong_votes is None else _majority(p.correct, tuple(p.wrong_votes), p.no_answer)[k - 1]
    ),
    "distinct": lambda p, k: None if p.solution_counts is None else distinct_at_k(p.solution_counts, p.samples, k),
}
_MEASURES: dict[str, Callable[[ProblemResult], float | None]] = {
    "avg": lambda p: p.correct / p.samples,
    "distinct": lambda p: p.distinct,
    "coverage": lambda p: p.distinct / p.solutions if p.solutions else None,
    "entropy": lambda p: p.entropy,
    "answer_entropy": lambda p: None if p.wrong_votes is None else answer_entropy([p.correct, *p.wrong_votes]),
    "truncated": lambda p: p.truncated / p.drawn,
}


def _without_one(problem: ProblemResult) -> list[tuple[ProblemResult, int]]:
    """The problem with one sample removed: each different result, and how many samples give it when removed."""
    fewer = replace(problem, samples=problem.samples - 1)
    right = replace(fewer, correct=problem.correct - 1)
    if problem.solution_counts is None:
        ways = [(right, problem.correct)]
    else:
        ways = [(replace(right, solution_counts=less), n) for less, n in _one_less(problem.solution_counts)]
    wrong = problem.samples - problem.correct
    if problem.wrong_votes is None:
        ways.append((fewer, wrong))
    else:
        ways += [(replace(fewer, wrong_votes=less), n) for less, n in _one_less(problem.wrong_votes)]
        ways.append((replace(fewer, no_answer=problem.no_answer - 1), wrong - sum(problem.wrong_votes)))
    return [(way, samples) for way, samples in ways if samples]


def _one_less(counts: list[int]) -> Iterator[tuple[list[int], int]]:
    """The counts with one sample removed: each different result, and how many samples give it when removed."""
    for size, classes in Counter(counts).items():
        less = list(counts)
        less[less.index(size)] -= 1
        yield sorted(less, reverse=True), size * classes
