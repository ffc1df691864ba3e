"""The figures of a report: curves over training, and what the final evaluations show."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from progrpo.evaluation.intervals import mean_over_problems
from progrpo.evaluation.results import Evaluation
from progrpo.pages.collect import Group, Run
from progrpo.pages.figures import PERCENT, ROWS, Figure, Panel, figure, mark, plain, series, upright, whiskers
from progrpo.pages.measures import estimate, finals_of, known_values, largest_k, samples_per_problem
from progrpo.pages.summary import Difference, interval_text

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
        *("right", "wrong"),
    ),
    "pass1": ("pass@1, held out", "The chance that one sample is right, on problems kept out of training.", "pass@1"),
    "passk": (
        "pass@{k}, held out",
        "The chance that the best of {k} is right. A policy that collapses gains pass@1 and loses here.",
        "pass@{k}",
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
"""By id: the title, the caption, and the measures of :func:`curve` that the panel shows."""
LINES = {"right": (", right", "solid"), "wrong": (", wrong", "dash")}
"""What follows the title in a line's name, and the style of the line, for measures that share a panel."""


def window_for(steps: int) -> int:
    """1 below 60 steps, else the odd number next to a twentieth of the steps."""
    return 1 if steps < SMOOTH_FROM else steps // 20 | 1


def curve(run: Run, measure: str) -> dict[int, float]:
    """A measure by step: a metric of training, the mean c(o|q) of recorded rollouts that are ``right`` or ``wrong``,
    or ``pass@K`` of the evaluations during training and of the final one on the same problems."""
    if not measure.startswith("pass@"):
        records = [*run.metrics, *run.rollouts]
        return {record["step"]: float(record[measure]) for record in records if record.get(measure) is not None}
    by_step = dict(run.evaluations)
    if run.final is not None and by_step:
        by_step[run.recipe.training.steps] = run.final
    k = int(measure.removeprefix("pass@"))
    usable = {step: e for step, e in sorted(by_step.items()) if e.judged and e.samples >= k}
    values = known_values(list(usable.values()), measure)
    return {} if values is None else dict(zip(usable, values.mean(axis=1).tolist(), strict=True))


def over_training(groups: Sequence[Group], measure: str) -> list[Figure]:
    """A measure of :func:`curve` over training: each seed as a thin line, the mean over seeds on top.

    The mean is over the steps that all of a method's runs have: elsewhere it would jump where a seed joins or leaves.
    The points of measures that are known at a few steps are marked, and nothing is smoothed then.
    """
    data: list[Figure] = []
    is_marked = measure in LINES or measure.startswith("pass@")
    label, dash = LINES.get(measure, ("", "solid"))
    for group in groups:
        runs = [pd.Series(values) for run in group.runs if (values := curve(run, measure))]
        if not runs:
            continue
        look = mark(group.name)
        window = 1 if is_marked else window_for(max(len(values) for values in runs))
        if len(runs) > 1 or window > 1:
            thin = {"width": 1, "dash": dash}
            data += [series("lines", values.index, values, look, line=thin, opacity=0.35) for values in runs]
        # At the ends the window of the moving average is cut, not padded.
        mean = pd.concat(runs, axis=1, join="inner").mean(axis=1).rolling(window, center=True, min_periods=1).mean()
        mode, name = "lines+markers" if is_marked or len(mean) == 1 else "lines", group.title + label
        data.append(series(mode, mean.index, mean, look, name=name, hover="%{y:.3f}", line={"dash": dash}))
    return data


def training_panels(groups: Sequence[Group]) -> list[Panel]:
    """The panels over training that have something to show."""
    k = largest_k(samples_per_problem([e for g in groups for run in g.runs for e in run.evaluations.values()]))
    panels = []
    for name, (title, caption, *measures) in PANELS.items():
        data = [line for measure in measures for line in over_training(groups, measure.format(k=k))]
        shown = figure(data, "step", yaxis=PERCENT if measures[0].startswith("groups/") else {})
        if shown and (name != "passk" or k > 1):
            panels.append(Panel(name, title.format(k=k), caption.format(k=k), shown))
    return panels


def pass_at_k_figure(groups: Sequence[Group]) -> Figure | None:
    """pass@k of the final evaluations against k, with 95 % intervals as bands.

    The line has every k. The band has fewer, evenly spread on the axis, because each k costs a bootstrap.
    """
    data: list[Figure] = []
    most = 0
    for group in groups:
        every_k = range(1, samples_per_problem(group.finals) + 1)
        values = {k: known for k in every_k if (known := known_values(group.finals, f"pass@{k}")) is not None}
        if not values:
            continue
        look, most = mark(group.name), max(most, *values)
        ks = band_ks(max(values))
        band = [mean_over_problems(values[k]) for k in ks]
        x, y = [*ks, *ks[::-1]], [*(e.low for e in band), *(e.high for e in band[::-1])]
        fill: dict[str, Any] = {"line": {"width": 0}, "fill": "toself", "fillcolor": f"var(--band-{look.name})"}
        data.append(series("lines", x, y, look, **fill))
        means = {k: float(known.mean()) for k, known in values.items()}
        problems = [known.shape[1] for known in values.values()]
        fewer = [f" ({count} problems)" if len(set(problems)) > 1 else "" for count in problems]
        hover, line = "%{y:.3f}%{text}", list(means.values())
        data.append(series("lines", list(means), line, look, name=group.title, text=fewer, hover=hover))
        powers = {k: mean for k, mean in means.items() if k.bit_count() == 1}
        data.append(series("markers", list(powers), list(powers.values()), look))
    ticks = [1 << i for i in range(most.bit_length())]
    xaxis = {"type": "log", "tickvals": ticks, "ticktext": [str(k) for k in ticks]}
    return figure(data, "k, samples tried", "pass@k", xaxis=xaxis, yaxis={"rangemode": "normal"}, height=360)


def band_ks(n: int) -> list[int]:
    """Three to four values of k per octave, from 1 to n.

    >>> band_ks(16)
    [1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 16]
    """
    return sorted({round(float(k)) for k in np.geomspace(1, n, max(2, 3 * n.bit_length()))} | {1, n})


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
    title, xaxis = f"difference from {plain(shown[0].baseline.title)}", {"tickformat": "+.2f", "showgrid": True}
    height, zero = 90 + 38 * len(shown), [upright(0)]
    return figure(data, title, xaxis=xaxis, yaxis=ROWS, height=height, shapes=zero, hovermode="closest")


def distinct_figure(groups: Sequence[Group]) -> Figure | None:
    """How many different correct solutions problems have: the share of problems by count, a bar for each group."""
    data = []
    for group in groups:
        counts = known_values(group.finals, "distinct")
        if counts is not None:
            shares, hover = np.bincount(counts.astype(int).ravel()) / counts.size, "%{y:.1%} of problems"
            colour = mark(group.name).colour
            data.append(series("bars", range(len(shares)), shares, colour, name=group.title, hover=hover))
    title, xaxis = (
        "different correct solutions of a problem",
        {"dtick": 1 if all(len(s["x"]) <= 16 for s in data) else 5},
    )
    layout: dict[str, Any] = {"height": 300, "bargap": 0.25, "bargroupgap": 0.08}
    return figure(data, title, "problems", xaxis=xaxis, yaxis=PERCENT, **layout)


def coverage_figure(groups: Sequence[Group], base: Sequence[Evaluation] = ()) -> Figure | None:
    """Coverage with its interval: a row for each group, and one for the base model."""
    rows = [(group.title, group.name, group.finals) for group in groups]
    if base and samples_per_problem(base) == samples_per_problem(finals_of(groups)):
        rows.insert(0, ("Base model", "base", list(base)))
    data = []
    for title, name, evaluations in rows:
        if value := estimate(evaluations, "coverage"):
            error = whiskers(value.mean, value.low, value.high, "var(--ink)")
            hover = f"{value.mean:.1%} [{value.low:.1%}, {value.high:.1%}]<extra></extra>"
            row = series("bars", [value.mean], [plain(title)], mark(name).colour, hover=hover, error_x=error)
            data.append(row | {"orientation": "h", "width": 0.55})
    xaxis = PERCENT | {"rangemode": "tozero", "showgrid": True}
    layout: dict[str, Any] = {"height": 80 + 44 * len(data), "hovermode": "closest", "barmode": "overlay"}
    return figure(data, "share of all solutions found", xaxis=xaxis, yaxis=ROWS, **layout)
