"""A board: what a page shows of one final evaluation, of methods or of models."""

from collections.abc import Sequence
from typing import Any

from progrpo.evaluation.evaluate import Evaluation
from progrpo.pages import confidence, plots, problems
from progrpo.pages.collect import Group
from progrpo.pages.measures import fewer_problems, samples_per_problem


def board(
    groups: Sequence[Group], place: int, *, title: str, several: bool = False, base: Sequence[Evaluation] = ()
) -> dict[str, Any]:
    """The board at a place of the page: its figures, its table and its responses.

    Args:
        groups: with at least one final evaluation among them.
        place: 0 for the page's first board.
        title: of the benchmark.
        several: the page has several boards, so that each figure's title names the benchmark.
        base: evaluations of the model before training.

    Returns:
        ``figures`` and ``tables`` by id; their ``ids`` by name; ``data`` for the page's script, ``chunks`` and
        ``words`` of the responses; the rest is for the template.
    """
    groups = [group for group in groups if group.finals]
    responses = problems.read_responses(groups)
    prompts = problems.prompts_by_problem(groups, responses)
    separations = confidence.separations(groups, responses)
    figures = {
        "pass-at-k": plots.pass_at_k_figure(groups),
        "distinct-by-problem": plots.distinct_figure(groups),
        "coverage": plots.coverage_figure(groups, base),
    } | confidence.confidence_figures(groups, responses)
    suffix = f"-{place + 1}" if place else ""
    ids = {name.replace("-", "_"): name + suffix for name, figure in figures.items() if figure}
    first = problems.samples_in_page(responses)
    chunks, words = problems.chunks(prompts, groups, first)
    on_benchmark = f" on {title}" if several else ""
    return {
        "title": title,
        "on_benchmark": on_benchmark,
        "groups": groups,
        "has_seeds": any(len(group.finals) > 1 for group in groups),
        "samples": samples_per_problem([e for group in groups for e in group.finals]),
        "fewer": [f"{group.title}: {fewer}" for group in groups if (fewer := fewer_problems(group.finals))],
        "figures": {name + suffix: figure for name, figure in figures.items() if figure},
        "ids": ids | {"separations": f"confidence{suffix}"},
        "separations": separations,
        "confidence_sentences": confidence.sentences(separations),
        "most_points": confidence.MOST_POINTS if len(prompts) > confidence.MOST_POINTS else None,
        "tables": {f"confidence{suffix}": confidence.table(separations, on_benchmark)},
        "first": first,
        "data": {"title": title} | problems.table(prompts, groups, responses),
        "chunks": chunks,
        "words": words,
    }
