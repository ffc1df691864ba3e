"""The tables of results: as a page shows them, and unrounded for CSV files."""

from collections.abc import Mapping, Sequence
from typing import Any

from progrpo.evaluation.intervals import Estimate
from progrpo.evaluation.results import Evaluation
from progrpo.pages.collect import Group, MethodRuns, base_evaluations
from progrpo.pages.measures import common_problems, estimate, samples_per_problem, sampling_estimate
from progrpo.pages.summary import LAST_MEASURES, largest_k

TABLE_KS = (1, 8, 32)
UNKNOWN = "–"
Row = dict[str, Any]


def table(methods: Sequence[MethodRuns]) -> dict[str, Any]:
    """Methods by measures with intervals, the base model first: ``{measures, rows, mixed_sizes}``."""
    base = base_evaluations(methods)
    n = samples_per_problem([e for method in methods for e in method.finals]) or samples_per_problem(base)
    measures = [*(f"pass@{k}" for k in _ks(n)), *LAST_MEASURES]
    rows = [_row("Base model, before training", "base", base, measures)] if base else []
    rows += [_row(method.title, method.name, method.finals, measures) for method in methods if method.finals]
    measures = _drop_unknown(measures, rows)
    return {"measures": measures, "rows": rows, "mixed_sizes": len({row["size"] for row in rows}) > 1}


def per_run(methods: Sequence[MethodRuns], measures: Sequence[str]) -> list[Row]:
    """Each finished run's means. They show how far apart seeds lie, which no interval over problems shows."""
    runs = [(run, run.final) for method in methods for run in method.runs if run.final is not None]
    return [{"title": r.label, "folder": r.folder.path.name, "cells": _cells([final], measures)} for r, final in runs]


def benchmark_table(benchmarks: Mapping[str, Sequence[Group]]) -> dict[str, Any]:
    """Benchmarks by models with intervals: ``{measures, benchmarks: [{title, rows}]}``.

    Each benchmark has its own largest k. A dash stands for a measure that a benchmark does not have.
    """
    ns = {samples_per_problem([e for model in models for e in model.finals]) for models in benchmarks.values()}
    ks = sorted({k for n in ns for k in _ks(n) if k > 1})
    measures = ["avg", *(f"pass@{k}" for k in ks), *(f"maj@{n}" for n in sorted(ns)), *LAST_MEASURES]
    tables: list[Row] = [
        {"title": name, "rows": [_row(model.title, model.name, model.finals, measures) for model in models]}
        for name, models in benchmarks.items()
    ]
    return {"measures": _drop_unknown(measures, [row for t in tables for row in t["rows"]]), "benchmarks": tables}


def results_table(title: str, measures: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    """The results for a CSV file: every measure with its intervals, and over how many problems it is."""
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


def _drop_unknown(measures: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The measures that at least one row has; the cells of the others are taken out of all rows."""
    known = {cell["measure"] for row in rows for cell in row["cells"] if cell["mean"] != UNKNOWN}
    for row in rows:
        row["cells"] = [cell for cell in row["cells"] if cell["measure"] in known]
    return [measure for measure in measures if measure in known]


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
