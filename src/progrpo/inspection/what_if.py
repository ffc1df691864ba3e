"""What ProGRPO would have done with the same responses: the correction of each, and what it changes.

:mod:`progrpo.core` computes the advantages; here they are compared, over the groups whose confidences are known.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from progrpo.core import arm_advantages, group_relative_advantages
from progrpo.core.advantages import activated_groups
from progrpo.inspection.score import Floats, Ints
from progrpo.inspection.table import Bools, Table
from progrpo.methods.arm import ArmOptions

ALPHAS = tuple(i / 4 for i in range(9))
"""The values of alpha that its curve is drawn through."""
MOST_LAGS = 31
"""A response is compared with at most so many others of its group: in groups of up to 32 that is each pair, in larger
ones a random choice."""
MOST_PAIRED = 200_000
"""Pairs are formed of about so many responses. If there are more, whole groups at even distances are chosen."""

Pairs = list[tuple[Ints, Ints]]


@dataclass(frozen=True)
class Effect:
    """How A~ differs from A."""

    size: float
    """Mean of \\|A~ - A\\| over responses."""
    shift: float
    """Mean of A~ - A over responses: below 0, more probability is taken than given."""
    moved: float
    """Sum of \\|A~ - A\\| over sum of \\|A\\|: how much weight is moved; NaN where GRPO gives none."""
    ordered: float
    """Share of pairs of a group's responses that GRPO treats alike and ProGRPO does not."""
    reversed: float
    """Share of pairs whose order changes."""
    new_best: float
    """Share of groups whose best response is not (one of) GRPO's best."""
    flipped: float
    """Share of responses that GRPO makes likelier and ProGRPO less likely, or the other way round."""
    taught: float
    """Share of responses from which GRPO learns nothing, because A = 0, and that get an advantage."""
    activated: float
    """Share of groups that ARM acts on."""


@dataclass(frozen=True)
class WhatIf:
    """The advantages of the B responses in groups whose confidences are known, and how they change."""

    settings: ArmOptions
    rows_B: Ints
    """The numbers of these responses in the table."""
    groups_B: Ints
    grpo_B: Floats
    """A."""
    progrpo_B: Floats
    """A~."""
    effect: Effect
    by_alpha: dict[float, Effect]
    by_fraction: dict[float, Effect]


def what_if(table: Table, settings: ArmOptions) -> WhatIf | None:
    """What ProGRPO would have done; None where no group has the confidences that ``settings.center`` needs."""
    # A group can be corrected if a response of it has a known confidence, and a known reference to compare it with.
    known_B = table.known_B & ~np.isnan(table.c_o_B(settings.low_prob_fraction))
    if settings.center == "prompt":
        known_B &= ~np.isnan(table.c_q_B)
    rows_B = np.flatnonzero(np.isin(table.groups_B, table.groups_B[known_B]))
    if not len(rows_B):
        return None
    arrays: dict[str, Any] = {
        name: value[..., rows_B] for name, value in vars(table).items() if isinstance(value, np.ndarray)
    }
    known = replace(table, **arrays)
    pairs = _pairs(known.groups_B)

    def effect_of(changed: ArmOptions) -> Effect:
        return effect(*advantages(known, changed), known, changed, pairs)

    alphas = sorted({*ALPHAS, settings.alpha})
    by_alpha = {alpha: effect_of(replace(settings, alpha=alpha)) for alpha in alphas}
    by_fraction = {share: effect_of(replace(settings, low_prob_fraction=share)) for share in table.fractions}
    changed = by_alpha[settings.alpha]
    return WhatIf(settings, rows_B, known.groups_B, *advantages(known, settings), changed, by_alpha, by_fraction)


def advantages(table: Table, settings: ArmOptions) -> tuple[Floats, Floats]:
    """A and A~ of every response, (B,) each."""
    rewards_B, groups_B = torch.from_numpy(table.rewards_B), torch.from_numpy(table.groups_B)
    grpo_B = group_relative_advantages(rewards_B, groups_B)
    progrpo_B = arm_advantages(
        grpo_B,
        torch.from_numpy(table.correct_rewards_B),
        torch.from_numpy(table.c_q_B),
        torch.from_numpy(table.c_o_B(settings.low_prob_fraction)),
        groups_B,
        alpha=settings.alpha,
        activation=settings.activation,
        center=settings.center,
        correct_above=table.correct_above,
    )
    return grpo_B.numpy(), progrpo_B.numpy()


def effect(grpo_B: Floats, progrpo_B: Floats, table: Table, settings: ArmOptions, pairs: Pairs | None = None) -> Effect:
    """What the change from A to A~ of the table's responses does within groups and to single responses.

    A response without a reward takes no part. ``pairs`` are those of :func:`_pairs`, if they are computed already.
    """
    judged_B, groups_B = table.judged_B, table.groups_B
    ordered, turned = _changed_pairs(grpo_B, progrpo_B, judged_B, _pairs(groups_B) if pairs is None else pairs)
    activated_B = activated_groups(
        torch.from_numpy(table.correct_rewards_B),
        torch.from_numpy(groups_B),
        activation=settings.activation,
        correct_above=table.correct_above,
    ).numpy()
    moved, weight = float(np.abs(progrpo_B - grpo_B).sum()), float(np.abs(grpo_B).sum())
    judged = max(int(judged_B.sum()), 1)
    return Effect(
        size=moved / judged,
        shift=float((progrpo_B - grpo_B).sum()) / judged,
        moved=moved / (weight or math.nan),
        ordered=ordered,
        reversed=turned,
        new_best=_new_best(grpo_B[judged_B], progrpo_B[judged_B], groups_B[judged_B]),
        flipped=int((grpo_B * progrpo_B < 0).sum()) / judged,
        taught=int(((grpo_B == 0) & (progrpo_B != 0)).sum()) / judged,
        activated=float(pd.Series(activated_B).groupby(groups_B).any().mean()),
    )


def _pairs(groups_B: Ints) -> Pairs:
    """Pairs of responses of one group, as two arrays of their numbers for each lag; at most :data:`MOST_LAGS` lags."""
    every = -(-len(groups_B) // MOST_PAIRED)
    chosen = np.flatnonzero(groups_B % every == 0)
    # The order within groups is random, so that neighbours in a large group are a random choice of its pairs.
    shuffled = np.random.default_rng(0).permutation(chosen)
    order = shuffled[np.argsort(groups_B[shuffled], kind="stable")]
    groups = groups_B[order]
    pairs = []
    for lag in range(1, min(MOST_LAGS, len(order) - 1) + 1):
        same = np.flatnonzero(groups[lag:] == groups[:-lag])
        if not len(same):
            break
        pairs.append((order[same], order[same + lag]))
    return pairs


def _changed_pairs(grpo_B: Floats, progrpo_B: Floats, judged_B: Bools, pairs: Pairs) -> tuple[float, float]:
    """The shares of pairs that only ProGRPO orders, and of those whose order changes; NaN without pairs."""
    ordered = turned = compared = 0
    for left, right in pairs:
        both = judged_B[left] & judged_B[right]
        before = np.sign(grpo_B[left] - grpo_B[right])[both]
        after = np.sign(progrpo_B[left] - progrpo_B[right])[both]
        ordered += int(((before == 0) & (after != 0)).sum())
        turned += int((before * after < 0).sum())
        compared += len(before)
    return ordered / (compared or math.nan), turned / (compared or math.nan)


def _new_best(grpo_B: Floats, progrpo_B: Floats, groups_B: Ints) -> float:
    """The share of groups in which a response overtakes all that are best for GRPO."""
    grpo, progrpo = (pd.Series(advantages_B).groupby(groups_B) for advantages_B in (grpo_B, progrpo_B))
    is_best = grpo_B == grpo.transform("max").to_numpy()
    best_before = pd.Series(progrpo_B[is_best]).groupby(groups_B[is_best]).max()
    return float((best_before < progrpo.max()).mean())
