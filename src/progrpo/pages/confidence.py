"""Does confidence go with being right: the final evaluation's c(o|q) against its verdicts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from progrpo.evaluation.intervals import Estimate
from progrpo.evaluation.separation import auroc_within_problems, pooled_auroc
from progrpo.pages.collect import Group
from progrpo.pages.plots import Figure, colour, layout, plain, symbol

if TYPE_CHECKING:
    import pandas as pd

BINS = 25
TENTHS = 10
MOST_POINTS = 2_000
"""Points of a group in the scatter; more of them hide each other, and the page becomes slow."""
RESAMPLES = 2_000


def known(responses: "pd.DataFrame") -> "pd.DataFrame":
    """The judged responses whose c(o|q) is known."""
    judged = responses["status"].isin(["correct", "incorrect"]) & responses["answer_confidence"].notna()
    rows = responses[judged]
    return rows.assign(right=rows["status"] == "correct")


def separations(groups: Sequence[Group], responses: "pd.DataFrame") -> list[dict[str, Any]]:
    """For each group with kept responses: how well c(o|q) tells right from wrong, and its means.

    Args:
        responses: the table of :func:`progrpo.pages.problems.read_responses`.
    """
    rows = []
    told = known(responses)
    for i, group in enumerate(groups):
        of_group = told[told["group"] == i]
        if of_group.empty:
            continue
        scores, right = of_group["answer_confidence"].to_numpy(), of_group["right"].to_numpy()
        within = auroc_within_problems(scores, right, of_group["problem_id"], of_group["run"])
        rows.append(
            {
                "title": group.title,
                "name": group.name,
                "responses": len(of_group),
                "within": within[0] if within else None,
                "mixed": within[1] if within else 0,
                "pooled": pooled_auroc(scores, right, of_group["problem_id"]),
                "right": float(scores[right].mean()) if right.any() else None,
                "wrong": float(scores[~right].mean()) if not right.all() else None,
            }
        )
    return rows


def sentences(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the separations within problems say, and of how many problems."""
    known_rows = [row for row in rows if row["within"] is not None]
    if not known_rows:
        return ["No problem has both right and wrong responses, so c(o|q) has nothing to tell apart."]
    each = "; ".join(f"{row['title']} {_share(row['within'])}, on {_problems(row['mixed'])}" for row in known_rows)
    told = ["Of a right and a wrong response to the same problem, how often has the right one the higher c(o|q)?"]
    told.append(f"{each}. Chance would be 50 %.")
    words = {"above": "confidence goes with being right", "below": "the more confident response is more often wrong"}
    for direction, meaning in words.items():
        titles = [row["title"] for row in known_rows if _direction(row["within"]) == direction]
        if titles:
            told.append(f"For {' and '.join(titles)}, {meaning}.")
    unclear = [row["title"] for row in known_rows if _direction(row["within"]) == "unclear"]
    if unclear:
        told.append(f"For {' and '.join(unclear)}, the interval holds 50 %: no clear connection.")
    return told


def _direction(value: Estimate) -> str:
    if value.low > 0.5:
        return "above"
    return "below" if value.high < 0.5 else "unclear"


def _share(value: Estimate) -> str:
    return f"{value.mean:.0%} [{value.low:.0%}, {value.high:.0%}]".replace("%", " %")


def _problems(count: int) -> str:
    return "the one problem that has both" if count == 1 else f"the {count} problems that have both"


def figures(groups: Sequence[Group], responses: "pd.DataFrame") -> dict[str, Figure]:
    """``confidence-share``, ``confidence-spread`` and ``confidence-problems``; nothing where no c(o|q) is known."""
    told = known(responses)
    by_group = [(group, told[told["group"] == i]) for i, group in enumerate(groups)]
    by_group = [(group, rows) for group, rows in by_group if len(rows)]
    if not by_group:
        return {}
    return {
        "confidence-share": share_right_figure(by_group),
        "confidence-spread": spread_figure(by_group),
        "confidence-problems": problems_figure(by_group),
    }


def share_right_figure(by_group: Sequence[tuple[Group, "pd.DataFrame"]]) -> Figure:
    """The share of right responses in each tenth of a group's responses by c(o|q), against the tenth's mean c(o|q)."""
    data = []
    for group, rows in by_group:
        x, y, low, high = tenths(rows)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(group.title),
                "x": _rounded(x),
                "y": _rounded(y),
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": _rounded(high - y),
                    "arrayminus": _rounded(y - low),
                    "thickness": 1.5,
                    "width": 3,
                    "color": colour(group.name),
                },
                "line": {"color": colour(group.name), "width": 2},
                "marker": {"symbol": symbol(group.name), "size": 8, "color": colour(group.name)},
                "hovertemplate": "c(o|q) %{x:.2f}: %{y:.0%} right",
            }
        )
    y_axis = {"tickformat": ".0%", "range": [-0.03, 1.03], "title": {"text": "right"}}
    x_axis = {"title": {"text": "c(o|q), mean of a tenth of the responses", "standoff": 4}}
    return {"data": data, "layout": layout(height=320, x=x_axis, y=y_axis, hovermode="closest")}


def tenths(rows: "pd.DataFrame") -> tuple[NDArray[np.float64], ...]:
    """Mean c(o|q), share right, and its 95 % interval in each tenth; problems are drawn anew with all their responses.

    Equal scores stay in one part: there may be fewer than ten.
    """
    scores, right = rows["answer_confidence"].to_numpy(), rows["right"].to_numpy()
    edges = np.unique(np.quantile(scores, np.arange(1, TENTHS) / TENTHS))
    _, part = np.unique(np.searchsorted(edges, scores, side="left"), return_inverse=True)
    problem = np.unique(rows["problem_id"].to_numpy(dtype=str), return_inverse=True)[1]
    size = (int(problem.max()) + 1, int(part.max()) + 1)
    all_PD, right_PD = np.zeros(size), np.zeros(size)
    np.add.at(all_PD, (problem, part), 1)
    np.add.at(right_PD, (problem, part), right)
    drawn = np.random.default_rng(0).multinomial(size[0], np.full(size[0], 1 / size[0]), size=RESAMPLES)
    with np.errstate(invalid="ignore"):
        low, high = np.nanpercentile((drawn @ right_PD) / (drawn @ all_PD), [2.5, 97.5], axis=0)
    means = np.bincount(part, weights=scores) / np.bincount(part)
    return means, right_PD.sum(axis=0) / all_PD.sum(axis=0), low, high


def spread_figure(by_group: Sequence[tuple[Group, "pd.DataFrame"]]) -> Figure:
    """How c(o|q) is spread: a row a group, right responses upwards and wrong ones downwards, in shares of all."""
    edges = np.linspace(0, 1, BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    data: list[Figure] = []
    axes: Figure = {}
    notes: list[Figure] = []
    height = 1 / len(by_group)
    most = 0.0
    for i, (group, rows) in enumerate(by_group):
        right, scores = rows["right"].to_numpy(), rows["answer_confidence"].to_numpy()
        axis = "y" if i == 0 else f"y{i + 1}"
        for verdict, of_verdict, sign in (("right", right, 1), ("wrong", ~right, -1)):
            shares = np.histogram(scores[of_verdict], edges)[0] / len(rows)
            most = max(most, float(shares.max()))
            data.append(
                {
                    "type": "bar",
                    "name": f"{plain(group.title)}, {verdict}",
                    "x": _rounded(centres),
                    "y": _rounded(sign * shares),
                    "yaxis": axis,
                    "marker": {"color": f"var(--{verdict})"},
                    "customdata": _rounded(shares),
                    "hovertemplate": "%{customdata:.1%} of all responses",
                }
            )
        top = 1 - i * height
        axes["yaxis" if i == 0 else f"yaxis{i + 1}"] = {"domain": [top - height * 0.86, top - height * 0.12]}
        words = f"{plain(group.title)}: {right.mean():.0%} right".replace("%", " %")
        place = {"xref": "paper", "yref": "paper", "x": 0, "xanchor": "left", "y": top, "yanchor": "top"}
        notes.append(place | {"text": words, "showarrow": False, "font": {"color": "var(--ink)", "size": 13}})
        for verdict, y, anchor in (("↑ right", 0.9, "top"), ("↓ wrong", -0.9, "bottom")):
            side = {"xref": "paper", "yref": f"{axis} domain", "x": 1, "xanchor": "right", "y": (1 + y) / 2}
            font = {"color": f"var(--{verdict[2:]})"}
            notes.append(side | {"yanchor": anchor, "text": verdict, "showarrow": False, "font": font})
    base = layout(height=60 + 170 * len(by_group), hovermode="closest", barmode="relative", bargap=0.08)
    for name, axis in axes.items():
        ticks = {"showticklabels": False, "range": [-1.1 * most, 1.1 * most], "rangemode": "normal", "zeroline": True}
        axes[name] = base["yaxis"] | axis | ticks | {"zerolinecolor": "var(--soft)", "showgrid": False}
    x = {"title": {"text": "c(o|q)", "standoff": 4}, "range": [0, 1], "anchor": "free", "position": 0}
    return {"data": data, "layout": base | axes | {"xaxis": base["xaxis"] | x, "annotations": notes}}


def problems_figure(by_group: Sequence[tuple[Group, "pd.DataFrame"]]) -> Figure:
    """A point a problem: the mean c(o|q) of its responses, and how many of them are right."""
    data = []
    for group, rows in by_group:
        by_problem = rows.groupby("problem_id", sort=False)
        points = by_problem.agg(x=("answer_confidence", "mean"), y=("right", "mean")).head(MOST_POINTS)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(group.title),
                "x": _rounded(points["x"].to_numpy()),
                "y": _rounded(points["y"].to_numpy()),
                "text": [plain(str(problem)) for problem in points.index],
                "customdata": [str(problem) for problem in points.index],
                "marker": {"symbol": symbol(group.name), "size": 7, "opacity": 0.55, "color": colour(group.name)},
                "hovertemplate": "%{text}: c(o|q) %{x:.2f}, %{y:.0%} right",
            }
        )
    y_axis = {"tickformat": ".0%", "range": [-0.04, 1.04], "title": {"text": "of its responses right"}}
    x_axis = {"title": {"text": "mean c(o|q) of a problem's responses", "standoff": 4}}
    return {"data": data, "layout": layout(height=320, x=x_axis, y=y_axis, hovermode="closest")}


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 5) for value in values]
