"""The summary in the terminal: what goes wrong, the measures, what ProGRPO would have done, what is missing."""

import math
from typing import TYPE_CHECKING

import numpy as np

from progrpo.inspection.collapse import LEAST_GROUPS
from progrpo.inspection.inspect import Inspection
from progrpo.pages.summary import signed

if TYPE_CHECKING:
    from rich.console import Console

TITLES = {
    "reward": "reward",
    "entropy": "entropy, nats a token",
    "groups/all_right": "groups all right",
    "groups/mixed": "groups mixed",
    "groups/all_wrong": "groups all wrong",
    "groups/same_reward": "groups with one reward for all",
    "distinct_answers": "different answers a group",
    "distinct_solutions": "different right answers a group",
    "commonest_answer": "commonest answer's share",
    "duplicates": "duplicates",
    "length": "length",
    "confidence/right": "confidence of right answers",
    "confidence/wrong": "confidence of wrong answers",
    "confidence/prompt": "confidence of prompts c(q)",
}
SHARES = ("groups/", "commonest_answer", "duplicates", "pass@")
"""How the names of measures begin that are shown in percent."""
NO_WARNING = "Nothing here says that the policy collapses."


def no_warning(inspection: Inspection) -> str:
    """What can be said where nothing is warned of; without steps, that is not that all is well."""
    found = inspection.collapse
    if found.enough_groups:
        return NO_WARNING
    if not inspection.source.has_steps:
        why = "nothing tells the training steps of the responses apart; --step COL names the column that does"
    elif not found.first:
        why = "all responses are of one step"
    else:
        why = f"the first or the last tenth of the steps has fewer than {LEAST_GROUPS} groups with a reward"
    return f"Whether the policy collapses over training can't be said: {why}."


def no_curves(inspection: Inspection) -> str:
    """Why nothing is drawn over training."""
    if inspection.source.has_steps:
        return "All responses are of one step: there are no curves to draw."
    return "Nothing tells the training steps of the responses apart: there are no curves to draw."


def title_of(inspection: Inspection, name: str) -> str:
    """A measure's name for people, with the unit of what can have two, and of pass@k how many groups it is over."""
    if name == "length":
        return f"length, {length_unit(inspection)}"
    if name.startswith("pass@"):
        known_N = np.bincount(inspection.table.groups_B[inspection.table.known_B])
        n, enough = int((known_N > 0).sum()), int((known_N >= int(name.removeprefix("pass@"))).sum())
        return name if enough == n else f"{name}, {enough:,} of {_count(n, 'group')}"
    return TITLES[name]


def length_unit(inspection: Inspection) -> str:
    """Tokens, if the file tells how many there are."""
    columns = inspection.source.columns
    return "tokens" if columns.token_ids or columns.logps else "words"


def entropy_kind(inspection: Inspection) -> str:
    """Where the entropy comes from; empty if it is not known."""
    if inspection.source.columns.entropy:
        return f"Entropy is that of column {inspection.source.columns.entropy!r}."
    if inspection.source.columns.logps:
        return "Entropy is the mean of −log p over the sampled tokens: an unbiased estimate of the policy's."
    return (
        "Entropy is that of the model's whole distribution, on tokens that were sampled." if inspection.scored else ""
    )


def cell(name: str, value: float) -> str:
    """A measure's value as it is shown; a dash where it is not known."""
    if math.isnan(value):
        return "–"
    if name.startswith(SHARES):
        return f"{value:.1%}".replace("%", " %")
    return f"{value:.1f}" if name == "length" else f"{value:.3f}"


def rows(inspection: Inspection) -> list[tuple[str, list[str]]]:
    """The measures that are known, each with all, first tenth and last tenth."""
    found = inspection.collapse
    parts = [part for part in (found.overall, found.first, found.last) if part]
    shown = [*TITLES, *(name for name in found.overall if name.startswith("pass@"))]
    known = [name for name in shown if not math.isnan(found.overall[name])]
    return [(title_of(inspection, name), [cell(name, part[name]) for part in parts]) for name in known]


def headings(inspection: Inspection) -> list[str]:
    """Of the columns of :func:`rows`."""
    found = inspection.collapse

    def steps(first_last: tuple[int, int]) -> str:
        first, last = first_last
        return f"step {first}" if first == last else f"steps {first}–{last}"

    return ["all", steps(found.first_steps), steps(found.last_steps)] if found.first else ["all"]


def size(inspection: Inspection) -> str:
    """``6,400 responses in 400 groups, 50 steps; rollouts dumped by verl``."""
    table = inspection.table
    steps = len(inspection.collapse.steps)
    told = f"{_count(table.size, 'response')} in {_count(table.n_groups, 'group')}"
    told += f", {_count(steps, 'step')}" if inspection.source.has_steps else ""
    return f"{told}; {inspection.source.title}"


def what_if_sentences(inspection: Inspection) -> list[str]:
    """What ProGRPO would have done, in words; empty where that can't be known."""
    found = inspection.what_if
    if found is None:
        return []
    effect, settings = found.effect, found.settings
    moved = "" if math.isnan(effect.moved) else f" or {effect.moved:.2f} times the weight that GRPO gives out"
    told = [
        f"With alpha={settings.alpha:g}, low_prob_fraction={settings.low_prob_fraction:g} and "
        f"center={settings.center!r}, ProGRPO acts on {effect.activated:.0%} of {_count(found.n_groups, 'group')}; the "
        f"correction is {signed(effect.shift)} on average, its size {effect.size:.3f}{moved}.",
        f"{effect.taught:.0%} of the responses get an advantage that have none from GRPO; {effect.flipped:.0%} change "
        "their sign.",
    ]
    if not math.isnan(effect.ordered):
        told.append(
            f"Within groups, {effect.ordered:.0%} of the pairs that can be formed are alike to GRPO and told apart by "
            f"ProGRPO, {effect.reversed:.0%} change their order; in {effect.new_best:.0%} of the groups another "
            "response becomes the best."
        )
    return [sentence.replace("%", " %") for sentence in told]


def print_summary(inspection: Inspection, console: "Console | None" = None) -> None:
    """Print the summary; on a pipe as plain text, 80 columns wide."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = console or Console(highlight=False)
    console.print(f"[bold]{inspection.source.name}[/bold]: {size(inspection)}", markup=True)
    console.print()
    for sentence in inspection.warnings or [no_warning(inspection)]:
        console.print(f"! {sentence}" if inspection.warnings else sentence, markup=False)
    console.print()
    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in headings(inspection):
        table.add_column(heading, justify="right")
    for title, cells in rows(inspection):
        table.add_row(title, *cells)
    console.print(table)
    for part in (what_if_sentences(inspection), [*inspection.notes, entropy_kind(inspection)]):
        console.print()
        for sentence in part:
            if sentence:
                console.print(sentence, markup=False)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
