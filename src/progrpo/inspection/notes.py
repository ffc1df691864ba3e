"""Sentences about how the files were read, what was assumed, and what they lack."""

import numpy as np

from progrpo.inspection.score import MOST_RESPONSES
from progrpo.inspection.table import Ints, Source, Table
from progrpo.inspection.what_if import Settings, WhatIf


def rule(source: Source, table: Table) -> str:
    """When a response counts as right."""
    column = source.columns.correct_reward
    whose = "its reward" if column is None else f"its {column}"
    return f"A response is right if {whose} is above {table.correct_above:g}"


def how_read(source: Source, table: Table) -> list[str]:
    columns = source.columns
    notes = [*_rewards(source, table)]
    if source.has_named_steps:
        notes.append("The steps are those in the names of the files or of their folders (--step COL names a column).")
    elif columns.step is None:
        notes.append("There is no column of steps, so nothing is shown over training (--step COL names one).")
    if columns.group is None and source.files[0].split is not None:
        notes.append("Each row of the file holds one prompt and a list of responses, which are a group.")
    elif columns.group is None:
        where = "prompt and step" if source.has_steps else "prompt"
        notes.append(f"A group is the responses with the same {where} (--group COL names a column).")
    if table.n_groups == table.size > 1:
        notes.append(
            "Every group has one response only, so nothing can be said of groups: is --group the right column?"
        )
    repeated = _repeated_steps(table)
    if repeated:
        notes.append(
            f"{repeated} steps hold the same responses as the step before them: TRL logs a generation again at each "
            "step that trains on it. Each counts as often as it is there."
        )
    unjudged = int((~table.judged_B).sum())
    if unjudged:
        notes.append(f"{unjudged} responses have no reward: they take no part in their groups.")
    unknown = int((table.judged_B & ~table.known_B).sum())
    if unknown:
        notes.append(
            f"Of {unknown} responses {columns.correct_reward} is not known: they count in the reward and in A, and are "
            "neither right nor wrong."
        )
    return notes


def _rewards(source: Source, table: Table) -> list[str]:
    """What the reward is made of, and what was taken for right where that is not plain."""
    columns = source.columns
    notes = []
    if len(columns.rewards) > 1:
        told = " + ".join(f"{'' if weight == 1 else f'{weight:g} '}{name}" for name, weight in columns.rewards)
        notes.append(f"The reward is {told}; --reward {columns.rewards[0][0]} looks at one alone.")
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
    elif len(columns.rewards) > 1 or columns.correct_reward is not None or table.correct_above:
        notes.append(f"{right}; {ways_out}.")
    return notes


def _repeated_steps(table: Table) -> int:
    """How many steps have exactly the texts of the step before."""
    steps, index_B = np.unique(table.steps_B, return_inverse=True)
    sums_S = np.zeros(len(steps), dtype=np.uint64)
    # A sum of hashes, which wraps around, is the same in whatever order they come.
    np.add.at(sums_S, index_B.ravel(), table.texts_B.view(np.uint64))
    sizes_S = np.bincount(index_B.ravel())
    return int(((sums_S[1:] == sums_S[:-1]) & (sizes_S[1:] == sizes_S[:-1])).sum())


def how_scored(source: Source, table: Table, model: str | None, temperature: float, rows: Ints) -> str:
    n = len(np.unique(table.groups_B[rows]))
    most = int(np.bincount(table.groups_B).max())
    cut = f", of each at most {MOST_RESPONSES} responses" if most > MOST_RESPONSES else ""
    anew = "" if source.columns.token_ids else " Texts were tokenised anew, without the end token."
    return (
        f"Log-probs are those of {model} at temperature {temperature:g}, computed for {len(rows)} "
        f"responses in {n} of {table.n_groups} groups{cut}: what follows from them is of these. One model judges all "
        f"steps, also those that an earlier policy sampled.{anew}"
    )


def what_lacks(table: Table, settings: Settings, found: WhatIf | None) -> list[str]:
    if np.isnan(table.c_o_FB).all():
        known = "" if not np.isnan(table.entropy_B).all() else "entropy, "
        return [
            f"There are no log-probs of responses. {known.capitalize()}{'c' if known else 'C'}onfidence, and what "
            "ProGRPO would have done need them: --logps COL names their column, --model PATH computes them for a "
            "sample of groups. All else is shown."
        ]
    if np.isnan(table.c_q_B).all():
        return [
            "There are no log-probs of prompts, so c(q) is not known. What ProGRPO would have done is shown with "
            f"center={settings.center!r}, which does without; the paper's correction needs them: --prompt-logps COL, "
            "or --model PATH."
        ]
    if found is None:
        return ["No group has both a judged response and its confidences, so there is nothing to correct."]
    return []
