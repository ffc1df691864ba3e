"""Does confidence go with being right? The final evaluation's c(o|q) against its verdicts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from progrpo.evaluation.intervals import bootstrap_counts
from progrpo.evaluation.separation import auroc_within_problems, pooled_auroc
from progrpo.pages.collect import Group
from progrpo.pages.figures import AXIS, INK, PERCENT, SOFT, Figure, figure, mark, plain, rounded, series, whiskers
from progrpo.pages.measures import numbers
from progrpo.pages.summary import joined

RowsByGroup = list[tuple[Group, pd.DataFrame]]
BINS = 25
TENTHS = 10
MOST_POINTS = 2_000
"""Points of a group in the scatter; more of them hide each other, and the page becomes slow."""
RESAMPLES = 2_000
MEANINGS = (
    "confidence goes with being right",
    "the more confident response is more often wrong",
    "the interval contains 50 %: no clear connection",
)


def rows_by_group(groups: Sequence[Group], responses: pd.DataFrame) -> RowsByGroup:
    """Each group with its judged responses whose c(o|q) is known; groups without such responses are left out."""
    judged = responses["status"].isin(["correct", "incorrect"]) & responses["answer_confidence"].notna()
    known = responses[judged].assign(right=responses["status"] == "correct")
    by_group = [(group, known[known["group"] == i]) for i, group in enumerate(groups)]
    return [(group, rows) for group, rows in by_group if len(rows)]


def separations(by_group: RowsByGroup) -> list[dict[str, Any]]:
    """How well c(o|q) tells right from wrong in each group, and its means."""
    results = []
    for group, rows in by_group:
        scores, right, problems = rows["answer_confidence"].to_numpy(), rows["right"].to_numpy(), rows["problem_id"]
        within, mixed = auroc_within_problems(scores, right, problems, rows["run"]) or (None, 0)
        means = rows.groupby("right")["answer_confidence"].mean()
        results.append(
            {"title": group.title, "name": group.name, "responses": len(rows), "within": within, "mixed": mixed}
            | {"pooled": pooled_auroc(scores, right, problems), "right": means.get(True), "wrong": means.get(False)}
        )
    return results


def table(separated: Sequence[dict[str, Any]], on_benchmark: str) -> dict[str, Any]:
    """The :func:`separations` for a CSV file."""
    areas = [
        f"auroc {over}{end}" for over in ("within problems", "over all responses") for end in ("", " low", " high")
    ]
    header = ["title", "responses", "problems with right and wrong", *areas, "mean c(o|q) right", "mean c(o|q) wrong"]
    rows = []
    for row in separated:
        intervals = [*numbers(row["within"]), *numbers(row["pooled"])]
        rows.append([row["title"], row["responses"], row["mixed"], *intervals, row["right"], row["wrong"]])
    return {"title": f"confidence and being right{on_benchmark}", "header": header, "rows": rows}


def sentences(separated: Sequence[dict[str, Any]]) -> list[str]:
    """What the :func:`separations` within problems say, and over how many problems they are."""
    shares = []
    titles: dict[str, list[str]] = {meaning: [] for meaning in MEANINGS}
    for row in separated:
        if (value := row["within"]) is not None:
            share = f"{value.mean:.0%} [{value.low:.0%}, {value.high:.0%}]".replace("%", " %")
            problems = "one problem that has" if row["mixed"] == 1 else f"{row['mixed']} problems that have"
            shares.append(f"{row['title']} {share}, on the {problems} both")
            titles[MEANINGS[0 if value.low > 0.5 else 1 if value.high < 0.5 else 2]].append(row["title"])
    if not shares:
        return ["No problem has both right and wrong responses, so there is nothing that c(o|q) could tell apart."]
    return [
        "Of a right and a wrong response to the same problem, how often does the right one have the higher c(o|q)?",
        f"{'; '.join(shares)}. Chance would be 50 %.",
        *(f"For {joined(methods)}, {meaning}." for meaning, methods in titles.items() if methods),
    ]


def share_right_figure(by_group: RowsByGroup) -> Figure | None:
    """The share of right responses in each tenth of a group's responses by c(o|q), against the tenth's mean c(o|q)."""
    data = []
    for group, rows in by_group:
        x, y, low, high = tenths(rows)
        look, hover = mark(group.name), "c(o|q) %{x:.2f}: %{y:.0%} right"
        error = whiskers(y, low, high, look.colour)
        data.append(series("lines+markers", x, y, look, name=group.title, hover=hover, error_y=error))
    title, yaxis = "c(o|q), mean of a tenth of the responses", PERCENT | {"range": [-0.03, 1.03]}
    return figure(data, title, "right", yaxis=yaxis, height=320, hovermode="closest")


def tenths(rows: pd.DataFrame) -> tuple[NDArray[np.float64], ...]:
    """Mean c(o|q), share right, and the ends of its 95 % interval in each tenth of the responses by c(o|q).

    Problems are resampled with all their responses. Equal scores stay in one part, so there may be fewer than ten.
    """
    scores = rows["answer_confidence"]
    part = np.searchsorted(np.unique(np.quantile(scores, np.arange(1, TENTHS) / TENTHS)), scores)
    counts = rows.groupby(["problem_id", part])["right"].agg(["size", "sum"]).unstack(fill_value=0)
    all_PD, right_PD = counts["size"].to_numpy(), counts["sum"].to_numpy()
    drawn = bootstrap_counts(len(counts), 0, RESAMPLES)
    with np.errstate(invalid="ignore"):
        low, high = np.nanpercentile((drawn @ right_PD) / (drawn @ all_PD), [2.5, 97.5], axis=0)
    return scores.groupby(part).mean().to_numpy(), right_PD.sum(axis=0) / all_PD.sum(axis=0), low, high


def spread_figure(by_group: RowsByGroup) -> Figure | None:
    """How c(o|q) is spread: one row per group, right responses upwards, wrong ones downwards, as shares of all."""
    edges = np.linspace(0, 1, BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    height, most = 1 / max(1, len(by_group)), 0.0
    data, notes = [], []
    layout: dict[str, Any] = {"barmode": "relative", "height": 60 + 170 * len(by_group), "bargap": 0.08}
    for i, (group, rows) in enumerate(by_group):
        right, scores = rows["right"].to_numpy(), rows["answer_confidence"].to_numpy()
        top, number = 1 - i * height, str(i + 1) if i else ""
        layout[f"yaxis{number}"] = {"domain": [top - height * 0.86, top - height * 0.12]}
        share = f"{plain(group.title)}: {right.mean():.0%} right".replace("%", " %")
        place = {"x": 0, "xanchor": "left", "y": top, "yref": "paper", "yanchor": "top"}
        notes.append(place | {"text": share, "font": {"color": INK, "size": 13}})
        for verdict, chosen, sign, arrow in (("right", right, 1, "↑"), ("wrong", ~right, -1, "↓")):
            colour, name = f"var(--{verdict})", f"{group.title}, {verdict}"
            shares = np.histogram(scores[chosen], edges)[0] / len(rows)
            most = max(most, float(shares.max()))
            options: dict[str, Any] = {"hover": "%{customdata:.1%} of all responses", "customdata": rounded(shares)}
            data.append(series("bars", centres, sign * shares, colour, name=name, yaxis=f"y{number}", **options))
            place = {"x": 1, "xanchor": "right", "y": 0.5 + 0.45 * sign, "yref": f"y{number} domain"}
            place |= {"yanchor": "top" if sign > 0 else "bottom"}
            notes.append(place | {"text": f"{arrow} {verdict}", "font": {"color": colour}})
    yaxis = {"showticklabels": False, "range": [-1.1 * most, 1.1 * most], "rangemode": "normal", "showgrid": False}
    yaxis = AXIS | yaxis | {"zeroline": True, "zerolinecolor": SOFT}
    layout |= {name: yaxis | own for name, own in layout.items() if name.startswith("yaxis")}
    layout["annotations"] = [note | {"xref": "paper", "showarrow": False} for note in notes]
    xaxis = {"range": [0, 1], "anchor": "free", "position": 0}
    return figure(data, "c(o|q)", xaxis=xaxis, hovermode="closest", **layout)


def problems_figure(by_group: RowsByGroup) -> Figure | None:
    """One point per problem: the mean c(o|q) of its responses, and the share of them that are right."""
    data = []
    for group, rows in by_group:
        by_problem = rows.groupby("problem_id", sort=False)
        means = by_problem.agg(x=("answer_confidence", "mean"), y=("right", "mean")).head(MOST_POINTS)
        ids, hover = [str(problem) for problem in means.index], "%{text}: c(o|q) %{x:.2f}, %{y:.0%} right"
        options: dict[str, Any] = {"name": group.title, "customdata": ids, "text": [plain(problem) for problem in ids]}
        marker = {"size": 7, "opacity": 0.55}
        data.append(series("markers", means["x"], means["y"], mark(group.name), marker=marker, hover=hover, **options))
    title, yaxis = "mean c(o|q) of a problem's responses", PERCENT | {"range": [-0.04, 1.04]}
    return figure(data, title, "share of them right", yaxis=yaxis, height=320, hovermode="closest")
