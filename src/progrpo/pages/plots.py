"""The figures, as Plotly's JSON: plain dicts of ``data`` and ``layout``.

Colours are names of the page's CSS variables (``var(--ink)``); the page's script puts in the values of the light or
the dark theme, so one figure serves both.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from progrpo.evaluation.evaluate import Evaluation
from progrpo.pages.collect import (
    Group,
    MethodRuns,
    Run,
    common_problems,
    estimate,
    fewer_problems,
    known_values,
    samples_per_problem,
    values_of,
)
from progrpo.pages.summary import Difference, largest_k, signed

Figure = dict[str, Any]
Point = tuple[float, float]

# Okabe and Ito's colour-blind-safe palette, each hue for white and for dark paper; the first two are told apart by
# lightness too. A method has one colour on every page.
PALETTE = {
    "grpo": ("#0072B2", "#56B4E9"),
    "dr_grpo": ("#56798F", "#9FB6C4"),
    "gspo": ("#007A5E", "#2FC79B"),
    "entropy_bonus": ("#8A6D00", "#F0E442"),
    "high_entropy_tokens": ("#6B5B95", "#B8A9E0"),
    "progrpo": ("#D55E00", "#F0A048"),
    "progrpo_group": ("#B04A86", "#E59AC6"),
    "progrpo_correct": ("#7A3B1D", "#D9A38A"),
    "base": ("#6B6B6B", "#A0A0A0"),
}
SYMBOLS = {
    "grpo": "circle",
    "dr_grpo": "x",
    "gspo": "triangle-up",
    "entropy_bonus": "star",
    "high_entropy_tokens": "cross",
    "progrpo": "square",
    "progrpo_group": "diamond",
    "progrpo_correct": "triangle-down",
}
GLYPHS = {
    "circle": "●",
    "x": "✖",
    "triangle-up": "▲",
    "star": "★",
    "cross": "✚",
    "square": "■",
    "diamond": "◆",
    "triangle-down": "▼",
    "circle-open": "○",
}
MODEL_SLOTS = ("grpo", "progrpo", "gspo", "progrpo_group", "entropy_bonus", "high_entropy_tokens", "progrpo_correct")
"""The palette's places for models, the most different first."""
SMOOTH_FROM = 60
"""Steps from which a curve's mean is averaged over neighbouring steps: noise hides a curve of hundreds of steps."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def colour(name: str) -> str:
    """The CSS variable of a method's or a model's colour; a method that is not in the palette is drawn in grey."""
    return f"var(--m-{_slot(name)})"


def symbol(name: str) -> str:
    """The mark of a method or a model, so that it is not told by colour alone."""
    return SYMBOLS.get(_slot(name), "circle-open")


def glyph(name: str) -> str:
    """The same mark as a letter, for legends outside of plots.

    >>> glyph("grpo"), glyph("progrpo"), glyph("base")
    ('●', '■', '○')
    """
    return GLYPHS[symbol(name)]


def plain(text: str) -> str:
    """A text that Plotly shows as it is: it reads tags in names and labels.

    >>> plain("a<b>")
    'a&lt;b&gt;'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def band(name: str) -> str:
    """The same colour, see-through."""
    return f"var(--band-{_slot(name)})"


def _slot(name: str) -> str:
    """A method's own place in the palette; the models of an evaluation page, ``model-0`` and so on, take them in
    turn."""
    kind, _, number = name.partition("-")
    if kind == "model" and number.isdecimal():
        return MODEL_SLOTS[int(number) % len(MODEL_SLOTS)]
    return name if name in PALETTE else "base"


def palette_css(dark: bool) -> str:
    """Declarations of the palette's CSS variables for one theme.

    >>> palette_css(dark=False).split(";")[0]
    '--m-grpo:#0072B2'
    """
    told = ""
    for name, colours in PALETTE.items():
        value = colours[dark]
        red, green, blue = (int(value[i : i + 2], 16) for i in (1, 3, 5))
        told += f"--m-{name}:{value};--band-{name}:rgba({red},{green},{blue},.18);"
    return told


def layout(*, height: int = 220, x: Figure | None = None, y: Figure | None = None, **more: Any) -> Figure:
    """The layout that all figures share."""
    axis = {
        "gridcolor": "var(--grid)",
        "linecolor": "var(--rule)",
        "zeroline": False,
        "fixedrange": True,
        "automargin": True,
        "ticks": "",
        "nticks": 5,
    }
    return {
        "height": height,
        "margin": {"l": 40, "r": 12, "t": 8, "b": 36},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12, "color": "var(--soft)"},
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--rule)", "font": {"color": "var(--ink)"}},
        "showlegend": False,
        "dragmode": False,
        "hovermode": "x unified",
        "xaxis": axis | {"showgrid": False, "showline": True} | (x or {}),
        "yaxis": axis | {"rangemode": "tozero"} | (y or {}),
    } | more


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Centred moving average; at the ends the window is cut, not padded.

    >>> smooth([0.0, 3.0, 6.0], 3)
    [1.5, 3.0, 4.5]
    """
    half = window // 2
    return [float(np.mean(values[max(0, i - half) : i + half + 1])) for i in range(len(values))]


def window_for(steps: int) -> int:
    """1 below 60 steps, else the odd number next to a twentieth of the steps."""
    return 1 if steps < SMOOTH_FROM else steps // 20 | 1


def metric_points(key: str) -> Callable[[Run], list[Point]]:
    """A run's (step, value) pairs of a metric."""
    return lambda run: [(r["step"], float(r[key])) for r in run.metrics if r.get(key) is not None]


def evaluation_points(k: int) -> Callable[[Run], list[Point]]:
    """A run's (step, pass@k) pairs: evaluations in training, and the final one on the same problems."""

    def points(run: Run) -> list[Point]:
        by_step = dict(run.evaluations)
        if run.final is not None and by_step:
            by_step[run.recipe.training.steps] = run.final
        usable = {step: e for step, e in sorted(by_step.items()) if e.judged and e.samples >= k}
        values = known_values(list(usable.values()), f"pass@{k}")
        return [] if values is None else list(zip(usable, values.mean(axis=1).tolist(), strict=True))

    return points


def curve(methods: Sequence[MethodRuns], points_of: Callable[[Run], list[Point]], **options: Any) -> Figure | None:
    """A quantity over training: each seed thin, the mean over seeds on top; None if no run has it.

    The mean is over steps that all of a method's runs have: elsewhere it would jump where a seed joins or leaves.

    Args:
        options: ``markers`` draws points (for few steps), ``y`` is merged into the y-axis.
    """
    data: list[Figure] = []
    for method in methods:
        runs = [dict(points) for run in method.runs if (points := points_of(run))]
        if not runs:
            continue
        window = 1 if options.get("markers") else window_for(max(len(points) for points in runs))
        if len(runs) > 1 or window > 1:
            data += [_thin(points, method.name) for points in runs]
        steps = sorted(set.intersection(*(set(points) for points in runs)))
        mean = [float(np.mean([points[step] for points in runs])) for step in steps]
        data.append(_line(method, steps, smooth(mean, window), bool(options.get("markers"))))
    if not data:
        return None
    x = {"title": {"text": "step", "standoff": 4}}
    return {"data": data, "layout": layout(x=x, y=options.get("y"))}


def _thin(points: dict[float, float], method: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(points),
        "y": list(points.values()),
        "line": {"color": colour(method), "width": 1},
        "opacity": 0.35,
        "hoverinfo": "skip",
    }


def _line(method: Group, x: Sequence[float], y: Sequence[float], markers: bool) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers" if markers or len(x) == 1 else "lines",
        "name": plain(method.title),
        "x": list(x),
        "y": [round(value, 5) for value in y],
        "line": {"color": colour(method.name), "width": 2.5},
        "marker": {"symbol": symbol(method.name), "size": 8, "color": colour(method.name)},
        "hovertemplate": "%{y:.3f}",
    }


def confidence_by_verdict(methods: Sequence[MethodRuns]) -> Figure | None:
    """The mean c(o|q) of the rollouts that were kept, right ones solid and wrong ones dashed."""

    def points(place: int) -> Callable[[Run], list[Point]]:
        return lambda run: [(step, v[place]) for step, v in run.rollout_confidence.items() if np.isfinite(v[place])]

    right, wrong = (curve(methods, points(place), markers=True) for place in (0, 1))
    for figure, verdict, dash in ((right, "right", "solid"), (wrong, "wrong", "dash")):
        for trace in figure["data"] if figure else []:
            trace["line"] = trace["line"] | {"dash": dash}
            if "name" in trace:
                trace["name"] += f", {verdict}"
    if right and wrong:
        return right | {"data": right["data"] + wrong["data"]}
    return right or wrong


def pass_at_k_figure(methods: Sequence[Group]) -> Figure | None:
    """pass@k of the final evaluations against k, with 95 % intervals as bands; None without final evaluations.

    The line has every k; the band is drawn through ks that are evenly spread on the axis, for each costs a bootstrap.
    """
    data: list[Figure] = []
    most = 0
    for method in methods:
        means = {k: v for k in range(1, samples_per_problem(method.finals) + 1) if (v := _pass_at(method.finals, k))}
        if not means:
            continue
        n = max(means)
        most = max(most, n)
        bounds = [(k, e) for k in band_ks(n) if (e := estimate(method.finals, f"pass@{k}"))]
        fill: Figure = {"x": [k for k, _ in bounds] + [k for k, _ in reversed(bounds)]}
        fill["y"] = [e.low for _, e in bounds] + [e.high for _, e in reversed(bounds)]
        shared = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "line": {"width": 0}}
        data.append(shared | fill | {"fill": "toself", "fillcolor": band(method.name)})
        line = _line(method, list(means), [mean for mean, _ in means.values()], False)
        if fewer_problems(method.finals):
            told = [f" ({problems} problems)" for _, problems in means.values()]
            line |= {"text": told, "hovertemplate": "%{y:.3f}%{text}"}
        data.append(line)
        marks = [k for k in means if k.bit_count() == 1]
        at = {"x": marks, "y": [line["y"][line["x"].index(k)] for k in marks], "marker": line["marker"]}
        data.append({"type": "scatter", "mode": "markers", "hoverinfo": "skip"} | at)
    if not data:
        return None
    ticks = [1 << i for i in range(most.bit_length())]
    x = {"type": "log", "tickvals": ticks, "ticktext": [str(k) for k in ticks], "title": {"text": "k, samples tried"}}
    y = {"rangemode": "normal", "title": {"text": "pass@k"}}
    return {"data": data, "layout": layout(height=360, x=x, y=y)}


def _pass_at(evaluations: Sequence[Evaluation], k: int) -> tuple[float, int] | None:
    """The mean, and over how many problems it is."""
    values = known_values(evaluations, f"pass@{k}")
    return None if values is None else (float(values.mean()), values.shape[1])


def band_ks(n: int) -> list[int]:
    """Three to four ks an octave from 1 to n.

    >>> band_ks(16)
    [1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 16]
    """
    spread = np.geomspace(1, n, max(2, 3 * n.bit_length()))
    return sorted({round(float(k)) for k in spread} | {1, n})


def difference_figure(found: Sequence[Difference]) -> Figure | None:
    """The paired differences in shares of problems, each with its interval, and a small mark for each seed."""
    shown = [d for d in found if d.measure.startswith("pass@") or d.measure == "coverage"]
    if not shown:
        return None
    others = list(dict.fromkeys(d.method.name for d in shown))
    several = len(others) > 1
    names = [f"{d.measure}  {plain(d.method.title) if several else ''}".strip() for d in shown]
    data: list[Figure] = []
    for name, d in zip(names, shown, strict=True):
        method = d.method.name
        text = f"{signed(d.difference.mean)} [{signed(d.difference.low)}, {signed(d.difference.high)}]"
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [d.difference.mean],
                "y": [name],
                "marker": {"symbol": symbol(method), "size": 11, "color": colour(method)},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [d.difference.high - d.difference.mean],
                    "arrayminus": [d.difference.mean - d.difference.low],
                    "color": colour(method),
                    "thickness": 2,
                    "width": 4,
                },
                "hovertemplate": f"{d.measure}: {text}<extra></extra>",
            }
        )
        if len(d.per_seed) > 1:
            seeds = {"symbol": "line-ns-open", "size": 10, "color": "var(--soft)"}
            marks = {"x": d.per_seed, "y": [name] * len(d.per_seed), "marker": seeds}
            data.append(
                {"type": "scatter", "mode": "markers", "hovertemplate": "one seed: %{x:+.3f}<extra></extra>"} | marks
            )
    zero = {
        "type": "line",
        "x0": 0,
        "x1": 0,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": "var(--soft)", "width": 1},
    }
    y = {"autorange": "reversed", "showgrid": False, "type": "category", "dtick": 1}
    x = {
        "title": {"text": f"difference from {plain(shown[0].baseline.title)}", "standoff": 4},
        "tickformat": "+.2f",
        "showgrid": True,
    }
    height = 90 + 38 * len(shown)
    return {"data": data, "layout": layout(height=height, x=x, y=y, shapes=[zero], hovermode="closest")}


def distinct_figure(methods: Sequence[Group]) -> Figure | None:
    """How many different correct solutions problems have: the share of problems by count, a bar a method."""
    data: list[Figure] = []
    for method in methods:
        problems = common_problems(method.finals)
        if problems:
            counts = values_of(method.finals, "distinct", problems).ravel()
            most = int(counts.max())
            shares = [float(np.mean(counts == count)) for count in range(most + 1)]
            data.append(
                {
                    "type": "bar",
                    "name": plain(method.title),
                    "x": list(range(most + 1)),
                    "y": [round(share, 5) for share in shares],
                    "marker": {"color": colour(method.name)},
                    "hovertemplate": "%{y:.1%} of problems",
                }
            )
    if not data:
        return None
    x = {
        "title": {"text": "different correct solutions of a problem", "standoff": 4},
        "dtick": 1 if _span(data) <= 16 else 5,
    }
    y = {"tickformat": ".0%", "title": {"text": "problems"}}
    return {"data": data, "layout": layout(height=300, x=x, y=y, bargap=0.25, bargroupgap=0.08)}


def _span(data: Sequence[Figure]) -> int:
    return max(len(trace["x"]) for trace in data)


def coverage_figure(groups: Sequence[Group], base: Sequence[Evaluation] = ()) -> Figure | None:
    """Coverage with its interval, a row a group and one for the base model; None where it is not known."""
    rows = [(group.title, group.name, group.finals) for group in groups if group.finals]
    n = samples_per_problem([e for _, _, finals in rows for e in finals])
    if base and samples_per_problem(base) == n:
        rows.insert(0, ("Base model", "base", list(base)))
    known = [(title, name, value) for title, name, e in rows if (value := estimate(e, "coverage"))]
    if not known:
        return None
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [value.mean],
            "y": [plain(title)],
            "width": 0.55,
            "marker": {"color": colour(name)},
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [value.high - value.mean],
                "arrayminus": [value.mean - value.low],
                "color": "var(--ink)",
                "thickness": 1.5,
            },
            "hovertemplate": f"{value.mean:.1%} [{value.low:.1%}, {value.high:.1%}]<extra></extra>",
        }
        for title, name, value in known
    ]
    x = {
        "tickformat": ".0%",
        "rangemode": "tozero",
        "showgrid": True,
        "title": {"text": "of all solutions found", "standoff": 4},
    }
    y = {"autorange": "reversed", "showgrid": False, "type": "category", "dtick": 1}
    return {
        "data": data,
        "layout": layout(height=80 + 44 * len(known), x=x, y=y, hovermode="closest", barmode="overlay"),
    }


def training_panels(methods: Sequence[MethodRuns]) -> list[dict[str, Any]]:
    """The panels over training that have data: ``{id, title, caption, figure}``."""
    evaluations = [e for m in methods for run in m.runs for e in run.evaluations.values()]
    k = largest_k(samples_per_problem(evaluations))
    share = {"tickformat": ".0%"}
    wanted: list[tuple[str, str, str, Figure | None]] = [
        ("reward", "Reward", "Mean reward of the training rollouts. It should rise.", _metric(methods, "reward")),
        (
            "entropy",
            "Policy entropy",
            "Nats a token. A policy that stops exploring falls towards 0.",
            _metric(methods, "entropy"),
        ),
        (
            "prompt-confidence",
            "Prompt confidence c(q)",
            "How likely the policy finds the prompt itself: 1 / perplexity. ProGRPO holds c(o|q) against it.",
            _metric(methods, "confidence/prompt/mean"),
        ),
        (
            "answer-confidence",
            "Answer confidence c(o|q)",
            "How likely it finds the least likely tokens of its own answers. Near 1, it repeats one answer.",
            _metric(methods, "confidence/answer/mean"),
        ),
        (
            "confidence-by-verdict",
            "c(o|q) of right and wrong",
            "Solid: right rollouts. Dashed: wrong ones. ProGRPO pulls down the right ones that are over-confident.",
            confidence_by_verdict(methods),
        ),
        (
            "pass1",
            "pass@1, held out",
            "Chance that one sample is right, on problems kept out of training.",
            curve(methods, evaluation_points(1), markers=True),
        ),
        (
            "passk",
            f"pass@{k}, held out",
            f"Chance that the best of {k} is right. A policy that collapses gains pass@1 and loses here.",
            curve(methods, evaluation_points(k), markers=True) if k > 1 else None,
        ),
        (
            "distinct",
            "Different solutions in a group",
            "Different right answers among the responses to one prompt.",
            _metric(methods, "distinct_solutions"),
        ),
        (
            "mixed",
            "Groups with right and wrong",
            "With rewards of 0 and 1, only these teach GRPO anything: elsewhere every advantage is 0.",
            _metric(methods, "groups/mixed", share),
        ),
        (
            "all-right",
            "Groups all right",
            "Prompts that are solved every time.",
            _metric(methods, "groups/all_right", share),
        ),
        (
            "all-wrong",
            "Groups all wrong",
            "Prompts that are never solved.",
            _metric(methods, "groups/all_wrong", share),
        ),
    ]
    return [{"id": i, "title": t, "caption": c, "figure": figure} for i, t, c, figure in wanted if figure]


def _metric(methods: Sequence[MethodRuns], key: str, y: Figure | None = None) -> Figure | None:
    return curve(methods, metric_points(key), y=y)


def describe(figure: Figure) -> str:
    """A figure's last values in words, for those who can't see it: ``GRPO ends at 0.434``."""
    lines = [t for t in figure["data"] if t.get("name") and t["type"] == "scatter" and t["y"]]
    return "; ".join(f"{t['name']} starts at {t['y'][0]:.3g} and ends at {t['y'][-1]:.3g}" for t in lines)
