"""Measures of several evaluations together, over the problems that they share, and the tables of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from progrpo.evaluation import results
from progrpo.evaluation.intervals import Estimate, mean_over_problems
from progrpo.evaluation.results import Evaluation
from progrpo.pages.collect import Group, base_evaluations

MEANS_OVER_SAMPLES = ("avg", "pass@", "maj@", "distinct@")
LARGEST_K = 32
TABLE_KS = (1, 8, 32)
LAST_MEASURES = ("distinct", "coverage", "entropy")
UNKNOWN = "–"
Row = dict[str, Any]


def finals_of(groups: Sequence[Group]) -> list[Evaluation]:
    """The final evaluations of all the groups."""
    return [evaluation for group in groups for evaluation in group.finals]


def common_problems(evaluations: Sequence[Evaluation]) -> list[str]:
    """The ids of the problems that all the evaluations judged, in the order of the first evaluation."""
    shared = set.intersection(*({p.problem_id for p in e.judged} for e in evaluations)) if evaluations else set()
    return [p.problem_id for p in evaluations[0].judged if p.problem_id in shared] if shared else []


def samples_per_problem(evaluations: Sequence[Evaluation]) -> int:
    """n of the evaluation with the fewest, 0 if nothing was judged. Single problems may have fewer judged samples."""
    return min((e.samples for e in evaluations if e.judged), default=0)


def largest_k(n: int) -> int:
    """The k to report for n samples: at most 32, and at most n / 2, because k = n is only "any correct"."""
    return max(1, min(LARGEST_K, n // 2))


def largest_k_of(groups: Sequence[Group]) -> int:
    """:func:`largest_k` for the final evaluations of all the groups."""
    return largest_k(samples_per_problem(finals_of(groups)))


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
    rows = [pd.Series(e.values(measure), [p.problem_id for p in e.judged]) for e in evaluations]
    values = pd.DataFrame(rows)[problems].dropna(axis=1).to_numpy()
    return values if values.size else None


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


def method_table(groups: Sequence[Group]) -> dict[str, Any]:
    """Methods by measures with intervals, the base model first: ``{measures, rows, mixed_sizes}``."""
    base = base_evaluations(groups)
    n = samples_per_problem(finals_of(groups)) or samples_per_problem(base)
    shown = [("Base model, before training", "base", base), *((g.title, g.name, g.finals) for g in groups)]
    measures = _known([*(f"pass@{k}" for k in _ks(n)), *LAST_MEASURES], [evaluations for _, _, evaluations in shown])
    rows = [_row(title, name, evaluations, measures) for title, name, evaluations in shown if evaluations]
    return {"measures": measures, "rows": rows, "mixed_sizes": len({row["size"] for row in rows}) > 1}


def run_rows(groups: Sequence[Group], measures: Sequence[str]) -> list[Row]:
    """Each finished run's means. They show how far apart seeds lie, which no interval over problems shows."""
    runs = [(run, run.final) for group in groups for run in group.runs if run.final]
    return [{"title": r.label, "folder": r.folder.path.name, "cells": _cells([final], measures)} for r, final in runs]


def benchmark_table(benchmarks: Mapping[str, Sequence[Group]]) -> dict[str, Any]:
    """Benchmarks by models with intervals: ``{measures, benchmarks: [{title, rows}]}``. Each has its own largest k."""
    ns = sorted({samples_per_problem(finals_of(models)) for models in benchmarks.values()})
    ks = sorted({k for n in ns for k in _ks(n) if k > 1})
    measures = ["avg", *(f"pass@{k}" for k in ks), *(f"maj@{n}" for n in ns), *LAST_MEASURES]
    measures = _known(measures, [model.finals for models in benchmarks.values() for model in models])
    tables = [
        {"title": name, "rows": [_row(model.title, model.name, model.finals, measures) for model in models]}
        for name, models in benchmarks.items()
    ]
    return {"measures": measures, "benchmarks": tables}


def csv_table(title: str, measures: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    """The rows for a CSV file: every measure with its intervals, and over how many problems it is."""
    endings = ("", " low", " high", " low, sampling only", " high, sampling only", " problems")
    starts = ["title", *(key for key in ("folder", "seeds", "size") if rows and key in rows[0])]
    header = [*starts, *(measure + ending for measure in measures for ending in endings)]
    lines = [[*(row[key] for key in starts), *(v for cell in row["cells"] for v in cell["exact"])] for row in rows]
    return {"title": title, "header": header, "rows": lines}


def numbers(value: Estimate | None) -> list[float | None]:
    """Mean, low and high; None for each if the estimate is not known."""
    return [None, None, None] if value is None else [value.mean, value.low, value.high]


def _ks(n: int) -> list[int]:
    return sorted({k for k in (*TABLE_KS, largest_k(n)) if k <= n})


def _known(measures: Sequence[str], rows: Sequence[Sequence[Evaluation]]) -> list[str]:
    """The measures that the evaluations of at least one row know."""
    return [measure for measure in measures if any(known_values(row, measure) is not None for row in rows)]


def _row(title: str, name: str, evaluations: list[Evaluation], measures: Sequence[str]) -> Row:
    size = f"{len(common_problems(evaluations))} problems × {samples_per_problem(evaluations)} samples"
    seeds = f"{len(evaluations)} seed{'s' if len(evaluations) > 1 else ''}"
    return {"title": title, "name": name, "size": size, "seeds": seeds, "cells": _cells(evaluations, measures)}


def _cells(evaluations: list[Evaluation], measures: Sequence[str]) -> list[dict[str, Any]]:
    """Each measure as it is shown; ``exact`` is for files: the mean, its interval over problems, its interval over
    sampling only, and the number of problems."""
    cells, problems = [], len(common_problems(evaluations))
    for measure in measures:
        digits = 2 if measure.startswith("distinct") else 3
        value, sampling = estimate(evaluations, measure), sampling_estimate(evaluations, measure)
        over = value.problems if value else None
        fewer = over is not None and "@" in measure and over < problems
        cells.append(
            {
                "measure": measure,
                "mean": f"{value.mean:.{digits}f}" if value else UNKNOWN,
                "interval": f"{value.low:.{digits}f}–{value.high:.{digits}f}" if value else "",
                "sampling": f"{max(sampling.low, 0.0):.{digits}f}–{sampling.high:.{digits}f}" if sampling else "",
                "over": f"{over} of {problems} problems" if fewer else "",
                "exact": [*numbers(value), *numbers(sampling)[1:], over],
            }
        )
    return cells
