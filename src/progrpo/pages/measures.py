"""Measures of several evaluations together, over the problems that they share."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from progrpo.evaluation import results
from progrpo.evaluation.intervals import Estimate, mean_over_problems
from progrpo.evaluation.results import Evaluation

MEANS_OVER_SAMPLES = ("avg", "pass@", "maj@", "distinct@")


def common_problems(evaluations: Sequence[Evaluation]) -> list[str]:
    """The ids of the problems that all the evaluations judged, in the order of the first evaluation."""
    shared = set.intersection(*({p.problem_id for p in e.judged} for e in evaluations)) if evaluations else set()
    return [p.problem_id for p in evaluations[0].judged if p.problem_id in shared] if shared else []


def samples_per_problem(evaluations: Sequence[Evaluation]) -> int:
    """n of the evaluation with the fewest samples per problem, 0 if nothing was judged.

    Single problems may have fewer judged samples than that.
    """
    return min((e.samples for e in evaluations if e.judged), default=0)


def fewer_problems(evaluations: Sequence[Evaluation]) -> str:
    """How many of the common problems a measure at k is over, where that depends on k; empty where it does not."""
    samples, n = [{p.problem_id: p.samples for p in e.judged} for e in evaluations], samples_per_problem(evaluations)
    return results.fewer_problems([min(n, *(s[problem] for s in samples)) for problem in common_problems(evaluations)])


def known_values(evaluations: Sequence[Evaluation], measure: str) -> NDArray[np.float64] | None:
    """A measure by evaluation and problem, over the common problems for which every evaluation knows it; None if there
    is no such problem: k is above n, or no problem's solutions were counted."""
    problems = common_problems(evaluations)
    _, at, k = measure.partition("@")
    if not problems or (at and int(k) > samples_per_problem(evaluations)):
        return None
    rows = []
    for evaluation in evaluations:
        by_problem = dict(zip((p.problem_id for p in evaluation.judged), evaluation.values(measure), strict=True))
        rows.append([by_problem[problem] for problem in problems])
    values = np.asarray(rows, dtype=np.float64)
    known = np.isfinite(values).all(axis=0)
    return values[:, known] if known.any() else None


def estimate(evaluations: Sequence[Evaluation], measure: str) -> Estimate | None:
    """A measure's mean over the evaluations and :func:`known_values`' problems, with its interval over problems."""
    values = known_values(evaluations, measure)
    return None if values is None else mean_over_problems(values)


def sampling_estimate(evaluations: Sequence[Evaluation], measure: str) -> Estimate | None:
    """The same mean with its interval over sampling only: these problems and runs, with new responses.

    None if that is not known: a problem has no more than k samples, or the measure is not a mean over samples.
    """
    name, at, k = measure.partition("@")
    least, n = int(k or 1), samples_per_problem(evaluations)
    if name + at not in MEANS_OVER_SAMPLES or n < 2 or (at and least >= n):
        return None
    shared = set.intersection(*({p.problem_id for p in e.judged if p.samples >= least} for e in evaluations))
    if not shared:
        return None
    same_problems = [Evaluation({}, [p for p in e.judged if p.problem_id in shared]) for e in evaluations]
    by_run = [evaluation.sampling_estimate(measure) for evaluation in same_problems]
    if not all(math.isfinite(value.mean) and math.isfinite(value.low) for value in by_run):
        return None
    # Runs are sampled independently, so the variance of their mean is the sum of variances over the squared number.
    mean = sum(value.mean for value in by_run) / len(by_run)
    half = sum(((value.high - value.low) / 2) ** 2 for value in by_run) ** 0.5 / len(by_run)
    value = Estimate(mean, mean - half, mean + half, "sampling", len(shared))
    return value if name == "distinct" else value.of_share()
