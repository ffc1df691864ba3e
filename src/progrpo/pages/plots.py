"""The figures of a report: curves over training, and what the final evaluations show."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from progrpo.evaluation.results import Evaluation
from progrpo.pages.collect import Group, MethodRuns, Run
from progrpo.pages.figures import PERCENT, ROWS, Figure, Panel, Series, figure, mark, plain, series, upright, whiskers
from progrpo.pages.measures import estimate, known_values, samples_per_problem
from progrpo.pages.summary import Difference, interval_text, largest_k

Curve = dict[float, float]
"""Values by step."""
SMOOTH_FROM = 60
"""From so many steps on, the mean over seeds is averaged over neighbouring steps, because noise hides a long curve."""

PANELS = {
    "reward": ("Reward", "Mean reward of the training rollouts. It should rise.", "reward"),
    "entropy": ("Policy entropy", "In nats per token. It nears 0 when exploration stops.", "entropy"),
    "prompt-confidence": (
        "Prompt confidence c(q)",
        "How likely the policy finds the prompt itself: 1 / perplexity. ProGRPO compares c(o|q) with it.",
        "confidence/prompt/mean",
    ),
    "answer-confidence": (
        "Answer confidence c(o|q)",
        "How likely the policy finds the least likely tokens of its own answers. Near 1, it repeats one answer.",
        "confidence/answer/mean",
    ),
    "confidence-by-verdict": (
        "c(o|q) of right and wrong rollouts",
        "Solid: right rollouts. Dashed: wrong ones. ProGRPO pulls down the right ones that are over-confident.",
        None,
    ),
    "pass1": ("pass@1, held out", "The chance that one sample is right, on problems kept out of training.", None),
    "passk": (
        "pass@{k}, held out",
        "The chance that the best of {k} is right. A policy that collapses gains pass@1 and loses here.",
        None,
    ),
    "distinct": ("Different solutions in a group", "Different right answers to one prompt.", "distinct_solutions"),
    "mixed": (
        "Mixed groups",
        "They have right and wrong responses. With rewards of 0 and 1, GRPO learns from no others.",
        "groups/mixed",
    ),
    "all-right": ("Groups all right", "Prompts that are solved every time.", "groups/all_right"),
    "all-wrong": ("Groups all wrong", "Prompts that are never solved.", "groups/all_wrong"),
}
"""By id: the title, the caption, and the metric of training that the panel shows, if it shows one."""


def window_for(steps: int) -> int:
    """1 below 60 steps, else the odd number next to a twentieth of the steps."""
    return 1 if steps < SMOOTH_FROM else steps // 20 | 1


def metric_curve(run: Run, key: str) -> Curve:
    """A metric of training."""
    return {record["step"]: float(record[key]) for record in run.metrics if record.get(key) is not None}


def pass_at_k_curve(run: Run, k: int) -> Curve:
    """pass@k of the evaluations during training, and of the final evaluation on the same problems."""
    by_step = dict(run.evaluations)
    if run.final is not None and by_step:
        by_step[run.recipe.training.steps] = run.final
    usable = {step: e for step, e in sorted(by_step.items()) if e.judged and e.samples >= k}
    values = known_values(list(usable.values()), f"pass@{k}")
    return {} if values is None else dict(zip(usable, values.mean(axis=1).tolist(), strict=True))


def confidence_curve(run: Run, place: int) -> Curve:
    """The mean c(o|q) of the recorded rollouts that are right (place 0) or wrong (place 1)."""
    return {step: means[place] for step, means in run.rollout_confidence.items() if np.isfinite(means[place])}


def over_training(
    methods: Sequence[MethodRuns],
    curve: Callable[[Run], Curve],
    *,
    label: str = "",
    dash: str = "solid",
    markers: bool = False,
) -> list[Series]:
    """A quantity over training: each seed as a thin line, the mean over seeds on top.

    The mean is over the steps that all of a method's runs have: elsewhere it would jump where a seed joins or leaves.
    ``markers`` marks the points, for quantities that are known at a few steps; nothing is smoothed then. ``label``
    follows a method's title, and ``dash`` is Plotly's name for the style of the lines.
    """
    import pandas as pd

    data: list[Series] = []
    for method in methods:
        runs = [pd.Series(values) for run in method.runs if (values := curve(run))]
        if not runs:
            continue
        look = mark(method.name)
        window = 1 if markers else window_for(max(len(values) for values in runs))
        if len(runs) > 1 or window > 1:
            thin: dict[str, Any] = {"line": {"width": 1, "dash": dash}, "opacity": 0.35}
            data += [series("lines", values.index, values, look, **thin) for values in runs]
        # At the ends the window of the moving average is cut, not padded.
        mean = pd.concat(runs, axis=1, join="inner").mean(axis=1).rolling(window, center=True, min_periods=1).mean()
        options: dict[str, Any] = {"name": method.title + label, "hover": "%{y:.3f}", "line": {"dash": dash}}
        mode = "lines+markers" if markers or len(mean) == 1 else "lines"
        data.append(series(mode, mean.index, mean, look, **options))
    return data


def training_panels(methods: Sequence[MethodRuns]) -> list[Panel]:
    """The panels over training that have something to show."""
    k = largest_k(samples_per_problem([e for m in methods for run in m.runs for e in run.evaluations.values()]))

    def marked(curve: Callable[..., Curve], label: str = "", dash: str = "solid", **options: Any) -> list[Series]:
        return over_training(methods, partial(curve, **options), markers=True, label=label, dash=dash)

    right, wrong = marked(confidence_curve, ", right", place=0), marked(confidence_curve, ", wrong", "dash", place=1)
    curves = {"confidence-by-verdict": right + wrong, "pass1": marked(pass_at_k_curve, k=1)}
    curves["passk"] = marked(pass_at_k_curve, k=k) if k > 1 else []
    panels = []
    for name, (title, caption, metric) in PANELS.items():
        data = over_training(methods, partial(metric_curve, key=metric)) if metric else curves[name]
        shown = figure(data, "step", yaxis=PERCENT if metric and metric.startswith("groups/") else {})
        panels.append(Panel(name, title.format(k=k), caption.format(k=k), shown))
    return [panel for panel in panels if panel.figure]


def pass_at_k_figure(groups: Sequence[Group]) -> Figure | None:
    """pass@k of the final evaluations against k, with 95 % intervals as bands.

    The line has every k. The band has fewer, evenly spread on the axis, because each k costs a bootstrap.
    """
    data: list[Series] = []
    most = 0
    for group in groups:
        ks = range(1, samples_per_problem(group.finals) + 1)
        values = {k: known for k in ks if (known := known_values(group.finals, f"pass@{k}")) is not None}
        if not values:
            continue
        look, n = mark(group.name), max(values)
        most = max(most, n)
        bounds = [(k, e) for k in band_ks(n) if (e := estimate(group.finals, f"pass@{k}"))]
        x = [k for k, _ in bounds] + [k for k, _ in reversed(bounds)]
        y = [e.low for _, e in bounds] + [e.high for _, e in reversed(bounds)]
        data.append(series("lines", x, y, look, line={"width": 0}, fill="toself", fillcolor=look.band))
        means = [float(known.mean()) for known in values.values()]
        problems = [known.shape[1] for known in values.values()]
        fewer = [f" ({count} problems)" if len(set(problems)) > 1 else "" for count in problems]
        options: dict[str, Any] = {"name": group.title, "text": fewer, "hover": "%{y:.3f}%{text}"}
        data.append(series("lines", list(values), means, look, **options))
        powers = [k for k in values if k.bit_count() == 1]
        at_powers = [mean for k, mean in zip(values, means, strict=True) if k in powers]
        data.append(series("markers", powers, at_powers, look))
    ticks = [1 << i for i in range(most.bit_length())]
    xaxis = {"type": "log", "tickvals": ticks, "ticktext": [str(k) for k in ticks]}
    return figure(data, "k, samples tried", "pass@k", xaxis=xaxis, yaxis={"rangemode": "normal"}, height=360)


def band_ks(n: int) -> list[int]:
    """Three to four values of k per octave, from 1 to n.

    >>> band_ks(16)
    [1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 16]
    """
    spread = np.geomspace(1, n, max(2, 3 * n.bit_length()))
    return sorted({round(float(k)) for k in spread} | {1, n})


def difference_figure(differences: Sequence[Difference]) -> Figure | None:
    """The paired differences in shares of problems, each with its interval, and a small mark for each seed."""
    shown = [d for d in differences if d.measure.startswith("pass@") or d.measure == "coverage"]
    if not shown:
        return None
    several = len({d.method.name for d in shown}) > 1
    data = []
    for d in shown:
        look, value = mark(d.method.name), d.difference
        row = f"{d.measure}  {plain(d.method.title)}" if several else d.measure
        error = whiskers(value.mean, value.low, value.high, look.colour)
        hover = f"{d.measure}: {interval_text(value)}<extra></extra>"
        data.append(series("markers", [value.mean], [row], look, marker={"size": 11}, error_x=error, hover=hover))
        if len(d.per_seed) > 1:
            rows, hover = [row] * len(d.per_seed), "one seed: %{x:+.3f}<extra></extra>"
            marker = {"symbol": "line-ns-open", "size": 10}
            data.append(series("markers", d.per_seed, rows, "var(--soft)", marker=marker, hover=hover))
    options: dict[str, Any] = {"height": 90 + 38 * len(shown), "shapes": [upright(0)], "hovermode": "closest"}
    title, xaxis = f"difference from {plain(shown[0].baseline.title)}", {"tickformat": "+.2f", "showgrid": True}
    return figure(data, title, xaxis=xaxis, yaxis=ROWS, **options)


def distinct_figure(groups: Sequence[Group]) -> Figure | None:
    """How many different correct solutions problems have: the share of problems by count, a bar for each group."""
    data = []
    most = 0
    for group in groups:
        counts = known_values(group.finals, "distinct")
        if counts is not None:
            most = max(most, int(counts.max()))
            x = list(range(int(counts.max()) + 1))
            shares, hover = [float(np.mean(counts == count)) for count in x], "%{y:.1%} of problems"
            data.append(series("bars", x, shares, mark(group.name).colour, name=group.title, hover=hover))
    title, xaxis = "different correct solutions of a problem", {"dtick": 1 if most < 16 else 5}
    options: dict[str, Any] = {"height": 300, "bargap": 0.25, "bargroupgap": 0.08}
    return figure(data, title, "problems", xaxis=xaxis, yaxis=PERCENT, **options)


def coverage_figure(groups: Sequence[Group], base: Sequence[Evaluation] = ()) -> Figure | None:
    """Coverage with its interval: a row for each group, and one for the base model."""
    rows = [(group.title, group.name, group.finals) for group in groups if group.finals]
    n = samples_per_problem([e for _, _, finals in rows for e in finals])
    if base and samples_per_problem(base) == n:
        rows.insert(0, ("Base model", "base", list(base)))
    data = []
    for title, name, evaluations in rows:
        if value := estimate(evaluations, "coverage"):
            error = whiskers(value.mean, value.low, value.high, "var(--ink)")
            hover = f"{value.mean:.1%} [{value.low:.1%}, {value.high:.1%}]<extra></extra>"
            row = series("bars", [value.mean], [plain(title)], mark(name).colour, hover=hover, error_x=error)
            data.append(row | {"orientation": "h", "width": 0.55})
    xaxis = PERCENT | {"rangemode": "tozero", "showgrid": True}
    options: dict[str, Any] = {"height": 80 + 44 * len(data), "hovermode": "closest", "barmode": "overlay"}
    return figure(data, "share of all solutions found", xaxis=xaxis, yaxis=ROWS, **options)
