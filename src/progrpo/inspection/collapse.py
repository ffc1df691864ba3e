"""Whether a policy collapses: measures by step, and sentences where they say that something goes wrong."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from progrpo.evaluation import pass_at_k
from progrpo.inspection.table import Floats, Ints, Table

LEAST_GROUPS = 10
"""A first and a last tenth of the steps with fewer groups each are not held against each other."""
HALF = 0.5
TAKEN_OVER = 0.8
RISE = 0.1
MANY_DUPLICATES = 0.25
SAME = 1e-8
"""Rewards that differ by less are the same, as in TRL."""


@dataclass(frozen=True)
class Collapse:
    """The measures over S steps, over everything, and over the first and the last tenth of the steps."""

    steps: Ints
    by_step: dict[str, Floats]
    """Each (S,); NaN where a step does not have what it takes."""
    overall: dict[str, float]
    first: dict[str, float]
    """Over the first tenth of the steps, at least one; empty with a single step."""
    last: dict[str, float]
    first_steps: tuple[int, int]
    last_steps: tuple[int, int]
    enough_groups: bool
    """Whether first and last tenth have ten judged groups each: with fewer, no trend is told."""


def collapse(table: Table, fraction: float) -> Collapse:
    """All measures of a table, confidence at this low_prob_fraction."""
    steps, index_B = np.unique(table.steps_B, return_inverse=True)
    index_B = index_B.ravel()
    tenth = max(1, len(steps) // 10)
    # Bins: 0 the first tenth, 1 the last, 2 what lies between.
    place_S = np.full(len(steps), 2)
    place_S[-tenth:], place_S[:tenth] = 1, 0
    parts = measure(table, fraction, place_S[index_B], 3)
    judged_groups = [len(np.unique(table.groups_B[table.judged_B & (place_S[index_B] == bin)])) for bin in (0, 1)]
    several = len(steps) > 1
    return Collapse(
        steps,
        measure(table, fraction, index_B, len(steps)),
        {name: float(value[0]) for name, value in measure(table, fraction, np.zeros_like(index_B), 1).items()},
        {name: float(value[0]) for name, value in parts.items()} if several else {},
        {name: float(value[1]) for name, value in parts.items()} if several else {},
        (int(steps[0]), int(steps[tenth - 1])),
        (int(steps[-tenth]), int(steps[-1])),
        several and min(judged_groups) >= LEAST_GROUPS,
    )


def measure(table: Table, fraction: float, bins_B: Ints, n_bins: int) -> dict[str, Floats]:
    """The measures over each bin of responses, by name, each (n_bins,); NaN where a bin has nothing to measure.

    ====================  ==========================================================================================
    reward                mean over judged responses
    entropy               mean over response tokens, nats; over responses where tokens are not counted
    groups/all_right      share of groups, of those where it is known of a response whether it is right, that have no
                          wrong response
    groups/mixed          ... that have both
    groups/all_wrong      ... that have no right response
    groups/same_reward    share of groups (with a judged response) whose judged responses all have the same reward, to
                          1e-8, so that every advantage of GRPO is 0; ``groups/zero_variance`` of a run's metrics is
                          the share of all groups, and takes rewards for the same only if they are equal
    distinct_answers      different answers among the judged responses of a group, mean over groups
    distinct_solutions    different answers among its right responses (0 if none is), mean over groups
    commonest_answer      share of a group's judged responses that give its commonest answer, mean over groups of two
                          and more
    duplicates            share of responses whose text stands in their group already
    length                mean over responses, tokens or words
    confidence/answer     mean c(o|q)
    confidence/right      ... of right responses
    confidence/wrong      ... of wrong ones
    confidence/prompt     mean c(q)
    pass@k                the chance that one of k responses is right, unbiased, mean over groups with at least k judged
                          responses; k = 1, 2, 4, ... up to the largest group; where another reward means right, a
                          response counts in the kinds of groups, in solutions and here if that is known of it
    ====================  ==========================================================================================

    Args:
        table: the responses.
        fraction: low_prob_fraction of c(o|q), one of the table's.
        bins_B: each response's bin, 0 to n_bins - 1; all responses of a group are in one bin.
        n_bins: how many bins there are.
    """
    groups_B, n_groups, judged_B, right_B = table.groups_B, table.n_groups, table.judged_B, table.right_B
    known_B = table.known_B
    bin_N = np.zeros(n_groups, dtype=np.int64)
    bin_N[groups_B] = bins_B

    def over_responses(values_B: NDArray[np.floating], weights_B: NDArray[np.floating] | None = None) -> Floats:
        return means(values_B, bins_B, n_bins, weights_B)

    def over_groups(values_N: NDArray[np.floating], counts_N: NDArray[np.bool_]) -> Floats:
        return means(np.where(counts_N, values_N, np.nan), bin_N, n_bins)

    def of_group(chosen_B: NDArray[np.bool_]) -> Ints:
        return np.bincount(groups_B[chosen_B], minlength=n_groups)

    size_N, judged_N, known_N, right_N = map(of_group, (np.ones_like(judged_B), judged_B, known_B, right_B))
    any_judged_N, any_known_N = judged_N > 0, known_N > 0
    answers_N, commonest_N = _different(groups_B, table.answers_B, judged_B, n_groups)
    solutions_N, _ = _different(groups_B, table.answers_B, right_B, n_groups)
    texts_N, _ = _different(groups_B, table.texts_B, np.ones_like(judged_B), n_groups)
    c_o_B = table.c_o_B(fraction)
    with np.errstate(invalid="ignore"):
        commonest_share_N = commonest_N / judged_N
    repeated = np.bincount(bin_N, weights=size_N - texts_N, minlength=n_bins)
    responses = np.bincount(bins_B, minlength=n_bins).astype(np.float64)
    return {
        "reward": over_responses(table.rewards_B),
        "entropy": over_responses(table.entropy_B, table.lengths_B),
        "groups/all_right": over_groups((right_N == known_N).astype(float), any_known_N),
        "groups/mixed": over_groups(((right_N > 0) & (right_N < known_N)).astype(float), any_known_N),
        "groups/all_wrong": over_groups((right_N == 0).astype(float), any_known_N),
        "groups/same_reward": over_groups((_spread(table) < SAME).astype(float), any_judged_N),
        "distinct_answers": over_groups(answers_N.astype(float), any_judged_N),
        "distinct_solutions": over_groups(solutions_N.astype(float), any_known_N),
        "commonest_answer": over_groups(commonest_share_N, judged_N > 1),
        "duplicates": np.divide(repeated, responses, out=np.full(n_bins, np.nan), where=responses > 0),
        "length": over_responses(table.lengths_B),
        "confidence/answer": over_responses(c_o_B),
        "confidence/right": over_responses(np.where(right_B, c_o_B, np.nan)),
        "confidence/wrong": over_responses(np.where(table.wrong_B, c_o_B, np.nan)),
        "confidence/prompt": over_responses(table.c_q_B),
        **{f"pass@{k}": over_groups(*_pass_at_k(known_N, right_N, k)) for k in ks(known_N)},
    }


def ks(sizes_N: Ints) -> list[int]:
    """1, 2, 4, ... up to the size of the largest group.

    >>> ks(np.array([3, 9]))
    [1, 2, 4, 8]
    """
    return [1 << power for power in range(int(sizes_N.max(initial=0)).bit_length())]


def _pass_at_k(known_N: Ints, right_N: Ints, k: int) -> tuple[Floats, NDArray[np.bool_]]:
    """pass@k of each group, and which groups have the k responses that it takes."""
    enough_N = known_N >= k
    values_N = np.full(len(known_N), np.nan)
    # Groups have few sizes: each kind of group once.
    kinds, index = np.unique(np.stack([known_N, right_N])[:, enough_N], axis=1, return_inverse=True)
    values_N[enough_N] = np.atleast_1d(pass_at_k(kinds[0], kinds[1], k))[index.ravel()]
    return values_N, enough_N


def means(values: NDArray[np.floating], bins: Ints, n_bins: int, weights: NDArray[np.floating] | None = None) -> Floats:
    """The weighted mean over each bin of the values that are known; NaN where none is."""
    known = ~np.isnan(values)
    weight = known.astype(np.float64) if weights is None else np.where(known, weights, 0.0)
    sums = np.bincount(bins, weights=np.where(known, values, 0.0) * weight, minlength=n_bins)
    totals = np.bincount(bins, weights=weight, minlength=n_bins)
    return np.divide(sums, totals, out=np.full(n_bins, np.nan), where=totals > 0)


def _spread(table: Table) -> Floats:
    """The largest reward of each group less its smallest, (N,)."""
    highest_N, lowest_N = np.full(table.n_groups, -np.inf), np.full(table.n_groups, np.inf)
    np.maximum.at(highest_N, table.groups_B[table.judged_B], table.rewards_B[table.judged_B])
    np.minimum.at(lowest_N, table.groups_B[table.judged_B], table.rewards_B[table.judged_B])
    return highest_N - lowest_N


def _different(groups_B: Ints, keys_B: Ints, chosen_B: NDArray[np.bool_], n_groups: int) -> tuple[Ints, Ints]:
    """How many different keys the chosen responses of each group have, and how often its commonest one comes: (N,)."""
    groups, keys = groups_B[chosen_B], keys_B[chosen_B]
    different_N, commonest_N = np.zeros(n_groups, dtype=np.int64), np.zeros(n_groups, dtype=np.int64)
    if not len(groups):
        return different_N, commonest_N
    order = np.lexsort((keys, groups))
    groups, keys = groups[order], keys[order]
    starts = np.flatnonzero(np.r_[True, (groups[1:] != groups[:-1]) | (keys[1:] != keys[:-1])])
    counts = np.diff(np.r_[starts, len(groups)])
    np.add.at(different_N, groups[starts], 1)
    np.maximum.at(commonest_N, groups[starts], counts)
    return different_N, commonest_N


def warnings(found: Collapse, *, answers_are_final: bool) -> list[str]:
    """What the numbers say is going wrong, a sentence each with its numbers; none where nothing is.

    Args:
        found: the measures.
        answers_are_final: answers are final results, as of a mathematical problem: where there is one right result,
            a policy that learns gives it ever more often, so that a commonest answer is no sign of collapse.
    """
    told = [_teaches_nothing(found)]
    if found.enough_groups:
        told += [_entropy(found), _duplicates(found), _confident(found), _shorter(found)]
        told += [] if answers_are_final else [_taken_over(found)]
    return [sentence for sentence in told if sentence]


def _teaches_nothing(found: Collapse) -> str:
    # By the last tenth: what the policy is now. Without steps, by all there is.
    values = found.last if found.enough_groups else found.overall
    if not values["groups/same_reward"] > HALF:
        return ""
    where = f"In {_span(found.last_steps)}, " if found.enough_groups else ""
    return (
        f"{where}{values['groups/same_reward']:.0%} of the groups teach GRPO nothing: all their responses have the "
        f"same reward, so that every advantage is 0. {values['groups/all_right']:.0%} of the groups are all right "
        f"and {values['groups/all_wrong']:.0%} all wrong."
    ).replace("%", " %")


def _entropy(found: Collapse) -> str:
    first, last = found.first["entropy"], found.last["entropy"]
    if not last < HALF * first:
        return ""
    return f"Entropy fell to less than half: {first:.3f} nats in {_span(found.first_steps)}, {_then(found, last)}."


def _duplicates(found: Collapse) -> str:
    first, last = found.first["duplicates"], found.last["duplicates"]
    if not (last > MANY_DUPLICATES and last > first + RISE):
        return ""
    return _shares(
        "More and more responses repeat another one of their group word for word", found, first, last, "of them"
    )


def _taken_over(found: Collapse) -> str:
    first, last = found.first["commonest_answer"], found.last["commonest_answer"]
    if not (last > TAKEN_OVER and last > first + RISE):
        return ""
    return _shares("One answer takes over: the commonest of a group makes up", found, first, last, "of its responses")


def _confident(found: Collapse) -> str:
    first, last = found.first, found.last
    surer = last["confidence/right"] > first["confidence/right"] + RISE
    fewer = last["distinct_solutions"] < (1 - RISE) * first["distinct_solutions"]
    # Fewer right responses have fewer different ones among them: that is another trouble, and reward shows it.
    if not (surer and fewer and last["reward"] >= first["reward"]):
        return ""
    return (
        f"Right answers grow more confident while they grow fewer: c(o|q) of right responses was "
        f"{first['confidence/right']:.3f} in {_span(found.first_steps)} and {last['confidence/right']:.3f} in "
        f"{_span(found.last_steps)}, different right answers a group {first['distinct_solutions']:.2f} and "
        f"{last['distinct_solutions']:.2f}."
    )


def _shorter(found: Collapse) -> str:
    first, last = found.first["length"], found.last["length"]
    if not last < HALF * first:
        return ""
    return (
        f"Responses shrank to less than half: {first:.0f} long in {_span(found.first_steps)}, {_then(found, last, 0)}."
    )


def _then(found: Collapse, value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f} in {_span(found.last_steps)}"


def _shares(said: str, found: Collapse, first: float, last: float, of: str) -> str:
    text = f"{said}{':' if of == 'of them' else ''} {first:.0%} {of} in {_span(found.first_steps)}, "
    return (text + f"{last:.0%} in {_span(found.last_steps)}.").replace("%", " %")


def _span(steps: tuple[int, int]) -> str:
    """``step 3``, ``steps 1 to 20``."""
    return f"step {steps[0]}" if steps[0] == steps[1] else f"steps {steps[0]} to {steps[1]}"
