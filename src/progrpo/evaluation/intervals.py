"""Intervals and tests. The unit is the problem: all samples of a problem stay together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import comb
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
Z = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True)
class Estimate:
    """A mean over a number of problems with a 95 % interval, over other problems or over sampling only.

    ``over="problems"``: the interval shows how the mean varies over other problems like these, each with its samples
    (:func:`mean_over_problems`). ``over="sampling"``: it shows how the mean varies if these problems are sampled again
    (:func:`mean_over_sampling`). This interval is narrower and says nothing about other problems.
    """

    mean: float
    low: float
    high: float
    over: Literal["problems", "sampling"] = "problems"
    problems: int | None = None

    def of_share(self) -> "Estimate":
        """The estimate of a share, with its interval cut to [0, 1], because a normal interval may reach beyond."""
        return replace(self, low=max(self.low, 0.0), high=min(self.high, 1.0))

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_over_problems(values: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The mean over problems and its 95 % bootstrap interval, clustered by problem.

    With few problems the interval is wide, however many samples each of them has (arXiv 2411.00640). ``values`` has one
    number per problem, shape (problems,); or one per run and problem, shape (runs, problems): then each problem is
    drawn with all its runs. Raises ValueError if there is no problem.

    >>> mean_over_problems([1.0, 1.0, 1.0]).low
    1.0
    """
    per_problem = np.atleast_2d(np.asarray(values, dtype=np.float64)).mean(axis=0)
    problems = len(per_problem)
    if not problems:
        raise ValueError("values must hold at least one problem, got none.")
    low, high = np.percentile(bootstrap_counts(problems, seed, resamples) @ per_problem / problems, [2.5, 97.5])
    return Estimate(float(per_problem.mean()), float(low), float(high), problems=problems)


@lru_cache(maxsize=2)
def bootstrap_counts(problems: int, seed: int, resamples: int) -> NDArray[np.float64]:
    """How often each resample draws each problem, shape (resamples, problems); the same for every measure."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples).astype(np.float64)


def paired_difference(a: ArrayLike, b: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The mean of a - b with its 95 % bootstrap interval, paired by problem and by run.

    The interval is for these runs on other problems like these. It does not show how far apart runs are. ``a`` and
    ``b`` are as ``values`` of :func:`mean_over_problems`, with the same runs and problems in the same order; ValueError
    if their shapes differ.

    >>> paired_difference([1.0, 0.5], [0.5, 0.0]).mean
    0.5
    """
    a, b = np.atleast_2d(np.asarray(a, dtype=np.float64)), np.atleast_2d(np.asarray(b, dtype=np.float64))
    if a.shape != b.shape:
        raise ValueError(f"a and b must hold the same runs and problems, got shapes {a.shape} and {b.shape}.")
    return mean_over_problems(a - b, seed=seed, resamples=resamples)


def mean_over_sampling(
    values: ArrayLike, without_one: Sequence[tuple[ArrayLike, ArrayLike]], problem_samples: ArrayLike
) -> Estimate:
    r"""The mean over problems and its 95 % interval over sampling only: the same problems with new responses.

    .. math:: \hat\sigma^2 = \frac{1}{P^2} \sum_i \frac{n_i - 1}{n_i} \sum_j (\theta_{i,-j} - \bar\theta_i)^2

    This is the jackknife over a problem's samples: theta_{i,-j} is the measure of problem i without its sample j. It is
    consistent for pass@k, maj@k and distinct@k of k < n, which are U-statistics; for pass@1 it is p (1 - p) / (n - 1).
    The interval is the normal one, 1.96 standard errors to either side.

    ``values`` and ``problem_samples`` are the measure and n of each problem, shape (P,); ``without_one`` are the
    different values of each problem's measure without one sample, and the number of samples that each of these values
    is for. Raises ValueError if these numbers do not add up to n, or there is no problem.

    Source: Efron and Stein 1981; intervals for evaluations: arXiv 2411.00640.

    >>> estimate = mean_over_sampling([0.5], [([1 / 3, 2 / 3], [2, 2])], [4])  # two of four samples are right
    >>> round(estimate.high - estimate.mean, 4) == round(1.96 * (0.25 / 3) ** 0.5, 4)
    True
    """
    values, n = np.asarray(values, dtype=np.float64), np.asarray(problem_samples, dtype=np.float64)
    if values.size == 0:
        raise ValueError("values must hold at least one problem, got none.")
    variance = 0.0
    for (thetas, counts), samples in zip(without_one, n, strict=True):
        theta, weight = np.asarray(thetas, dtype=np.float64), np.asarray(counts, dtype=np.float64)
        if weight.sum() != samples:
            raise ValueError(f"the counts must add up to {samples:g} samples, got {weight.sum():g}.")
        spread = weight @ (theta - weight @ theta / samples) ** 2
        variance += (samples - 1) / samples * spread
    mean, half = float(values.mean()), float(Z * variance**0.5 / len(values))
    return Estimate(mean, mean - half, mean + half, "sampling", len(values))


@dataclass(frozen=True)
class SignTest:
    """On how many problems a is better or worse than b, and the chance of so uneven a split if neither were better."""

    wins: int
    losses: int
    ties: int
    p_value: float


def sign_test(a: ArrayLike, b: ArrayLike) -> SignTest:
    r"""Exact two-sided sign test on paired problems, without the ties.

    .. math:: p = \min\Big(1, 2 \cdot 2^{-m} \sum_{i=0}^{\min(w, l)} \binom{m}{i}\Big), \quad m = w + l

    ``a`` and ``b`` hold one number per problem, in the same order; raises ValueError if their shapes differ.

    >>> sign_test([1.0, 1.0, 1.0, 0.5], [0.5, 0.0, 0.5, 0.5])
    SignTest(wins=3, losses=0, ties=1, p_value=0.25)
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a and b must hold the same problems, got shapes {a.shape} and {b.shape}.")
    tied = np.isclose(a, b, rtol=0.0, atol=1e-12)  # a difference by rounding alone is a tie
    wins, losses = int((~tied & (a > b)).sum()), int((~tied & (a < b)).sum())
    m = wins + losses
    tail = sum(comb(m, i) for i in range(min(wins, losses) + 1))
    return SignTest(wins, losses, int(tied.sum()), min(1.0, 2 * tail / 2**m))
