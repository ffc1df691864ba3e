"""Whether a policy collapses: measures by step, and a sentence for each thing that goes wrong."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from progrpo.evaluation import pass_at_k
from progrpo.inspection.score import Floats, Ints
from progrpo.inspection.table import Bools, Table

LEAST_GROUPS = 10
"""The first and the last tenth of the steps are compared only if each has at least so many groups."""
HALF = 0.5
TAKEN_OVER = 0.8
RISE = 0.1
MANY_DUPLICATES = 0.25
SAME = 1e-8
"""Rewards that differ by less count as the same, as in TRL."""


@dataclass(frozen=True)
class Collapse:
    """The measures over S steps, over everything, and over the first and the last tenth of the steps."""

    steps: Ints
    by_step: dict[str, Floats]
    """Each (S,); NaN where a step has nothing to measure."""
    overall: dict[str, float]
    first: dict[str, float]
    """Over the first tenth of the steps, at least one; empty with a single step."""
    last: dict[str, float]
    first_steps: tuple[int, int]
    last_steps: tuple[int, int]
    enough_groups: bool
    """Whether the first and the last tenth have ten judged groups each; with fewer, no warning speaks of a trend."""


def collapse(table: Table, fraction: float) -> Collapse:
    """All measures of a table, with confidence at this low_prob_fraction."""
    steps, index_B = np.unique(table.steps_B, return_inverse=True)
    tenth, several = max(1, len(steps) // 10), len(steps) > 1
    # Bins: 0 the first tenth, 1 the last, 2 the steps between.
    tenth_B = np.select([index_B < tenth, index_B >= len(steps) - tenth], [0, 1], 2)
    overall = measure(table, fraction, np.zeros_like(index_B), 1)
    tenths = measure(table, fraction, tenth_B, 3)
    judged_groups = [len(np.unique(table.groups_B[table.judged_B & (tenth_B == bin)])) for bin in (0, 1)]
    first, last = ({name: float(value[bin]) for name, value in tenths.items() if several} for bin in (0, 1))
    return Collapse(
        steps=steps,
        by_step=measure(table, fraction, index_B, len(steps)),
        overall={name: float(value[0]) for name, value in overall.items()},
        first=first,
        last=last,
        first_steps=(int(steps[0]), int(steps[tenth - 1])),
        last_steps=(int(steps[-tenth]), int(steps[-1])),
        enough_groups=several and min(judged_groups) >= LEAST_GROUPS,
    )


def measure(table: Table, fraction: float, bins_B: Ints, n_bins: int) -> dict[str, Floats]:
    """The measures over each bin of responses, by name, each (n_bins,); NaN where a bin has nothing to measure.

    ====================  ==========================================================================================
    reward                mean over judged responses
    entropy               mean over response tokens, nats; over responses where tokens are not counted
    groups/all_right      share of groups without a wrong response; groups in which nothing is known to be right or
                          wrong do not count here
    groups/mixed          share of groups with right and wrong responses
    groups/all_wrong      share of groups without a right response
    groups/same_reward    share of groups (with a judged response) whose judged responses all have the same reward, to
                          1e-8, so that every advantage of GRPO is 0; ``groups/zero_variance`` of a run's metrics is
                          the share of all groups, and counts rewards as the same only if they are equal
    distinct_answers      different answers among the judged responses of a group, mean over groups
    distinct_solutions    different answers among the right responses of a group, mean over groups
    most_common_answer    share of a group's judged responses that give its most common answer, mean over groups of two
                          and more
    duplicates            share of responses that repeat the text of an earlier one of their group
    length                mean over responses, tokens or words
    confidence/answer     mean c(o|q)
    confidence/right      mean c(o|q) of right responses
    confidence/wrong      mean c(o|q) of wrong responses
    confidence/prompt     mean c(q)
    pass@k                the chance that one of k responses is right, unbiased, mean over groups with at least k judged
                          responses; k = 1, 2, 4, ... up to the largest group
    ====================  ==========================================================================================

    If another reward says what is right, a response counts in the kinds of groups, in solutions and in pass@k if that
    reward is known. ``fraction`` is one of the table's values of low_prob_fraction. ``bins_B`` holds the bin of each
    response, 0 to n_bins - 1; all responses of a group are in one bin.
    """
    groups_B, n_groups, judged_B, right_B = table.groups_B, table.n_groups, table.judged_B, table.right_B
    bin_N = np.zeros(n_groups, dtype=np.int64)
    bin_N[groups_B] = bins_B

    def over_responses(values_B: NDArray[np.floating], weights_B: NDArray[np.floating] | None = None) -> Floats:
        return means(values_B, bins_B, n_bins, weights_B)

    def over_groups(values_N: NDArray[np.generic], counts_N: Bools) -> Floats:
        return means(np.where(counts_N, values_N, np.nan), bin_N, n_bins)

    known_N, right_N, judged_N = (
        np.bincount(groups_B[chosen_B], minlength=n_groups) for chosen_B in (table.known_B, right_B, judged_B)
    )
    answers_N, most_common_N = _distinct(table, judged_B)
    solutions_N, _ = _distinct(table, right_B)
    rewards = pd.Series(table.rewards_B).groupby(groups_B)
    spread_N = (rewards.max() - rewards.min()).reindex(range(n_groups)).to_numpy()
    duplicate_B = pd.DataFrame({"group": groups_B, "text": table.texts_B}).duplicated().to_numpy()
    c_o_B = table.c_o_B(fraction)
    ks = [1 << power for power in range(int(known_N.max(initial=0)).bit_length())]
    return {
        "reward": over_responses(table.rewards_B),
        "entropy": over_responses(table.entropy_B, table.lengths_B),
        "groups/all_right": over_groups(right_N == known_N, known_N > 0),
        "groups/mixed": over_groups((right_N > 0) & (right_N < known_N), known_N > 0),
        "groups/all_wrong": over_groups(right_N == 0, known_N > 0),
        "groups/same_reward": over_groups(spread_N < SAME, judged_N > 0),
        "distinct_answers": over_groups(answers_N, judged_N > 0),
        "distinct_solutions": over_groups(solutions_N, known_N > 0),
        "most_common_answer": over_groups(most_common_N / np.maximum(judged_N, 1), judged_N > 1),
        "duplicates": over_responses(duplicate_B.astype(np.float64)),
        "length": over_responses(table.lengths_B),
        "confidence/answer": over_responses(c_o_B),
        "confidence/right": over_responses(np.where(right_B, c_o_B, np.nan)),
        "confidence/wrong": over_responses(np.where(table.wrong_B, c_o_B, np.nan)),
        "confidence/prompt": over_responses(table.c_q_B),
        **{f"pass@{k}": over_groups(_pass_at_k(known_N, right_N, k), known_N >= k) for k in ks},
    }


def means(values: NDArray[np.floating], bins: Ints, n_bins: int, weights: NDArray[np.floating] | None = None) -> Floats:
    """The weighted mean over each bin of the values that are known; NaN where none is."""
    known = ~np.isnan(values)
    weight = known.astype(np.float64) if weights is None else np.where(known, weights, 0.0)
    sums = np.bincount(bins, weights=np.where(known, values, 0.0) * weight, minlength=n_bins)
    totals = np.bincount(bins, weights=weight, minlength=n_bins)
    return np.divide(sums, totals, out=np.full(n_bins, np.nan), where=totals > 0)


def _pass_at_k(known_N: Ints, right_N: Ints, k: int) -> Floats:
    """pass@k of each group; NaN where it has fewer than k responses."""
    values_N = np.full(len(known_N), np.nan)
    # Many groups have the same counts, so each pair of counts is computed once.
    (known, right), index = np.unique(np.stack([known_N, right_N])[:, known_N >= k], axis=1, return_inverse=True)
    values_N[known_N >= k] = np.atleast_1d(pass_at_k(known, right, k))[index.ravel()]
    return values_N


def _distinct(table: Table, chosen_B: Bools) -> tuple[Ints, Ints]:
    """Of each group's chosen responses: how many different answers they give, and how many give the most common one."""
    groups, answers = table.groups_B[chosen_B], table.answers_B[chosen_B]
    counts = pd.Series(answers).groupby([groups, answers]).size().groupby(level=0)
    different, largest = (counts.agg(name).reindex(range(table.n_groups), fill_value=0) for name in ("size", "max"))
    return different.to_numpy(), largest.to_numpy()


def warnings(measured: Collapse, *, answers_are_final: bool) -> list[str]:
    """A sentence with its numbers for each thing that goes wrong; none where nothing does.

    With ``answers_are_final``, answers are final results, as of a mathematical problem. Where there is one right
    result, a policy that learns gives it ever more often, so it is not a sign of collapse.
    """
    sentences = []
    # The last tenth shows the policy as it is now; without steps, all responses are used.
    values = measured.last if measured.enough_groups else measured.overall
    where = f"In {span(measured.last_steps)}, " if measured.enough_groups else ""
    if values["groups/same_reward"] > HALF:
        sentences.append(
            f"{where}{values['groups/same_reward']:.0%} of the groups teach GRPO nothing: all their responses have the "
            f"same reward, so that every advantage is 0. {values['groups/all_right']:.0%} of the groups are all right "
            f"and {values['groups/all_wrong']:.0%} all wrong."
        )
    if measured.enough_groups:
        sentences += _trends(measured, answers_are_final)
    return [sentence.replace("%", " %") for sentence in sentences]


def _trends(measured: Collapse, answers_are_final: bool) -> list[str]:
    """What changed from the first to the last tenth of the steps. Comparisons with NaN give no sentence."""
    sentences = []
    first, last = measured.first, measured.last
    before, after = span(measured.first_steps), span(measured.last_steps)

    def rises(name: str, above: float = 0.0) -> bool:
        return last[name] > above and last[name] > first[name] + RISE

    def change(name: str, form: str, unit: str = "") -> str:
        return f"{first[name]:{form}}{unit} in {before}, {last[name]:{form}} in {after}."

    if last["entropy"] < HALF * first["entropy"]:
        sentences.append(f"Entropy fell to less than half: {change('entropy', '.3f', ' nats')}")
    if rises("duplicates", MANY_DUPLICATES):
        sentences.append(
            "More and more responses repeat another one of their group word for word: "
            f"{change('duplicates', '.0%', ' of them')}"
        )
    # If fewer responses are right, fewer different ones are. That is another problem, which the reward shows.
    fewer = last["distinct_solutions"] < (1 - RISE) * first["distinct_solutions"]
    if rises("confidence/right") and fewer and last["reward"] >= first["reward"]:
        sentences.append(
            f"Right answers grow more confident while they grow fewer: c(o|q) of right responses was "
            f"{first['confidence/right']:.3f} in {before} and {last['confidence/right']:.3f} in {after}, different "
            f"right answers a group {first['distinct_solutions']:.2f} and {last['distinct_solutions']:.2f}."
        )
    if last["length"] < HALF * first["length"]:
        sentences.append(f"Responses shrank to less than half: {change('length', '.0f', ' long')}")
    if rises("most_common_answer", TAKEN_OVER) and not answers_are_final:
        sentences.append(
            "One answer takes over: the most common in a group makes up "
            f"{change('most_common_answer', '.0%', ' of its responses')}"
        )
    return sentences


def span(steps: tuple[int, int], to: str = " to ") -> str:
    """``step 3``, ``steps 1 to 20``."""
    return f"step {steps[0]}" if steps[0] == steps[1] else f"steps {steps[0]}{to}{steps[1]}"
