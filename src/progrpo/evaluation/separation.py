"""Are more confident responses right more often? The area under the ROC curve of a score, clustered by problem."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from progrpo.evaluation.intervals import Estimate, bootstrap_counts, mean_over_problems

RESAMPLES = 1_000  # fewer than for a mean, because each resample goes through all responses


def auroc(scores: ArrayLike, right: ArrayLike) -> float:
    r"""The chance that a right response has a higher score than a wrong one; ties count half.

    .. math:: P(s_+ > s_-) + \tfrac12 P(s_+ = s_-)

    ``scores`` has one finite number per response, such as c(o|q), and ``right`` one bool, both of shape (responses,);
    else a ValueError is raised. The result is 0.5 if scores tell nothing, 1 if every right response scores above every
    wrong one, and NaN if all responses are right or all are wrong.

    Source: the Mann-Whitney U statistic over the number of pairs (Hanley and McNeil 1982).

    >>> auroc([0.9, 0.5, 0.4], [True, False, True])
    0.5
    """
    scores, right = _checked(scores, right)
    return float(_areas(scores, right, np.ones((1, len(scores))))[0])


def pooled_auroc(
    scores: ArrayLike, right: ArrayLike, problems: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate | None:
    """:func:`auroc` over all responses, with a 95 % bootstrap interval that draws each problem with all its responses.

    ``problems`` is the id of each response's problem, shape (responses,). The result is None if all responses are right
    or all are wrong. It also compares responses to easy problems with those to hard ones, which
    :func:`auroc_within_problems` does not.

    >>> pooled_auroc([0.9, 0.1, 0.8, 0.3], [True, False, True, False], ["a", "a", "b", "b"]).low
    1.0
    """
    scores, right = _checked(scores, right)
    if right.all() or not right.any():
        return None
    ids, place = np.unique(np.asarray(problems), return_inverse=True)
    counts = bootstrap_counts(len(ids), seed, resamples)
    # A few resamples at a time, because a row holds a weight for every response.
    rows = max(1, 4_000_000 // len(scores))
    parts = [_areas(scores, right, counts[i : i + rows][:, place]) for i in range(0, resamples, rows)]
    low, high = np.nanpercentile(np.concatenate(parts), [2.5, 97.5])
    return Estimate(auroc(scores, right), float(low), float(high))


def auroc_within_problems(
    scores: ArrayLike, right: ArrayLike, problems: ArrayLike, runs: ArrayLike | None = None
) -> tuple[Estimate, int] | None:
    """The mean over problems of the :func:`auroc` among a problem's responses, and the number of these problems.

    It compares a right and a wrong response to the same prompt only, so that the difficulty of problems does not
    matter. This is what c(o|q) tells a method that weighs the responses of one group. Problems whose responses are all
    right or all wrong have no such pair and are left out.

    ``runs`` is the run of each response, shape (responses,): only responses of one run are compared, and the runs of a
    problem are averaged. By default there is one run. The result is None if no problem has both right and wrong
    responses.

    >>> auroc_within_problems([0.9, 0.1, 0.2, 0.3], [True, False, True, False], ["a", "a", "b", "b"])[0].mean
    0.5
    """
    scores, right = _checked(scores, right)
    if not len(scores):
        return None
    _, problem = np.unique(np.asarray(problems), return_inverse=True)
    _, run = np.unique(np.zeros(len(scores)) if runs is None else np.asarray(runs), return_inverse=True)
    units = problem * (run.max() + 1) + run
    order = np.argsort(units, kind="stable")
    areas: dict[int, list[float]] = {}
    for rows in np.split(order, np.flatnonzero(np.diff(units[order])) + 1):
        if 0 < right[rows].sum() < len(rows):
            areas.setdefault(int(problem[rows[0]]), []).append(auroc(scores[rows], right[rows]))
    return (mean_over_problems([np.mean(by_run) for by_run in areas.values()]), len(areas)) if areas else None


def _checked(scores: ArrayLike, right: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores, right = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    if scores.shape != right.shape or scores.ndim != 1:
        raise ValueError(
            f"scores and right must be vectors of the same length, got shapes {scores.shape} and {right.shape}."
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite; leave out the responses whose score is not known.")
    return scores, right


def _areas(
    scores: NDArray[np.float64], right: NDArray[np.bool_], weights_RS: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The area for each row of weights, which say how often each response counts."""
    if not len(scores):
        return np.full(len(weights_RS), np.nan)
    order = np.argsort(scores, kind="stable")
    scores, right, weights_RS = scores[order], right[order], weights_RS[:, order]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])  # where each group of equal scores begins
    good = np.add.reduceat(weights_RS * right, starts, axis=1)
    bad = np.add.reduceat(weights_RS * ~right, starts, axis=1)
    below = np.cumsum(bad, axis=1) - bad
    with np.errstate(invalid="ignore"):
        return (good * (below + bad / 2)).sum(axis=1) / (good.sum(axis=1) * bad.sum(axis=1))
