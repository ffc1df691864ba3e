"""Does confidence go with being right? The area under the ROC curve of a score, clustered by problem."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from progrpo.evaluation.intervals import Estimate, mean_over_problems

RESAMPLES = 1_000
"""Fewer than of a mean: each resample goes through all responses."""


def auroc(scores: ArrayLike, right: ArrayLike) -> float:
    r"""The chance that a right response has a higher score than a wrong one, ties counting half.

    .. math:: P(s_+ > s_-) + \tfrac12 P(s_+ = s_-)

    Args:
        scores: one a response, shape (responses,): here c(o|q). Finite.
        right: bool, shape (responses,).

    Returns:
        0.5 where scores tell nothing, 1 where every right response scores above every wrong one; NaN where all
        responses are right or all are wrong.

    Raises:
        ValueError: shapes that differ, or a score that is not finite.

    Source: the Mann-Whitney U statistic over the number of pairs (Hanley and McNeil 1982).

    >>> auroc([0.9, 0.5, 0.4], [True, False, True])
    0.5
    """
    scores, right = _checked(scores, right)
    return float(_areas(scores, right, np.ones((1, len(scores))))[0])


def pooled_auroc(
    scores: ArrayLike, right: ArrayLike, problems: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate | None:
    """:func:`auroc` over all responses, with a 95 % interval: problems are drawn anew, each with all its responses.

    It holds responses to an easy problem against those to a hard one too: see :func:`auroc_within_problems`.

    Args:
        scores, right: as in :func:`auroc`.
        problems: the id of each response's problem, shape (responses,).

    Returns:
        None where all responses are right or all are wrong.

    >>> pooled_auroc([0.9, 0.1, 0.8, 0.3], [True, False, True, False], ["a", "a", "b", "b"]).low
    1.0
    """
    scores, right = _checked(scores, right)
    if right.all() or not right.any():
        return None
    _, place = np.unique(np.asarray(problems), return_inverse=True)
    count = int(place.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    # A few resamples at a time: a row holds a weight for every response.
    rows = max(1, 4_000_000 // len(scores))
    parts = [_areas(scores, right, drawn[i : i + rows][:, place]) for i in range(0, resamples, rows)]
    low, high = np.nanpercentile(np.concatenate(parts), [2.5, 97.5])
    return Estimate(auroc(scores, right), float(low), float(high))


def auroc_within_problems(
    scores: ArrayLike, right: ArrayLike, problems: ArrayLike, runs: ArrayLike | None = None
) -> tuple[Estimate, int] | None:
    """The mean over problems of the :func:`auroc` among each one's responses, and how many problems it rests on.

    Only pairs of a right and a wrong response to the same prompt are compared, so that no problem's difficulty
    enters: it is what c(o|q) tells a method that weighs the responses of one group. Problems whose responses are all
    right or all wrong have no such pair and take no part.

    Args:
        scores, right, problems: as in :func:`pooled_auroc`.
        runs: which run each response is of, shape (responses,): only responses of one run are compared, and a
            problem's runs are averaged. One run by default.

    Returns:
        None where no problem has both.

    >>> auroc_within_problems([0.9, 0.1, 0.2, 0.3], [True, False, True, False], ["a", "a", "b", "b"])[0].mean
    0.5
    """
    scores, right = _checked(scores, right)
    _, problem = np.unique(np.asarray(problems), return_inverse=True)
    _, run = np.unique(np.zeros(len(scores)) if runs is None else np.asarray(runs), return_inverse=True)
    if not len(scores):
        return None
    units = problem * (run.max() + 1) + run
    order = np.argsort(units, kind="stable")
    areas: dict[int, list[float]] = {}
    for rows in np.split(order, np.flatnonzero(np.diff(units[order])) + 1):
        if 0 < right[rows].sum() < len(rows):
            areas.setdefault(int(problem[rows[0]]), []).append(auroc(scores[rows], right[rows]))
    return (mean_over_problems([np.mean(of_problem) for of_problem in areas.values()]), len(areas)) if areas else None


def _checked(scores: ArrayLike, right: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores, right = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    if scores.shape != right.shape or scores.ndim != 1:
        raise ValueError(f"scores and right must be flat and as long, got shapes {scores.shape} and {right.shape}.")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite; leave out the responses whose score is not known.")
    return scores, right


def _areas(scores: NDArray[np.float64], right: NDArray[np.bool_], weights_RS: NDArray[Any]) -> NDArray[np.float64]:
    """The area for each row of weights: how often each response counts."""
    order = np.argsort(scores, kind="stable")
    ordered, right = scores[order], right[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, dtype=np.intp)
    if not len(starts):
        return np.full(len(weights_RS), np.nan)
    weights_RS = weights_RS[:, order]
    good = np.add.reduceat(weights_RS * right, starts, axis=1)
    bad = np.add.reduceat(weights_RS * ~right, starts, axis=1)
    below = np.cumsum(bad, axis=1) - bad
    with np.errstate(invalid="ignore"):
        return (good * (below + bad / 2)).sum(axis=1) / (good.sum(axis=1) * bad.sum(axis=1))
