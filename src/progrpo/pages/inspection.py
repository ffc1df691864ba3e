"""The page of an inspection: other people's rollouts in the report's style, with its figures and its reader."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from progrpo.inspection import summary
from progrpo.inspection.collapse import means
from progrpo.inspection.inspect import Inspection
from progrpo.inspection.table import read_rows
from progrpo.inspection.values import as_list, as_text, response_of
from progrpo.pages.figures import PERCENT, RIGHT, WRONG, Figure, Panel, figure, mark, series, upright
from progrpo.pages.page import write_html
from progrpo.pages.responses import GROUPS, Decode, decoder_from, finite, group_view
from progrpo.runs.folder import RunFolder

MOST_POINTS = 300
"""If there are more steps, neighbouring ones are drawn as their mean."""
FEW_POINTS = 12
"""Below this number, the points of a line are marked."""
SCATTERED = 1200
BINS = 25
SHOWN_RESPONSES = 32
"""The most responses of a group that the reader shows."""
MOST_CHARACTERS = 20_000

PLAIN, CHANGED = mark("grpo").colour, mark("progrpo").colour
PANELS = {
    "reward": ("Reward", "The mean over judged responses."),
    "entropy": ("Entropy", "In nats per token. It nears 0 when exploration stops."),
    "groups": ("Groups by their responses", "If all rewards of a group are equal, its advantages in GRPO are 0."),
    "pass-at-k": ("pass@k", "Unbiased. In a collapse, pass@k falls at a large k while it rises at k = 1."),
    "distinct": ("Different answers in a group", "Among all judged responses, and among the right ones."),
    "confidence": ("Confidence c(o|q) of answers", "How likely the policy finds its own least likely tokens."),
    "prompt-confidence": ("Confidence of prompts c(q)", "1 / perplexity. ProGRPO compares c(o|q) with it."),
    "correction": ("What ProGRPO would have added", "The mean correction Ã − A of a step's responses."),
    "repetition": (
        "Repetition",
        "The most common answer's share of its group; the share of texts that repeat another.",
    ),
    "length": ("Length", "The mean, in {unit}."),
}
EFFECTS = {
    "size": (
        "Correction against {name}",
        "Mean of Ã − A and of its size, at {other}. The dotted line is at {name}={chosen:g}.",
    ),
    "order": (
        "Ranks and signs against {name}",
        "At {other}: pairs that GRPO treats alike and ProGRPO tells apart, pairs whose order is reversed, groups with "
        "a new best response, and responses whose advantage changes its sign.",
    ),
}
"""The panels of each setting of ProGRPO: the title and the caption."""
LINES = {
    "groups": [
        *(("all right", RIGHT, "groups/all_right"), ("mixed", PLAIN, "groups/mixed")),
        *(("all wrong", WRONG, "groups/all_wrong"), ("one reward for all", CHANGED, "groups/same_reward")),
    ],
    "pass-at-k": [("pass@1", PLAIN, "pass@1")],
    "distinct": [("all", PLAIN, "distinct_answers"), ("right", RIGHT, "distinct_solutions")],
    "confidence": [("right", RIGHT, "confidence/right"), ("wrong", WRONG, "confidence/wrong")],
    "prompt-confidence": [("c(q)", PLAIN, "confidence/prompt")],
    "correction": [("correction", CHANGED, "correction")],
    "repetition": [("most common answer", PLAIN, "most_common_answer"), ("duplicates", CHANGED, "duplicates")],
    "size": [("size", CHANGED, "size"), ("mean", PLAIN, "shift")],
    "order": [
        *(("told apart", PLAIN, "ordered"), ("reversed", WRONG, "reversed")),
        *(("new best", RIGHT, "new_best"), ("sign", CHANGED, "flipped")),
    ],
}
"""The lines of a panel: a name, a colour, and a measure of the responses or of the effect of ProGRPO. Other panels
have one line, which has the panel's name."""
Y_AXES: dict[str, Any] = dict.fromkeys(("groups", "pass-at-k", "repetition"), PERCENT | {"range": [0, 1]})
Y_AXES |= {"order": PERCENT, "correction": {"rangemode": "normal"}, "size": {"rangemode": "normal"}}


def write_page(inspection: Inspection, out: Path) -> Path:
    """Write the page as a single HTML file, as :func:`progrpo.pages.page.write_html` does, and return ``out``."""
    return write_html(out, "inspect.html.j2", assemble(inspection))


def assemble(inspection: Inspection) -> dict[str, Any]:
    """Everything that the page shows, as plain values for the template and the page's script."""
    over_training, effects = training_panels(inspection), what_if_panels(inspection)
    drawn = {panel.id: panel.figure for panel in (*over_training, *effects)}
    drawn |= {"confidence-histogram": confidence_histogram(inspection), "scatter": scatter(inspection)}
    steps, by_step = inspection.collapse.steps, inspection.collapse.by_step
    rows = [[int(step), *map(finite, row)] for step, *row in zip(steps, *by_step.values(), strict=True)]
    csv = {"title": f"{inspection.source.name} by step", "header": ["step", *by_step], "rows": rows}
    return {
        "title": inspection.source.name,
        "subtitle": summary.size(inspection),
        "warnings": inspection.warnings,
        "no_warning": summary.no_warning(inspection),
        "rule": summary.rule(inspection.source, inspection.table),
        "no_curves": summary.no_curves(inspection),
        "notes": [note for note in (*inspection.notes, summary.entropy_kind(inspection)) if note],
        "headings": summary.headings(inspection),
        "rows": summary.rows(inspection),
        "over_training": over_training,
        "what_if": summary.what_if_sentences(inspection),
        "effects": effects,
        "center": inspection.what_if.settings.center if inspection.what_if else "",
        "figures": {name: figure for name, figure in drawn.items() if figure},
        "reader": reader(inspection),
        "tables": {"measures": csv},
        "boards": [],
    }


def training_panels(inspection: Inspection) -> list[Panel]:
    """The measures over steps; none with a single step."""
    steps, values, what_if = inspection.collapse.steps, dict(inspection.collapse.by_step), inspection.what_if
    if len(steps) < 2:
        return []
    if what_if is not None:
        place_B = np.searchsorted(steps, inspection.table.steps_B[what_if.rows_B])
        values["correction"] = means(what_if.progrpo_B - what_if.grpo_B, place_B, len(steps))
    known = {name: value for name, value in values.items() if not np.isnan(value).all()}
    largest = [(name, CHANGED, name) for name in known if name.startswith("pass@") and name != "pass@1"][-1:]
    panels = []
    for name, (title, caption) in PANELS.items():
        shown = LINES.get(name, [(name, PLAIN, name)]) + (largest if name == "pass-at-k" else [])
        lines = [(label, colour, known[measure]) for label, colour, measure in shown if measure in known]
        drawn = lines_figure(steps, lines, "step", Y_AXES.get(name, {}))
        panels.append(Panel(name, title, caption.format(unit=summary.length_unit(inspection)), drawn))
    return [panel for panel in panels if panel.figure]


def what_if_panels(inspection: Inspection) -> list[Panel]:
    """The effects of alpha and of low_prob_fraction, each while the other stays as it is."""
    what_if, panels = inspection.what_if, []
    if what_if is None:
        return []
    settings = vars(what_if.settings)
    effects = {"alpha": what_if.by_alpha, "low_prob_fraction": what_if.by_fraction}
    for name, other in (("alpha", "low_prob_fraction"), ("low_prob_fraction", "alpha")):
        words = {"name": name, "chosen": settings[name], "other": f"{other}={settings[other]:g}"}
        by_value = effects[name]
        for kind, (title, caption) in EFFECTS.items():
            lines = [
                (label, colour, [getattr(e, key) for e in by_value.values()]) for label, colour, key in LINES[kind]
            ]
            drawn = lines_figure(list(by_value), lines, name, Y_AXES[kind], at=settings[name])
            panels.append(Panel(f"{name}-{kind}", title.format(**words), caption.format(**words), drawn))
    return panels


def lines_figure(
    x: ArrayLike, lines: Sequence[tuple[str, str, ArrayLike]], title: str, yaxis: Any, at: float | None = None
) -> Figure | None:
    """Lines (name, colour, values over x), with a legend if there are several; ``at`` draws an upright line."""
    hover = "%{y:.1%}" if "tickformat" in yaxis else "%{y:.3f}"
    data = []
    for name, colour, values in lines:
        xs, ys = thinned(x, values)
        mode = "lines+markers" if len(xs) < FEW_POINTS or at is not None else "lines"
        data.append(series(mode, xs, ys, colour, name=name, hover=hover))
    shapes = [] if at is None else [upright(at, "dot")]
    return figure(data, title, yaxis=yaxis, height=240, legend=len(lines) > 1, shapes=shapes)


def thinned(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points to draw: at most :data:`MOST_POINTS`, each the mean of equally many neighbours; NaN if none is known."""
    points = pd.DataFrame({"x": np.asarray(x), "y": np.asarray(y)}, dtype=np.float64)
    neighbours = points.groupby(np.arange(len(points)) // -(-len(points) // MOST_POINTS)).mean()
    return neighbours["x"].to_numpy(), neighbours["y"].to_numpy()


def confidence_histogram(inspection: Inspection) -> Figure | None:
    """How c(o|q) is spread over right and over wrong responses; None where it is not known."""
    table, edges, data = inspection.table, np.linspace(0, 1, BINS + 1), []
    c_o_B = table.c_o_B(inspection.settings.low_prob_fraction)
    for name, colour, chosen_B in (("right", RIGHT, table.right_B), ("wrong", WRONG, table.wrong_B)):
        values = c_o_B[chosen_B & ~np.isnan(c_o_B)]
        if len(values):
            shares = np.histogram(values, edges)[0] / len(values)
            data.append(series("bars", (edges[1:] + edges[:-1]) / 2, shares, colour, name=name, hover="%{y:.1%}"))
    xaxis = {"range": [0, 1]}
    return figure(data, "c(o|q)", xaxis=xaxis, yaxis=PERCENT, height=280, legend=True, bargap=0.1)


def scatter(inspection: Inspection) -> Figure | None:
    """A and A~ of a sample of responses against c(o|q); None where that is not known."""
    what_if, table = inspection.what_if, inspection.table
    if what_if is None:
        return None
    c_o_B = table.c_o_B(inspection.settings.low_prob_fraction)[what_if.rows_B]
    known = np.flatnonzero(~np.isnan(c_o_B) & table.known_B[what_if.rows_B])
    if len(known) > SCATTERED:
        known = np.sort(np.random.default_rng(0).choice(known, SCATTERED, replace=False))
    right = table.right_B[what_if.rows_B[known]]
    hover, data = "%{text}<br>c(o|q) %{x:.3f}, correction %{y:+.3f}", []
    for name, colour, symbol, chosen in (("right", RIGHT, "circle", right), ("wrong", WRONG, "x", ~right)):
        rows = known[chosen]
        before, after = what_if.grpo_B[rows], what_if.progrpo_B[rows]
        parts = zip(table.steps_B[what_if.rows_B[rows]], before, after, strict=True)
        texts = [f"step {step}: A {a:.3f}, Ã {b:.3f}".replace("-", "−") for step, a, b in parts]
        look: dict[str, Any] = {"marker": {"symbol": symbol, "size": 6, "opacity": 0.6}, "text": texts, "hover": hover}
        data.append(series("markers", c_o_B[rows], after - before, colour, name=name, **look))
    yaxis = {"zeroline": True, "zerolinecolor": "var(--rule)", "rangemode": "normal"}
    axes = {"xaxis": {"range": [-0.02, 1.02], "showgrid": True}, "yaxis": yaxis}
    return figure(data, "c(o|q)", "correction", **axes, height=340, legend=True, hovermode="closest")


def reader(inspection: Inspection) -> list[dict[str, Any]]:
    """A few groups of the first and of the last step to read, mixed ones first, as the report's reader takes them."""
    table = inspection.table
    # If a model computed the log-probs of a sample of groups, the reader shows groups of the sample.
    rows_B = np.array(sorted(inspection.scored), dtype=np.int64) if inspection.scored else np.arange(table.size)
    steps = np.unique(table.steps_B[rows_B])
    ends = dict.fromkeys((int(steps[0]), int(steps[-1])))
    chosen = {step: _choose_groups(inspection, rows_B[table.steps_B[rows_B] == step]) for step in ends}
    raw = read_rows(inspection.source, [row for groups in chosen.values() for rows in groups for row in rows])
    decode, folder = inspection.decode, RunFolder(inspection.source.files[0].path.resolve().parent.parent)
    if decode is None and folder.recipe_file.exists():  # rollouts of a run of progrpo
        decode = decoder_from(folder, folder.recipe().model.path)
    views = {step: [_group(inspection, rows, raw, decode) for rows in groups] for step, groups in chosen.items()}
    steps_shown = [{"step": step, "groups": groups} for step, groups in views.items()]
    return [{"title": "Rollouts", "seed": None, "steps": steps_shown}]


def _choose_groups(inspection: Inspection, rows: NDArray[np.int64]) -> list[list[int]]:
    """The responses of a few groups, mixed groups first and then in the order of the file."""
    table = inspection.table
    groups, index = np.unique(table.groups_B[rows], return_inverse=True)
    right, wrong = (np.bincount(index, weights=verdicts_B[rows]) for verdicts_B in (table.right_B, table.wrong_B))
    mixed_first = np.argsort(~((right > 0) & (wrong > 0)), kind="stable")[:GROUPS]
    return [rows[table.groups_B[rows] == group][:SHOWN_RESPONSES].tolist() for group in groups[mixed_first]]


def _group(
    inspection: Inspection, rows: list[int], raw: dict[int, dict[str, Any]], decode: Decode | None
) -> dict[str, Any]:
    """One group as the report's reader shows it."""
    table, columns, what_if = inspection.table, inspection.source.columns, inspection.what_if
    fraction = inspection.settings.low_prob_fraction
    right_B, wrong_B, c_o_B = table.right_B, table.wrong_B, table.c_o_B(fraction)
    before_B, after_B = np.full((2, table.size), np.nan)
    if what_if is not None:
        before_B[what_if.rows_B], after_B[what_if.rows_B] = what_if.grpo_B, what_if.progrpo_B
    words: dict[str, int] = {}
    shown = []
    for row in rows:
        cells, scored = raw[row], inspection.scored.get(row)
        text = response_of(cells[columns.response])[:MOST_CHARACTERS]
        ids = scored.token_ids if scored else as_list(cells[columns.token_ids]) if columns.token_ids else None
        logps = as_list(cells[columns.logps]) if columns.logps else scored.logps if scored else []
        if decode is None or ids is None:
            # Words are shown instead of tokens, and their probabilities are not known.
            pieces = re.findall(r"\S+\s*|\s+", text)
            ids, logps = [words.setdefault(piece, len(words)) for piece in pieces], []
        shown.append(
            {
                "prompt": as_text(cells[columns.prompt])[:MOST_CHARACTERS],
                "text": text,
                "verdict": "right" if right_B[row] else "wrong" if wrong_B[row] else "not judged",
                "token_ids": ids,
                "logps": logps,
                "canonical": str(table.answers_B[row]),
                "reward": table.rewards_B[row],
                "prompt_confidence": table.c_q_B[row],
                "answer_confidence": c_o_B[row],
                "grpo_advantage": before_B[row],
                "correction": after_B[row] - before_B[row],
                "advantage": after_B[row],
            }
        )
    return group_view(shown, list(words).__getitem__ if words or decode is None else decode, fraction)
