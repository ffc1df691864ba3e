"""A board: what a page shows of one final evaluation, be it of methods or of models."""

from collections.abc import Sequence
from typing import Any

from progrpo.evaluation.evaluate import Evaluation
from progrpo.evaluation.intervals import Estimate
from progrpo.pages import confidence, plots, problems
from progrpo.pages.collect import Group, fewer_problems, samples_per_problem

Table = dict[str, Any]
"""``title``, ``header`` and ``rows``: of a CSV file, with unrounded numbers."""


def board(
    groups: Sequence[Group], place: int, *, title: str, several: bool = False, base: Sequence[Evaluation] = ()
) -> dict[str, Any]:
    """The board at a place of the page: figures, what they are called, the table and the responses.

    Args:
        groups: with at least one final evaluation among them.
        title: of the benchmark.
        several: the page has several boards, so that each says what it is of.
        base: evaluations of the model before training.

    Returns:
        ``figures`` and ``tables`` by id; ``ids`` of them by name; ``data`` for the page's script, ``chunks`` and
        ``words`` of the responses; the rest is for the template.
    """
    groups = [group for group in groups if group.finals]
    responses = problems.read_responses(groups)
    listed = problems.Problems.of(groups, responses)
    separations = confidence.separations(groups, responses)
    named = {
        "pass-at-k": plots.pass_at_k_figure(groups),
        "distinct-by-problem": plots.distinct_figure(groups),
        "coverage": plots.coverage_figure(groups, base),
    } | confidence.figures(groups, responses)
    suffix = f"-{place + 1}" if place else ""
    ids = {name: name + suffix for name, figure in named.items() if figure}
    first = problems.samples_in_page(responses)
    chunks, words = problems.chunks(listed, groups, first)
    of = f" on {title}" if several else ""
    told = {name.replace("-", "_"): identity for name, identity in ids.items()}
    return {
        "title": title,
        "of": of,
        "groups": [{"name": group.name, "title": group.title} for group in groups],
        "has_seeds": any(len(group.finals) > 1 for group in groups),
        "samples": samples_per_problem([e for group in groups for e in group.finals]),
        "fewer": [f"{group.title}: {fewer}" for group in groups if (fewer := fewer_problems(group.finals))],
        "figures": {identity: named[name] for name, identity in ids.items()},
        "ids": told | {"separations": f"confidence{suffix}"},
        "separations": separations,
        "confidence_sentences": confidence.sentences(separations),
        "points_left_out": len(listed.ids) > confidence.MOST_POINTS,
        "tables": {f"confidence{suffix}": _separation_table(separations, of)},
        "first": first,
        "data": {"title": title} | _coloured(problems.table(listed, groups, responses)),
        "chunks": chunks,
        "words": words,
    }


def _coloured(table: dict[str, Any]) -> dict[str, Any]:
    return table | {
        "groups": [
            group | {"colour": plots.colour(group["name"]), "glyph": plots.glyph(group["name"])}
            for group in table["groups"]
        ]
    }


def _separation_table(rows: Sequence[dict[str, Any]], of: str) -> Table:
    names = ("auroc within problems", "auroc over all responses")
    header = [
        "title",
        "responses",
        "problems with right and wrong",
        *(n + e for n in names for e in ("", " low", " high")),
    ]
    return {
        "title": f"confidence and being right{of}",
        "header": [*header, "mean c(o|q) right", "mean c(o|q) wrong"],
        "rows": [
            [
                r["title"],
                r["responses"],
                r["mixed"],
                *numbers(r["within"]),
                *numbers(r["pooled"]),
                r["right"],
                r["wrong"],
            ]
            for r in rows
        ],
    }


def numbers(value: Estimate | None) -> list[float | None]:
    """Mean, low and high; three blanks for what is not known."""
    return [None, None, None] if value is None else [value.mean, value.low, value.high]
