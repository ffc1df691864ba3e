"""The page: an inspection as one HTML file, with the report's style, figures and reader."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from progrpo.common.files import write_text
from progrpo.inspection import summary
from progrpo.inspection.collapse import means
from progrpo.inspection.inspect import Inspection
from progrpo.inspection.score import Floats, Ints
from progrpo.inspection.summary import rule
from progrpo.inspection.table import read_rows
from progrpo.inspection.values import as_list, as_text, response_of
from progrpo.inspection.what_if import Effect
from progrpo.pages import plots
from progrpo.pages.page import render
from progrpo.pages.responses import GROUPS, Decode, group_view

TEMPLATE = "inspect.html.j2"
MOST_POINTS = 300
"""Of more steps, neighbouring ones are drawn as their mean."""
SCATTERED = 1200
BINS = 25
SHOWN_RESPONSES = 32
"""Responses that the reader shows of a group."""
MOST_CHARACTERS = 20_000

RIGHT, WRONG, PLAIN, CHANGED = "var(--right)", "var(--wrong)", "var(--m-grpo)", "var(--m-progrpo)"
Line = tuple[str, str, Sequence[float] | Floats]
"""Name, colour, and y."""


def write_page(inspection: Inspection, out: Path) -> Path:
    """Write the page as a single HTML file that loads nothing from anywhere.

    Returns:
        ``out``; its folder is made. The file is whole or not there.

    Raises:
        ConfigError: Plotly or Jinja2 is not installed.
    """
    page = render(assemble(inspection), TEMPLATE)
    # JSON may hold half a surrogate pair, of a character that was cut in two, which UTF-8 has no bytes for.
    write_text(out, page.encode("utf-8", "replace").decode("utf-8"))
    return out


def assemble(inspection: Inspection) -> dict[str, Any]:
    """Everything that the page shows, as plain values: what the template and the page's script are given."""
    over_training, effects = training_panels(inspection), what_if_panels(inspection)
    figures = {panel["id"]: panel["figure"] for panel in (*over_training, *effects)}
    single = {"confidence-histogram": confidence_histogram(inspection), "scatter": scatter(inspection)}
    figures |= {name: figure for name, figure in single.items() if figure}
    return {
        "title": inspection.source.name,
        "subtitle": summary.size(inspection),
        "warnings": inspection.warnings,
        "no_warning": summary.no_warning(inspection),
        "rule": rule(inspection.source, inspection.table),
        "no_curves": summary.no_curves(inspection),
        "notes": [note for note in (*inspection.notes, summary.entropy_kind(inspection)) if note],
        "headings": summary.headings(inspection),
        "rows": summary.rows(inspection),
        "over_training": [{key: panel[key] for key in ("id", "title", "caption")} for panel in over_training],
        "what_if": summary.what_if_sentences(inspection),
        "effects": [{key: panel[key] for key in ("id", "title", "caption")} for panel in effects],
        "center": inspection.what_if.settings.center if inspection.what_if else "",
        "figures": figures,
        "descriptions": {name: _describe(figure) for name, figure in figures.items()},
        "reader": reader(inspection),
        "tables": {"measures": measures_table(inspection)},
        "boards": [],
    }


def measures_table(inspection: Inspection) -> dict[str, Any]:
    """The measures by step, unrounded, for a CSV file."""
    found = inspection.collapse
    names = list(found.by_step)
    columns = [[None if np.isnan(value) else float(value) for value in found.by_step[name]] for name in names]
    rows = [[int(step), *values] for step, *values in zip(found.steps, *columns, strict=True)]
    return {"title": f"{inspection.source.name} by step", "header": ["step", *names], "rows": rows}


def training_panels(inspection: Inspection) -> list[dict[str, Any]]:
    """The measures over steps: ``{id, title, caption, figure}``; none with a single step."""
    found = inspection.collapse
    if len(found.steps) < 2:
        return []
    values = found.by_step
    share = {"tickformat": ".0%", "range": [0, 1]}

    def named(*lines: tuple[str, str, str]) -> list[Line]:
        return [(title, colour, values[name]) for title, colour, name in lines if not np.isnan(values[name]).all()]

    corrections = _corrections_by_step(inspection)
    largest = [name for name in values if name.startswith("pass@") and name != "pass@1"][-1:]
    wanted: list[tuple[str, str, str, list[Line], dict[str, Any]]] = [
        ("reward", "Reward", "Mean over judged responses.", named(("reward", PLAIN, "reward")), {}),
        (
            "entropy",
            "Entropy",
            "Nats a token. A policy that stops exploring falls towards 0.",
            named(("entropy", PLAIN, "entropy")),
            {},
        ),
        (
            "groups",
            "Groups by their responses",
            "Where all responses have the same reward, every advantage of GRPO is 0.",
            named(
                ("all right", RIGHT, "groups/all_right"),
                ("mixed", PLAIN, "groups/mixed"),
                ("all wrong", WRONG, "groups/all_wrong"),
                ("one reward for all", CHANGED, "groups/same_reward"),
            ),
            share,
        ),
        (
            "pass-at-k",
            "pass@k",
            "The chance that one of k responses is right, unbiased. It falls for a large k where a policy collapses, "
            "while it rises for k = 1.",
            named(("pass@1", PLAIN, "pass@1"), *((name, CHANGED, name) for name in largest)),
            share,
        ),
        (
            "distinct",
            "Different answers in a group",
            "Of all judged responses, and of the right ones.",
            named(("all", PLAIN, "distinct_answers"), ("right", RIGHT, "distinct_solutions")),
            {},
        ),
        (
            "confidence",
            "Confidence c(o|q) of answers",
            "How likely the policy finds the least likely tokens of its own answers.",
            named(("right", RIGHT, "confidence/right"), ("wrong", WRONG, "confidence/wrong")),
            {},
        ),
        (
            "prompt-confidence",
            "Confidence of prompts c(q)",
            "1 / perplexity of the prompt. ProGRPO holds c(o|q) against it.",
            named(("c(q)", PLAIN, "confidence/prompt")),
            {},
        ),
        (
            "correction",
            "What ProGRPO would have added",
            "Mean correction Ã − A of the responses of a step.",
            [("correction", CHANGED, corrections)] if corrections is not None else [],
            {"rangemode": "normal"},
        ),
        (
            "repetition",
            "Repetition",
            "The share of its group that the commonest answer makes up, and of responses that repeat another word for "
            "word.",
            named(("commonest answer", PLAIN, "commonest_answer"), ("duplicates", CHANGED, "duplicates")),
            share,
        ),
        (
            "length",
            "Length",
            f"Mean, in {summary.length_unit(inspection)}.",
            named(("length", PLAIN, "length")),
            {},
        ),
    ]
    return [
        {"id": i, "title": title, "caption": caption, "figure": lines_figure(found.steps, lines, "step", y=axis)}
        for i, title, caption, lines, axis in wanted
        if lines
    ]


def _corrections_by_step(inspection: Inspection) -> Floats | None:
    """The mean of A~ - A at each step, (S,); None where it can't be known."""
    found, steps = inspection.what_if, inspection.collapse.steps
    if found is None:
        return None
    place_B = np.searchsorted(steps, inspection.table.steps_B[found.rows_B])
    return means(found.progrpo_B - found.grpo_B, place_B, len(steps))


def what_if_panels(inspection: Inspection) -> list[dict[str, Any]]:
    """The effect of alpha and of low_prob_fraction: ``{id, title, caption, figure}``."""
    found = inspection.what_if
    if found is None:
        return []
    settings = found.settings
    panels = []
    for name, effects, at in (
        ("alpha", found.by_alpha, f"low_prob_fraction={settings.low_prob_fraction:g}"),
        ("low_prob_fraction", found.by_fraction, f"alpha={settings.alpha:g}"),
    ):
        chosen = getattr(settings, name)
        size: list[Line] = [
            ("size", CHANGED, _curve(effects, "size")),
            ("mean", PLAIN, _curve(effects, "shift")),
        ]
        order: list[Line] = [
            ("told apart", PLAIN, _curve(effects, "ordered")),
            ("reversed", WRONG, _curve(effects, "reversed")),
            ("new best", RIGHT, _curve(effects, "new_best")),
            ("sign", CHANGED, _curve(effects, "flipped")),
        ]
        panels.append(
            {
                "id": f"{name}-size",
                "title": f"Correction against {name}",
                "caption": f"Mean of Ã − A and of its size, at {at}. The dotted line is at {name}={chosen:g}.",
                "figure": lines_figure(list(effects), size, name, markers=True, mark=chosen, y={"rangemode": "normal"}),
            }
        )
        panels.append(
            {
                "id": f"{name}-order",
                "title": f"Ranks and signs against {name}",
                "caption": f"At {at}. Pairs alike to GRPO that are told apart, pairs reversed, groups with a new best "
                "response, responses that change their sign.",
                "figure": lines_figure(list(effects), order, name, markers=True, mark=chosen, y={"tickformat": ".0%"}),
            }
        )
    return panels


def _describe(figure: plots.Figure) -> str:
    """Lines in words, for those who can't see them."""
    lines = [trace for trace in figure["data"] if "lines" in trace.get("mode", "")]
    return plots.describe({"data": [line | {"y": [y for y in line["y"] if y is not None]} for line in lines]})


def _curve(effects: dict[float, Effect], name: str) -> list[float]:
    return [getattr(effect, name) for effect in effects.values()]


def lines_figure(
    x: Sequence[float] | Ints,
    lines: Sequence[Line],
    x_title: str,
    *,
    markers: bool = False,
    mark: float | None = None,
    y: dict[str, Any] | None = None,
) -> plots.Figure:
    """Lines over x, with a legend where there are several; ``mark`` draws an upright line."""
    data = []
    for name, colour, values in lines:
        xs, ys = thinned(np.asarray(x, dtype=np.float64), np.asarray(values, dtype=np.float64))
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if markers or len(xs) < 12 else "lines",
                "name": name,
                "x": xs,
                "y": ys,
                "line": {"color": colour, "width": 2.5},
                "marker": {"color": colour, "size": 6},
                "hovertemplate": "%{y:.3f}" if y is None or "tickformat" not in y else "%{y:.1%}",
            }
        )
    more: dict[str, Any] = {}
    if len(lines) > 1:
        legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}}
        more = {"showlegend": True, "legend": legend, "margin": {"l": 40, "r": 12, "t": 44, "b": 36}}
    if mark is not None:
        line = {"color": "var(--soft)", "width": 1, "dash": "dot"}
        more["shapes"] = [{"type": "line", "x0": mark, "x1": mark, "y0": 0, "y1": 1, "yref": "paper", "line": line}]
    x_axis = {"title": {"text": x_title, "standoff": 4}}
    return {"data": data, "layout": plots.layout(height=240, x=x_axis, y=y, **more)}


def thinned(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> tuple[list[float], list[float | None]]:
    """Points to draw: at most :data:`MOST_POINTS`, each the mean of so many neighbours; None where nothing is known.

    >>> thinned(np.array([1.0, 2.0]), np.array([0.5, np.nan]))
    ([1, 2], [0.5, None])
    """
    every = -(-len(x) // MOST_POINTS)
    xs, ys = [], []
    for start in range(0, len(x), every):
        known = y[start : start + every]
        known = known[~np.isnan(known)]
        place = float(x[start : start + every].mean())
        xs.append(int(place) if place.is_integer() else place)
        ys.append(round(float(known.mean()), 5) if len(known) else None)
    return xs, ys


def confidence_histogram(inspection: Inspection) -> plots.Figure | None:
    """How c(o|q) is spread over right and over wrong responses; None where it is not known."""
    table = inspection.table
    c_o_B = table.c_o_B(inspection.settings.low_prob_fraction)
    edges = np.linspace(0, 1, BINS + 1)
    data = []
    for name, colour, chosen_B in (
        ("right", RIGHT, table.right_B),
        ("wrong", WRONG, table.wrong_B),
    ):
        values = c_o_B[chosen_B & ~np.isnan(c_o_B)]
        if len(values):
            counts, _ = np.histogram(values, edges)
            data.append(
                {
                    "type": "bar",
                    "name": name,
                    "x": ((edges[1:] + edges[:-1]) / 2).round(3).tolist(),
                    "y": (counts / len(values)).round(5).tolist(),
                    "marker": {"color": colour},
                    "hovertemplate": "%{y:.1%}",
                }
            )
    if not data:
        return None
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    x = {"title": {"text": "c(o|q)", "standoff": 4}, "range": [0, 1]}
    more = {"showlegend": True, "legend": legend, "bargap": 0.1, "margin": {"l": 40, "r": 12, "t": 44, "b": 36}}
    return {"data": data, "layout": plots.layout(height=280, x=x, y={"tickformat": ".0%"}, **more)}


def scatter(inspection: Inspection) -> plots.Figure | None:
    """A and A~ of a sample of responses against c(o|q); None where that can't be known."""
    found, table = inspection.what_if, inspection.table
    if found is None:
        return None
    c_o_B = table.c_o_B(inspection.settings.low_prob_fraction)[found.rows_B]
    known = np.flatnonzero(~np.isnan(c_o_B) & table.known_B[found.rows_B])
    if len(known) > SCATTERED:
        known = np.sort(np.random.default_rng(0).choice(known, SCATTERED, replace=False))
    right = table.right_B[found.rows_B[known]]
    data = []
    for name, colour, symbol, chosen in (("right", RIGHT, "circle", right), ("wrong", WRONG, "x", ~right)):
        rows = known[chosen]
        steps = table.steps_B[found.rows_B[rows]]
        texts = [
            f"step {step}: A {grpo:.3f}, Ã {progrpo:.3f}"
            for step, grpo, progrpo in zip(steps, found.grpo_B[rows], found.progrpo_B[rows], strict=True)
        ]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [round(float(value), 4) for value in c_o_B[rows]],
                "y": [round(float(value), 4) for value in found.progrpo_B[rows] - found.grpo_B[rows]],
                "text": [text.replace("-", "−") for text in texts],
                "marker": {"color": colour, "symbol": symbol, "size": 6, "opacity": 0.6},
                "hovertemplate": "%{text}<br>c(o|q) %{x:.3f}, correction %{y:+.3f}",
            }
        )
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    x = {"title": {"text": "c(o|q)", "standoff": 4}, "range": [-0.02, 1.02], "showgrid": True}
    y = {"title": {"text": "correction"}, "zeroline": True, "zerolinecolor": "var(--rule)", "rangemode": "normal"}
    more = {"showlegend": True, "legend": legend, "margin": {"l": 40, "r": 12, "t": 44, "b": 36}}
    return {"data": data, "layout": plots.layout(height=340, x=x, y=y, hovermode="closest", **more)}


def reader(inspection: Inspection) -> list[dict[str, Any]]:
    """A few groups of the first and of the last step to read, mixed ones first, as the report's reader takes them."""
    table = inspection.table
    # With a model's log-probs for a sample of groups, the reader shows groups of the sample.
    rows_B = np.array(sorted(inspection.scored), dtype=np.int64) if inspection.scored else np.arange(table.size)
    steps = np.unique(table.steps_B[rows_B])
    places = [int(steps[0])] if len(steps) == 1 else [int(steps[0]), int(steps[-1])]
    chosen = {step: _choose_groups(inspection, rows_B[table.steps_B[rows_B] == step]) for step in places}
    raw = read_rows(inspection.source, [row for groups in chosen.values() for rows in groups for row in rows])
    decode = inspection.decode or _run_decoder(inspection)
    views = [
        {"step": step, "groups": [_group(inspection, rows, raw, decode) for rows in groups]}
        for step, groups in chosen.items()
    ]
    return [{"name": "rollouts", "title": "Rollouts", "seed": None, "steps": views}]


def _choose_groups(inspection: Inspection, rows: Ints) -> list[list[int]]:
    """The responses of up to six groups, mixed groups first and then in the order of the file."""
    table = inspection.table
    groups, index = np.unique(table.groups_B[rows], return_inverse=True)
    right = np.bincount(index, weights=table.right_B[rows])
    wrong = np.bincount(index, weights=table.wrong_B[rows])
    mixed_first = np.argsort(~((right > 0) & (wrong > 0)), kind="stable")[:GROUPS]
    return [rows[table.groups_B[rows] == group][:SHOWN_RESPONSES].tolist() for group in groups[mixed_first]]


def _group(
    inspection: Inspection, rows: list[int], raw: dict[int, dict[str, Any]], decode: Decode | None
) -> dict[str, Any]:
    """One group as the report's reader shows it."""
    table, columns, found = inspection.table, inspection.source.columns, inspection.what_if
    c_o_B = table.c_o_B(inspection.settings.low_prob_fraction)
    words: dict[str, int] = {}
    shown = []
    for row in rows:
        text = response_of(raw[row][columns.response])[:MOST_CHARACTERS]
        scored = inspection.scored.get(row)
        ids = scored.token_ids if scored else as_list(raw[row][columns.token_ids]) if columns.token_ids else None
        logps = as_list(raw[row][columns.logps]) if columns.logps else scored.logps if scored else []
        if decode is None or ids is None:
            # Words in the place of tokens: with their numbers, and nothing known of their probability.
            pieces = re.findall(r"\S+\s*|\s+", text)
            ids, logps = [words.setdefault(piece, len(words)) for piece in pieces], []
        place = np.searchsorted(found.rows_B, row) if found is not None else 0
        corrected = found is not None and place < len(found.rows_B) and found.rows_B[place] == row
        before, after = (
            (float(found.grpo_B[place]), float(found.progrpo_B[place])) if found and corrected else (None, None)
        )
        shown.append(
            {
                "prompt": as_text(raw[row][columns.prompt])[:MOST_CHARACTERS],
                "text": text,
                "token_ids": ids,
                "logps": logps,
                "canonical": str(table.answers_B[row]),
                "reward": float(table.rewards_B[row]),
                "prompt_confidence": float(table.c_q_B[row]),
                "answer_confidence": float(c_o_B[row]),
                "grpo_advantage": before,
                "correction": None if before is None or after is None else after - before,
                "advantage": after,
            }
        )
    spelled = list(words)
    by_word: Callable[[int], str] = spelled.__getitem__
    fraction = inspection.settings.low_prob_fraction
    return group_view(shown, by_word if words or decode is None else decode, fraction)


def _run_decoder(inspection: Inspection) -> Decode | None:
    """The tokenizer of a run of progrpo, if it is one and its tokenizer is on this machine."""
    from progrpo.pages.collect import collect
    from progrpo.pages.responses import token_decoder
    from progrpo.runs.folder import RunFolder

    folder = RunFolder(inspection.source.files[0].path.resolve().parent.parent)
    if not folder.recipe_file.exists():
        return None
    return token_decoder(collect([folder])[0].runs[0])
