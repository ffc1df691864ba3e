"""Intervals: problems are the units, the samples of a problem stay together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean with a 95 % interval (percentile bootstrap over problems)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_over_problems(values: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The mean over problems and its 95 % bootstrap interval, clustered by problem.

    Args:
        values: one number per problem, shape (problems,), or one per run and problem, shape (runs, problems): a
            problem is then drawn with all its runs.
        seed: of the resampling.
        resamples: how many bootstrap samples.

    Raises:
        ValueError: no problem.

    The interval is of the mean over problems like these: with few problems it is wide however many samples each has
    (arXiv 2411.00640).

    >>> mean_over_problems([1.0, 1.0, 1.0]).low
    1.0
    """
    per_problem = np.atleast_2d(np.asarray(values, dtype=np.float64)).mean(axis=0)
    if per_problem.size == 0:
        raise ValueError("values must hold at least one problem, got none.")
    low, high = np.percentile(_bootstrap_means(per_problem, seed, resamples), [2.5, 97.5])
    return Estimate(float(per_problem.mean()), float(low), float(high))


def paired_difference(a: ArrayLike, b: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Mean of a - b with its 95 % bootstrap interval, paired by problem and by run.

    Args:
        a, b: one number per problem, shape (problems,), or per run and problem, shape (runs, problems), in the same
            order of runs and problems. The problems are drawn anew, each with all its runs: the interval is of these
            runs on problems like these. How far apart runs lie is to be shown beside it (``per_run`` of the report).

    Raises:
        ValueError: shapes that differ.

    >>> paired_difference([1.0, 0.5], [0.5, 0.0]).mean
    0.5
    """
    a, b = np.atleast_2d(np.asarray(a, dtype=np.float64)), np.atleast_2d(np.asarray(b, dtype=np.float64))
    if a.shape != b.shape:
        raise ValueError(f"a and b must hold the same runs and problems, got shapes {a.shape} and {b.shape}.")
    return mean_over_problems(a - b, seed=seed, resamples=resamples)


def _bootstrap_means(values: NDArray[np.float64], seed: int, resamples: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=resamples)
    return drawn @ values / len(values)
