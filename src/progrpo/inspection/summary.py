"""An inspection in sentences and in the terminal: how the files were read, what goes wrong, the measures, and what
ProGRPO would have done."""

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from progrpo.inspection.collapse import LEAST_GROUPS, span
from progrpo.inspection.score import Ints
from progrpo.inspection.table import MOST_RESPONSES, Source, Table

if TYPE_CHECKING:
    from rich.console import Console

    from progrpo.inspection.inspect import Inspection

TITLES = {
    "reward": "reward",
    "entropy": "entropy, nats a token",
    "groups/all_right": "groups all right",
    "groups/mixed": "groups mixed",
    "groups/all_wrong": "groups all wrong",
    "groups/same_reward": "groups with one reward for all",
    "distinct_answers": "different answers a group",
    "distinct_solutions": "different right answers a group",
    "most_common_answer": "most common answer's share",
    "duplicates": "duplicates",
    "length": "length",
    "confidence/right": "confidence of right answers",
    "confidence/wrong": "confidence of wrong answers",
    "confidence/prompt": "confidence of prompts c(q)",
}
SHARES = ("groups/", "most_common_answer", "duplicates", "pass@")
"""The beginnings of the names of measures that are shown in percent."""
NO_WARNING = "Nothing here says that the policy collapses."


def rule(source: Source, table: Table) -> str:
    """When a response counts as right."""
    column = source.columns.correct_reward
    return f"A response is right if its {column or 'reward'} is above {table.correct_above:g}"


def how_read(source: Source, table: Table) -> list[str]:
    """How the files were read, and what was assumed."""
    columns = source.columns
    notes = _how_rewarded(source, table)
    if source.has_named_steps:
        notes.append("The steps are those in the names of the files or of their folders (--step COL names a column).")
    elif columns.step is None:
        notes.append("There is no column of steps, so nothing is shown over training (--step COL names one).")
    if columns.group is None and source.row_is_group:
        notes.append("Each row of the file holds one prompt and a list of responses, which are a group.")
    elif columns.group is None:
        where = "prompt and step" if source.has_steps else "prompt"
        notes.append(f"A group is the responses with the same {where} (--group COL names a column).")
    if table.n_groups == table.size > 1:
        notes.append(
            "Every group has one response only, so nothing can be said about groups: is --group the right column?"
        )
    # The sum of the hashes of a step's texts, which wraps around, does not depend on their order.
    by_step = pd.Series(table.texts_B).groupby(table.steps_B).agg(["sum", "size"])
    if repeated := int((np.diff(by_step, axis=0) == 0).all(axis=1).sum()):
        notes.append(
            f"{repeated} steps hold the same responses as the step before them: TRL logs a generation again at each "
            "step that trains on it. Each response counts as often as it is logged."
        )
    if unjudged := int((~table.judged_B).sum()):
        notes.append(f"{unjudged} responses have no reward: they take no part in their groups.")
    if unknown := int((table.judged_B & ~table.known_B).sum()):
        notes.append(
            f"For {unknown} responses {columns.correct_reward} is not known: they count in the reward and in A, and "
            "are neither right nor wrong."
        )
    return notes


def _how_rewarded(source: Source, table: Table) -> list[str]:
    """What the reward is made of, and what counts as right where that is not obvious."""
    rewards = source.columns.rewards
    notes = []
    if len(rewards) > 1:
        terms = " + ".join(f"{'' if weight == 1 else f'{weight:g} '}{name}" for name, weight in rewards)
        notes.append(f"The reward is {terms}; --reward {rewards[0][0]} looks at that one alone.")
    values = np.unique(table.correct_rewards_B[table.known_B])
    low, high = f"{values[0]:g}", f"{values[-1]:g}"
    ways_out = "--correct-above FLOAT sets another threshold, --correct-reward COL names the reward that means right"
    right = rule(source, table)
    if not table.right_B.any():
        notes.append(f"No response counts as right. {right}, and the highest is {high}; {ways_out}.")
    elif len(values) > 1 and table.right_B[table.known_B].all():
        notes.append(f"Every response counts as right. {right}, and the lowest is {low}; {ways_out}.")
    elif len(values) > 2:
        notes.append(f"Rewards are graded: {len(values)} values from {low} to {high}. {right}; {ways_out}.")
    elif len(rewards) > 1 or source.columns.correct_reward is not None or table.correct_above:
        notes.append(f"{right}; {ways_out}.")
    return notes


def how_scored(source: Source, table: Table, model: str, temperature: float, rows: Ints) -> str:
    """Which responses a model scored, and how."""
    n = len(np.unique(table.groups_B[rows]))
    is_cut = np.bincount(table.groups_B).max() > MOST_RESPONSES
    cut = f", at most {MOST_RESPONSES} responses of each" if is_cut else ""
    tokens = "" if source.columns.token_ids else " Texts were tokenised again, without the end token."
    return (
        f"Log-probs are those of {model} at temperature {temperature:g}, computed for {len(rows)} "
        f"responses in {n} of {table.n_groups} groups{cut}: all results from log-probs are about these. One model "
        f"scores all steps, also those that an earlier policy sampled.{tokens}"
    )


def what_lacks(inspection: "Inspection") -> list[str]:
    """What the files lack, and what can't be shown without it."""
    table, notes = inspection.table, []
    if not table.has_c_o:
        lacking = "Confidence" if not np.isnan(table.entropy_B).all() else "Entropy, confidence"
        notes.append(
            f"There are no log-probs of responses. {lacking}, and what ProGRPO would have done need them: --logps COL "
            "names their column, --model PATH computes them for a sample of groups. Everything else is shown."
        )
    elif not table.has_c_q:
        notes.append(
            "There are no log-probs of prompts, so c(q) is not known. What ProGRPO would have done is shown with "
            f"center={inspection.settings.center!r}, which does not need it; the paper's correction does: "
            "--prompt-logps COL, or --model PATH."
        )
    elif inspection.what_if is None:
        notes.append("No group has both a judged response and its confidences, so there is nothing to correct.")
    if inspection.collapse.first and not inspection.collapse.enough_groups:
        notes.append(f"Nothing can be said about changes over training: {_no_trend(inspection)}.")
    return notes


def no_warning(inspection: "Inspection") -> str:
    """The sentence that is shown if there is no warning. Without steps, it does not say that all is well."""
    why = _no_trend(inspection)
    return f"Whether the policy collapses over training can't be said: {why}." if why else NO_WARNING


def no_curves(inspection: "Inspection") -> str:
    """Why nothing is drawn over training."""
    return f"There are no curves to draw: {_no_trend(inspection)}."


def _no_trend(inspection: "Inspection") -> str:
    """Why nothing can be said about changes over training; empty if something can."""
    if not inspection.source.has_steps:
        return "nothing tells the training steps of the responses apart; --step COL names the column that does"
    if not inspection.collapse.first:
        return "all responses are of one step"
    if not inspection.collapse.enough_groups:
        return f"the first or the last tenth of the steps has fewer than {LEAST_GROUPS} groups with a reward"
    return ""


def length_unit(inspection: "Inspection") -> str:
    """Tokens, if the file tells how many there are."""
    columns = inspection.source.columns
    return "tokens" if columns.token_ids or columns.logps else "words"


def entropy_kind(inspection: "Inspection") -> str:
    """Where the entropy comes from; empty if it is not known."""
    columns = inspection.source.columns
    if columns.entropy:
        return f"Entropy is that of column {columns.entropy!r}."
    if columns.logps:
        return "Entropy is the mean of −log p over the sampled tokens: an unbiased estimate of the policy's."
    is_scored = bool(inspection.scored)
    return "Entropy is that of the model's whole distribution, on tokens that were sampled." if is_scored else ""


def rows(inspection: "Inspection") -> list[tuple[str, list[str]]]:
    """The measures that are known: a title, and the values over all, the first tenth and the last tenth."""
    measured = inspection.collapse
    parts = [part for part in (measured.overall, measured.first, measured.last) if part]
    names = [*TITLES, *(name for name in measured.overall if name.startswith("pass@"))]
    known = [name for name in names if not math.isnan(measured.overall[name])]
    return [(_title(inspection, name), [_cell(name, part[name]) for part in parts]) for name in known]


def _title(inspection: "Inspection", name: str) -> str:
    """A measure's name for people: length with its unit, pass@k with the number of groups that it is over."""
    if name == "length":
        return f"length, {length_unit(inspection)}"
    if not name.startswith("pass@"):
        return TITLES[name]
    known_N = np.bincount(inspection.table.groups_B[inspection.table.known_B])
    n, enough = int((known_N > 0).sum()), int((known_N >= int(name.removeprefix("pass@"))).sum())
    return name if enough == n else f"{name}, {enough:,} of {_count(n, 'group')}"


def _cell(name: str, value: float) -> str:
    """A measure's value as it is shown; a dash where it is not known."""
    if math.isnan(value):
        return "–"
    if name.startswith(SHARES):
        return f"{value:.1%}".replace("%", " %")
    return f"{value:.1f}" if name == "length" else f"{value:.3f}"


def headings(inspection: "Inspection") -> list[str]:
    """The headings of the values of :func:`rows`."""
    measured = inspection.collapse
    return ["all", *(span(steps, "–") for steps in (measured.first_steps, measured.last_steps) if measured.first)]


def size(inspection: "Inspection") -> str:
    """``6,400 responses in 400 groups, 50 steps; rollouts dumped by verl``."""
    table, source = inspection.table, inspection.source
    steps = f", {_count(len(inspection.collapse.steps), 'step')}" if source.has_steps else ""
    return f"{_count(table.size, 'response')} in {_count(table.n_groups, 'group')}{steps}; {source.title}"


def what_if_sentences(inspection: "Inspection") -> list[str]:
    """What ProGRPO would have done, in words; empty where that can't be known."""
    changed = inspection.what_if
    if changed is None:
        return []
    effect, settings = changed.effect, changed.settings
    groups = _count(len(np.unique(changed.groups_B)), "group")
    moved = "" if math.isnan(effect.moved) else f", {effect.moved:.2f} times that of GRPO's advantages"
    shift = f"{effect.shift:+.3f}".replace("-", "−")
    sentences = [
        f"With alpha={settings.alpha:g}, low_prob_fraction={settings.low_prob_fraction:g} and "
        f"center={settings.center!r}, ProGRPO acts on {effect.activated:.0%} of {groups}; the correction is {shift} on "
        f"average, and its mean size is {effect.size:.3f}{moved}.",
        f"{effect.taught:.0%} of the responses have no advantage from GRPO and get one; for {effect.flipped:.0%}, the "
        "advantage changes its sign.",
    ]
    if not math.isnan(effect.ordered):
        sentences.append(
            f"Of the pairs of responses in a group, {effect.ordered:.0%} are equal for GRPO and not for ProGRPO, and "
            f"{effect.reversed:.0%} change their order; in {effect.new_best:.0%} of the groups another response "
            "becomes the best."
        )
    return [sentence.replace("%", " %") for sentence in sentences]


def print_summary(inspection: "Inspection", console: "Console | None" = None) -> None:
    """Print the summary; on a pipe as plain text, 80 columns wide."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = console or Console(highlight=False)
    console.print(f"[bold]{inspection.source.name}[/bold]: {size(inspection)}", markup=True)
    console.print()
    for sentence in inspection.warnings or [no_warning(inspection)]:
        console.print(f"! {sentence}" if inspection.warnings else sentence, markup=False)
    console.print()
    table = RichTable("", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings(inspection):
        table.add_column(heading, justify="right")
    for title, cells in rows(inspection):
        table.add_row(title, *cells)
    console.print(table)
    for part in (what_if_sentences(inspection), [*inspection.notes, entropy_kind(inspection)]):
        console.print()
        for sentence in filter(None, part):
            console.print(sentence, markup=False)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
