"""The figure builder of every page: marks, series and axes, as Plotly's JSON (plain dicts).

Colours are names of the page's CSS variables (``var(--ink)``). The page's script replaces them by the values of the
light or the dark theme, so one figure serves both.
"""

import math
from functools import partial
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Figure = dict[str, Any]
"""``data``, a list of series, and ``layout``; a series is a dict as well."""


class Panel(NamedTuple):
    """A small figure with its id on the page, its heading, and the sentence below it."""

    id: str
    title: str
    caption: str
    figure: Figure | None


class Mark(NamedTuple):
    """How a method or a model is drawn: its colours on light and dark pages, its symbol in figures and in text."""

    name: str
    light: str
    dark: str
    symbol: str
    glyph: str

    @property
    def colour(self) -> str:
        return f"var(--m-{self.name})"


# Okabe and Ito's palette, which colour-blind readers can tell apart; GRPO and ProGRPO also differ in lightness.
# A method has the same mark on every page.
MARKS = (
    Mark("grpo", "#0072B2", "#56B4E9", "circle", "●"),
    Mark("dr_grpo", "#56798F", "#9FB6C4", "x", "✖"),
    Mark("gspo", "#007A5E", "#2FC79B", "triangle-up", "▲"),
    Mark("entropy_bonus", "#8A6D00", "#F0E442", "star", "★"),
    Mark("high_entropy_tokens", "#6B5B95", "#B8A9E0", "cross", "✚"),
    Mark("progrpo", "#D55E00", "#F0A048", "square", "■"),
    Mark("progrpo_group", "#B04A86", "#E59AC6", "diamond", "◆"),
    Mark("progrpo_correct", "#7A3B1D", "#D9A38A", "triangle-down", "▼"),
    Mark("base", "#6B6B6B", "#A0A0A0", "circle-open", "○"),
)
MODEL_MARKS = ("grpo", "progrpo", "gspo", "progrpo_group", "entropy_bonus", "high_entropy_tokens", "progrpo_correct")
"""The marks that models take in turn; those that differ most come first."""
RIGHT, WRONG, SOFT, INK = "var(--right)", "var(--wrong)", "var(--soft)", "var(--ink)"
PERCENT = {"tickformat": ".0%"}
ROWS = {"autorange": "reversed", "showgrid": False, "type": "category", "dtick": 1}
"""A y-axis with a row for each name; the first is at the top."""
AXIS = {"gridcolor": "var(--grid)", "linecolor": "var(--rule)", "zeroline": False, "ticks": "", "nticks": 5}
AXIS |= {"fixedrange": True, "automargin": True}
plain = partial(escape, quote=False)
"""A text that Plotly shows as it is: Plotly reads tags in names and labels."""


def mark(name: str) -> Mark:
    """The mark of a method, or of a model, which is called ``model-0``, ``model-1`` and so on; grey for other names."""
    kind, _, number = name.partition("-")
    if kind == "model" and number.isdecimal():
        name = MODEL_MARKS[int(number) % len(MODEL_MARKS)]
    return next((mark for mark in MARKS if mark.name == name), MARKS[-1])


def palette_css(*, dark: bool) -> str:
    """Declarations of the marks' CSS variables for one theme: ``--m-grpo:#0072B2;...``."""
    declarations = ""
    for mark in MARKS:
        value = mark.dark if dark else mark.light
        red, green, blue = (int(value[i : i + 2], 16) for i in (1, 3, 5))
        declarations += f"--m-{mark.name}:{value};--band-{mark.name}:rgba({red},{green},{blue},.18);"
    return declarations


def rounded(values: ArrayLike) -> list[Any]:
    """Values for JSON: floats with five decimals, and None for NaN; whole numbers and texts stay as they are.

    >>> rounded([0.123456, float("nan")]), rounded(["a"])
    ([0.12346, None], ['a'])
    """
    return [
        (round(value, 5) if math.isfinite(value) else None) if isinstance(value, float) else value
        for value in np.asarray(values).tolist()
    ]


def series(
    kind: str, x: ArrayLike, y: ArrayLike, look: Mark | str, *, name: str = "", hover: str = "", **more: Any
) -> Figure:
    """``bars``, ``lines``, ``markers`` or ``lines+markers`` in the look of a mark, or of a colour.

    Without a ``hover`` text, nothing shows under the pointer. ``more`` are Plotly's settings; of these, ``marker`` and
    ``line`` are merged into the look.
    """
    colour, symbol = (look.colour, look.symbol) if isinstance(look, Mark) else (look, "circle")
    shared = {"name": plain(name), "x": rounded(x), "y": rounded(y)}
    shared |= {"hovertemplate": hover} if hover else {"hoverinfo": "skip"}
    if kind == "bars":
        return shared | {"type": "bar", "marker": {"color": colour}} | more
    marker = {"color": colour, "symbol": symbol, "size": 8} | more.pop("marker", {})
    line = {"color": colour, "width": 2.5} | more.pop("line", {})
    return shared | {"type": "scatter", "mode": kind, "marker": marker, "line": line} | more


def whiskers(mean: ArrayLike, low: ArrayLike, high: ArrayLike, colour: str) -> dict[str, Any]:
    """Intervals from ``low`` to ``high`` around means: the ``error_x`` or ``error_y`` of a series."""
    above, below = np.atleast_1d(np.subtract(high, mean)), np.atleast_1d(np.subtract(mean, low))
    ends = {"array": rounded(above), "arrayminus": rounded(below), "symmetric": False}
    return ends | {"type": "data", "color": colour, "thickness": 1.5, "width": 4}


def upright(x: float, dash: str = "solid") -> dict[str, Any]:
    """A line from the bottom to the top of a figure at ``x``, for the ``shapes`` of its layout."""
    stroke = {"color": SOFT, "width": 1, "dash": dash}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": stroke}


def figure(data: list[Figure], x: str, y: str = "", *, legend: bool = False, **layout: Any) -> Figure | None:
    """A figure with titles of its axes, in the style of the pages; None if there is nothing to draw.

    ``layout`` are Plotly's settings where they differ; ``xaxis`` and ``yaxis`` are merged into the shared ones.
    ``legend`` draws a legend above the figure, for figures that have none beside them on the page.
    """
    title_x = {"title": {"text": x, "standoff": 4}}
    title_y = {"title": {"text": y}} if y else {}
    shared = {
        "height": 220,
        "margin": {"l": 40, "r": 12, "t": 44 if legend else 8, "b": 36},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": SOFT},
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--rule)", "font": {"color": INK}},
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "dragmode": False,
        "hovermode": "x unified",
        "xaxis": AXIS | {"showgrid": False, "showline": True} | title_x | layout.pop("xaxis", {}),
        "yaxis": AXIS | {"rangemode": "tozero"} | title_y | layout.pop("yaxis", {}),
    }
    return {"data": data, "layout": shared | layout} if data else None


def describe(shown: Figure) -> str:
    """The first and last values of a figure's lines in words, for readers who can't see it.

    >>> describe({"data": [{"mode": "lines", "name": "GRPO", "y": [0.2, None, 0.4337]}]})
    'GRPO starts at 0.2 and ends at 0.434'
    """
    ends = []
    for drawn in shown["data"]:
        known = [value for value in drawn["y"] if value is not None]
        if drawn["name"] and "lines" in drawn.get("mode", "") and known:
            ends.append(f"{drawn['name']} starts at {known[0]:.3g} and ends at {known[-1]:.3g}")
    return "; ".join(ends)
