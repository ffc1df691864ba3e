"""What the numbers support: the sentences and the tables at the top of the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from progrpo.evaluation.evaluate import Evaluation
from progrpo.evaluation.intervals import Estimate, SignTest, paired_difference, sign_test
from progrpo.pages.collect import (
    Group,
    MethodRuns,
    base_evaluations,
    common_problems,
    estimate,
    known_values,
    samples_per_problem,
    sampling_estimate,
    values_of,
)

BASELINE = "grpo"
LARGEST_K = 32
TABLE_KS = (1, 8, 32)
NAMES = {"distinct": "distinct correct solutions", "coverage": "coverage", "entropy": "policy entropy"}


@dataclass(frozen=True)
class Difference:
    """A method against the baseline in one measure."""

    measure: str
    method: Group
    baseline: Group
    mean: float
    """The method's, over the pairs."""
    baseline_mean: float
    difference: Estimate
    per_seed: list[float]
    signs: SignTest
    """On how many problems the method is ahead, seeds averaged."""
    shared: int
    """How many problems the runs share; the difference may be over fewer of them."""

    @property
    def over(self) -> str:
        """``, on 199 of 200 problems`` where a measure at k is not over all that are shared."""
        fewer = "@" in self.measure and (self.difference.problems or 0) < self.shared
        return f", on {self.difference.problems} of {self.shared} problems" if fewer else ""

    @property
    def is_clear(self) -> bool:
        """Whether the 95 % interval leaves out 0."""
        return self.difference.low > 0 or self.difference.high < 0

    @property
    def seeds_agree(self) -> bool:
        """Whether no two seeds point in opposite directions."""
        return not (self.per_seed and min(self.per_seed) < 0 < max(self.per_seed))


def signed(value: float, digits: int = 3) -> str:
    """``+0.043``, ``−0.012``: with a real minus sign.

    >>> signed(0.0434), signed(-0.01)
    ('+0.043', '−0.010')
    """
    return f"{value:+.{digits}f}".replace("-", "−")


def largest_k(n: int) -> int:
    """The k to report of n samples: at most 32 and at most n / 2, for at k = n the estimate is only "any correct".

    >>> largest_k(64), largest_k(16), largest_k(2)
    (32, 8, 1)
    """
    return max(1, min(LARGEST_K, n // 2))


def choose_baseline(groups: Sequence[Group]) -> Group | None:
    """GRPO if it is there, else the first method or model with a final evaluation."""
    finished = [group for group in groups if group.finals]
    return next((m for m in finished if m.name == BASELINE), finished[0] if finished else None)


def compare(method: Group, baseline: Group, measure: str) -> Difference | None:
    """The paired difference of two methods in a measure, over the problems where all runs know it, and seed by seed: a
    measure at k over those with k judged samples in each.

    With no seed in common, each method's seeds are averaged first and only problems are paired.
    """
    a_by_seed, b_by_seed = method.finals_by_seed, baseline.finals_by_seed
    seeds = sorted(a_by_seed.keys() & b_by_seed.keys())
    a = [a_by_seed[seed] for seed in seeds] or method.finals
    b = [b_by_seed[seed] for seed in seeds] or baseline.finals
    values = known_values([*a, *b], measure)
    if not a or not b or values is None:
        return None
    values_a, values_b = values[: len(a)], values[len(a) :]
    if not seeds:
        values_a, values_b = values_a.mean(axis=0, keepdims=True), values_b.mean(axis=0, keepdims=True)
    return Difference(
        measure,
        method,
        baseline,
        float(values_a.mean()),
        float(values_b.mean()),
        paired_difference(values_a, values_b),
        [float(d) for d in (values_a - values_b).mean(axis=1)] if seeds else [],
        sign_test(values_a.mean(axis=0), values_b.mean(axis=0)),
        len(common_problems([*a, *b])),
    )


def differences(methods: Sequence[Group]) -> list[Difference]:
    """Every other method against the baseline: pass@1, pass@8, pass@k, distinct solutions, coverage, entropy."""
    baseline = choose_baseline(methods)
    if baseline is None:
        return []
    k = largest_k(samples_per_problem([e for m in methods for e in m.finals]))
    ks = sorted({1, k} | ({8} if k > 8 else set()))
    found = []
    for method in methods:
        if method is not baseline and method.finals:
            measures = [*(f"pass@{k}" for k in ks), "distinct", "coverage", "entropy"]
            found += [compare(method, baseline, measure) for measure in measures]
    return [difference for difference in found if difference is not None]


def sentences(methods: Sequence[MethodRuns]) -> list[str]:
    """One or two sentences: what is clear, and what is not."""
    if compared := sentences_compared(methods):
        return compared
    finished = [method for method in methods if method.finals]
    if finished:
        return [s for method in finished for s in (*_alone(method), *_since_base(method))]
    return [s for method in methods for s in _unfinished(method)]


def sentences_compared(groups: Sequence[Group]) -> list[str]:
    """Each method or model against the baseline; nothing if there is only one."""
    found = differences(groups)
    k = largest_k(samples_per_problem([e for group in groups for e in group.finals]))
    told = ("pass@1", f"pass@{k}", "distinct")
    others = dict.fromkeys(d.method.name for d in found)
    return [s for name in others for s in _compared([d for d in found if d.method.name == name and d.measure in told])]


def text(methods: Sequence[MethodRuns]) -> str:
    """The summary for a terminal: the sentences, and each difference with its interval and its seeds."""
    lines = sentences(methods)
    for d in differences(methods):
        seeds = f"; seed by seed {', '.join(signed(value) for value in d.per_seed)}" if d.per_seed else ""
        ratio = f" ({d.mean / d.baseline_mean:.2f} times)" if d.baseline_mean else ""
        lines.append(
            f"{d.measure:>9}  {d.method.title} {d.mean:.3f}, {d.baseline.title} {d.baseline_mean:.3f}{ratio}, "
            f"difference {_change(d.difference)}{d.over}{seeds}"
        )
    return "\n".join(lines)


def _compared(found: list[Difference]) -> list[str]:
    method, baseline = found[0].method.title, found[0].baseline.title
    clear = [_clear_phrase(d) for d in found if d.is_clear]
    unclear = [f"{NAMES.get(d.measure, d.measure)} ({_interval(d)})" for d in found if not d.is_clear]
    told = []
    if clear:
        told.append(f"Against {baseline}, {method} {_join(clear)}.")
    if unclear:
        between = "" if clear else f" between {method} and {baseline}"
        told.append(f"There is no clear difference{between} in {_join(unclear, 'or')}.")
    told += [_problem_by_problem(d) for d in found if d.measure == "pass@1"]
    # An interval over problems can leave out 0 while a second seed points the other way.
    split = [NAMES.get(d.measure, d.measure) for d in found if d.is_clear and not d.seeds_agree]
    if split:
        told.append(f"Seeds disagree on the direction in {_join(split)}: more seeds are needed.")
    return told


def _problem_by_problem(d: Difference) -> str:
    signs = d.signs
    if not signs.wins + signs.losses:
        return f"On no problem do they differ in {d.measure}."
    p = "p < 0.001" if signs.p_value < 0.001 else f"p = {signs.p_value:.3f}"
    return (
        f"Problem by problem, {d.method.title} is ahead in {d.measure} on {signs.wins}, behind on {signs.losses} and "
        f"even on {signs.ties} (exact sign test: {p})."
    )


def _clear_phrase(d: Difference) -> str:
    if d.measure == "distinct" and d.baseline_mean > 0:
        ratio = f"{d.mean / d.baseline_mean:.2f} times as many distinct correct solutions"
        return f"finds {ratio} ({d.mean:.2f} against {d.baseline_mean:.2f} a problem; {_interval(d)})"
    if d.measure == "distinct":
        return f"finds distinct correct solutions where {d.baseline.title} finds none ({_interval(d)})"
    return f"has a {'higher' if d.difference.mean > 0 else 'lower'} {d.measure} ({_interval(d)})"


def _interval(d: Difference) -> str:
    return _change(d.difference, 2 if d.measure == "distinct" else 3) + d.over


def _change(value: Estimate, digits: int = 3) -> str:
    """``+0.043 [+0.010, +0.076]``."""
    return f"{signed(value.mean, digits)} [{signed(value.low, digits)}, {signed(value.high, digits)}]"


def _join(phrases: list[str], last: str = "and") -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} {last} {phrases[-1]}"


def alone(group: Group, of: str = "", problems_name: str = "problems") -> list[str]:
    """What one method or model solves; ``of`` says how many runs it is."""
    n = samples_per_problem(group.finals)
    problems = len(common_problems(group.finals))
    first, most = estimate(group.finals, "pass@1"), estimate(group.finals, f"pass@{largest_k(n)}")
    if first is None or most is None:
        return [f"{group.title} has a final evaluation, but no problem has a judged sample: pass@k can't be estimated."]
    told = f"{group.title}{of} solves {first.mean:.1%} of {problems} {problems_name} with one sample"
    if largest_k(n) > 1:
        fewer = f" (of the {most.problems} with so many judged samples)" if (most.problems or 0) < problems else ""
        told += f" and {most.mean:.1%} with the best of {largest_k(n)}{fewer}"
    return [told.replace("%", " %") + "."]


def _alone(method: MethodRuns) -> list[str]:
    runs = len(method.finals)
    return alone(method, " (one run)" if runs == 1 else f" ({runs} runs)", "held-out problems")


def _since_base(method: MethodRuns) -> list[str]:
    """pass@1 after against before, on the problems of the first evaluation: it is unbiased whatever n is."""
    pairs = [(run.final, run.evaluations[0]) for run in method.finished if run.final and 0 in run.evaluations]
    both = [evaluation for pair in pairs for evaluation in pair]
    problems = common_problems(both)
    if not problems or samples_per_problem(both) < 1:
        return []
    after = values_of([a for a, _ in pairs], "pass@1", problems)
    before = values_of([b for _, b in pairs], "pass@1", problems)
    change = paired_difference(after, before)
    start = f"On the {len(problems)} problems that were also evaluated before training, pass@1"
    means = f"{before.mean():.3f} before, {after.mean():.3f} after; {_change(change)}"
    if change.low <= 0 <= change.high:
        return [f"{start} shows no clear change ({means})."]
    return [f"{start} {'rose' if change.mean > 0 else 'fell'} ({means})."]


def _unfinished(method: MethodRuns) -> list[str]:
    run = max(method.runs, key=lambda run: run.last_step)
    told = [f"{method.title} {run.what_is_left}"]
    evaluated = [step for step in run.evaluations if step > 0]
    if evaluated and (value := estimate([run.evaluations[max(evaluated)]], "pass@1")):
        told.append(f"At step {max(evaluated)} its pass@1 was {value.mean:.3f} ({value.low:.3f} to {value.high:.3f}).")
    return told


def benchmark_table(benchmarks: Mapping[str, Sequence[Group]]) -> dict[str, Any]:
    """Benchmarks by models with intervals: ``{measures, benchmarks: [{title, rows}]}``.

    Each benchmark's largest k is its own: a measure that a benchmark does not have is a dash.
    """
    wanted: dict[str, None] = dict.fromkeys(["avg"])
    for models in benchmarks.values():
        n = samples_per_problem([e for model in models for e in model.finals])
        ks = sorted({k for k in TABLE_KS if 1 < k <= n} | ({largest_k(n)} if largest_k(n) > 1 else set()))
        wanted |= dict.fromkeys([*(f"pass@{k}" for k in ks), f"maj@{n}"])
    order = ("avg", "pass", "maj")
    measures = sorted(wanted, key=lambda m: (order.index(m.partition("@")[0]), int(m.partition("@")[2] or 0)))
    measures += ["distinct", "coverage", "entropy"]
    rows = {
        name: [_row(model.title, model.name, model.finals, measures) for model in models]
        for name, models in benchmarks.items()
    }
    measures = _drop_unknown(measures, [row for of_benchmark in rows.values() for row in of_benchmark])
    return {"measures": measures, "benchmarks": [{"title": name, "rows": of} for name, of in rows.items()]}


def _drop_unknown(measures: list[str], rows: list[dict[str, Any]]) -> list[str]:
    """The measures that a row has; the others' cells are taken out."""
    kept = [m for i, m in enumerate(measures) if any(row["cells"][i]["mean"] != "–" for row in rows)]
    for row in rows:
        row["cells"] = [cell for cell in row["cells"] if cell["measure"] in kept]
    return kept


def table(methods: Sequence[MethodRuns]) -> dict[str, Any]:
    """Methods by measures with intervals, the base model first: ``{measures, rows, mixed_sizes}``."""
    finished = [method for method in methods if method.finals]
    n = samples_per_problem([e for m in finished for e in m.finals])
    base = base_evaluations(methods)
    n = n or samples_per_problem(base)
    ks = sorted({k for k in TABLE_KS if k <= n} | ({largest_k(n)} if n else set()))
    measures = [*(f"pass@{k}" for k in ks), "distinct", "coverage", "entropy"]
    rows = [_row(method.title, method.name, method.finals, measures) for method in finished]
    if base:
        rows.insert(0, _row("Base model, before training", "base", base, measures))
    measures = _drop_unknown(measures, rows)
    sizes = {row["size"] for row in rows}
    return {"measures": measures, "rows": rows, "mixed_sizes": len(sizes) > 1}


def _row(title: str, name: str, evaluations: list[Evaluation], measures: list[str]) -> dict[str, Any]:
    problems, n = len(common_problems(evaluations)), samples_per_problem(evaluations)
    seeds = len(evaluations)
    return {
        "title": title,
        "name": name,
        "size": f"{problems} problems × {n} samples",
        "seeds": f"{seeds} seed{'s' if seeds > 1 else ''}",
        "cells": [
            _cell(measure, estimate(evaluations, measure), sampling_estimate(evaluations, measure), problems)
            for measure in measures
        ],
    }


def _cell(measure: str, value: Estimate | None, sampling: Estimate | None, problems: int) -> dict[str, Any]:
    """As it is shown, with the number of problems where a measure at k is not over all of them. And for files
    ``problems``, and ``exact``: mean, interval over problems, interval over sampling only."""
    digits = 2 if measure.startswith("distinct") else 3
    exact: list[float | None] = [value.mean, value.low, value.high] if value else [None, None, None]
    exact += [sampling.low, sampling.high] if sampling else [None, None]
    fewer = value is not None and "@" in measure and (value.problems or 0) < problems
    return {
        "measure": measure,
        "mean": f"{value.mean:.{digits}f}" if value else "–",
        "interval": f"{value.low:.{digits}f}–{value.high:.{digits}f}" if value else "",
        "sampling": f"{max(sampling.low, 0.0):.{digits}f}–{sampling.high:.{digits}f}" if sampling else "",
        "over": f"{value.problems} of {problems} problems" if value and fewer else "",
        "exact": exact,
        "problems": value.problems if value else None,
    }


def per_run(methods: Sequence[MethodRuns], measures: Sequence[str]) -> list[dict[str, Any]]:
    """Each finished run's own means: how far apart seeds lie, which no interval over problems shows."""
    rows = []
    for method in methods:
        for run in method.finished:
            assert run.final is not None
            final = [run.final]
            problems = len(common_problems(final))
            estimates = [_cell(m, estimate(final, m), sampling_estimate(final, m), problems) for m in measures]
            rows.append({"title": run.label, "name": method.name, "folder": run.folder.path.name, "cells": estimates})
    return rows
