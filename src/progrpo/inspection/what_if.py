"""What ProGRPO would have done with the same responses: the correction of each, and what it changes.

The advantages are :mod:`progrpo.core`'s; here they are only compared. All is over groups whose confidences are known.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from progrpo.core import arm_advantages, group_relative_advantages
from progrpo.core.advantages import activated_groups
from progrpo.inspection.table import Floats, Ints, Table

ALPHAS = tuple(i / 4 for i in range(9))
"""The values of alpha that its curve is drawn through."""
MOST_LAGS = 31
"""A response is held against at most so many others of its group: in groups of up to 32 that is each pair, in larger
ones a random choice."""
MOST_PAIRED = 200_000
"""Pairs are made of so many responses: of more, whole groups are taken at even distances."""


@dataclass(frozen=True)
class Settings:
    """ProGRPO's options, as in :class:`progrpo.trl.trainer.ProGRPOConfig`."""

    alpha: float = 1.0
    low_prob_fraction: float = 0.2
    center: str = "prompt"
    activation: str = "any_correct"
    correct_above: float = 0.0


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
    """Share of pairs whose order is turned round."""
    new_best: float
    """Share of groups whose best response is not (one of) GRPO's best."""
    flipped: float
    """Share of responses that GRPO makes likelier and ProGRPO less likely, or the other way round."""
    taught: float
    """Share of responses with A = 0, of which GRPO learns nothing, that get an advantage."""
    activated: float
    """Share of groups that ARM acts on."""


@dataclass(frozen=True)
class WhatIf:
    """The advantages of the responses whose groups' confidences are known, B of them, and what becomes of them."""

    settings: Settings
    rows_B: Ints
    """Which responses of the table they are."""
    groups_B: Ints
    grpo_B: Floats
    """A."""
    progrpo_B: Floats
    """A~."""
    effect: Effect
    by_alpha: dict[float, Effect]
    by_fraction: dict[float, Effect]

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.groups_B))


def what_if(table: Table, settings: Settings) -> WhatIf | None:
    """What ProGRPO would have done; None where no group has the confidences that ``settings.center`` needs.

    Raises:
        TypeError, ValueError: settings out of their range, as :func:`progrpo.core.arm_advantages`.
    """
    rows_B = np.flatnonzero(_in_known_groups(table, settings))
    if not len(rows_B):
        return None
    known = _rows(table, rows_B)
    grpo_B, progrpo_B = advantages(known, settings)
    pairs = _pairs(known.groups_B)

    def effect_of(changed: Settings) -> Effect:
        return effect(*advantages(known, changed), known, changed, pairs)

    return WhatIf(
        settings,
        rows_B,
        known.groups_B,
        grpo_B,
        progrpo_B,
        effect_of(settings),
        {alpha: effect_of(replace(settings, alpha=alpha)) for alpha in sorted({*ALPHAS, settings.alpha})},
        {fraction: effect_of(replace(settings, low_prob_fraction=fraction)) for fraction in table.fractions},
    )


def advantages(table: Table, settings: Settings) -> tuple[Floats, Floats]:
    """A and A~ of every response."""
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


def effect(
    grpo_B: Floats, progrpo_B: Floats, table: Table, settings: Settings, pairs: list[tuple[Ints, Ints]] | None = None
) -> Effect:
    """What the change from A to A~ does within groups and to single responses.

    Args:
        grpo_B, progrpo_B: A and A~ of the table's responses.
        table: for groups and rewards. A response that could not be judged takes no part.
        settings: for activation.
        pairs: as of :func:`_pairs`, where they are at hand.
    """
    judged_B, groups_B = table.judged_B, table.groups_B
    moved_B = np.abs(progrpo_B - grpo_B)
    ordered = turned = compared = 0
    for left, right in pairs if pairs is not None else _pairs(groups_B):
        both = judged_B[left] & judged_B[right]
        before = np.sign(grpo_B[left] - grpo_B[right])[both]
        after = np.sign(progrpo_B[left] - progrpo_B[right])[both]
        ordered += int(((before == 0) & (after != 0)).sum())
        turned += int((before * after < 0).sum())
        compared += len(before)
    weight = float(np.abs(grpo_B).sum())
    activated_B = activated_groups(
        torch.from_numpy(table.correct_rewards_B),
        torch.from_numpy(groups_B),
        activation=settings.activation,
        correct_above=table.correct_above,
    ).numpy()
    judged = max(int(judged_B.sum()), 1)
    return Effect(
        float(moved_B.sum()) / judged,
        float((progrpo_B - grpo_B).sum()) / judged,
        float(moved_B.sum()) / weight if weight else float("nan"),
        ordered / compared if compared else float("nan"),
        turned / compared if compared else float("nan"),
        _new_best(grpo_B, progrpo_B, groups_B, judged_B),
        int((grpo_B * progrpo_B < 0).sum()) / judged,
        int(((grpo_B == 0) & (progrpo_B != 0)).sum()) / judged,
        len(np.unique(groups_B[activated_B])) / max(len(np.unique(groups_B)), 1),
    )


def _in_known_groups(table: Table, settings: Settings) -> NDArray[np.bool_]:
    """Responses of groups in which something could be corrected: a confidence is known, and what it is held against."""
    known_B = table.known_B & ~np.isnan(table.c_o_B(settings.low_prob_fraction))
    if settings.center == "prompt":
        known_B &= ~np.isnan(table.c_q_B)
    return np.bincount(table.groups_B, weights=known_B, minlength=table.n_groups)[table.groups_B] > 0


def _rows(table: Table, rows: Ints) -> Table:
    arrays: dict[str, Any] = {name: value for name, value in vars(table).items() if isinstance(value, np.ndarray)}
    return replace(table, **{name: value[..., rows] for name, value in arrays.items()})


def _pairs(groups_B: Ints) -> list[tuple[Ints, Ints]]:
    """Pairs of responses of one group, as two arrays of their numbers for each lag; at most :data:`MOST_LAGS` lags."""
    every = -(-len(groups_B) // MOST_PAIRED)
    taken = np.flatnonzero(groups_B % every == 0)
    # In random order within groups: neighbours of a large group are then a fair choice of its pairs.
    shuffled = np.random.default_rng(0).permutation(taken)
    order = shuffled[np.argsort(groups_B[shuffled], kind="stable")]
    return list(_lagged(order, groups_B[order]))


def _lagged(order: Ints, groups: Ints) -> Iterable[tuple[Ints, Ints]]:
    for lag in range(1, min(MOST_LAGS, len(order) - 1) + 1):
        same = np.flatnonzero(groups[lag:] == groups[:-lag])
        if not len(same):
            return
        yield order[same], order[same + lag]


def _new_best(grpo_B: Floats, progrpo_B: Floats, groups_B: Ints, judged_B: NDArray[np.bool_]) -> float:
    groups_B, grpo_B, progrpo_B = groups_B[judged_B], grpo_B[judged_B], progrpo_B[judged_B]
    n = int(groups_B.max()) + 1
    best_N, new_best_N, best_still_N = (np.full(n, -np.inf) for _ in range(3))
    np.maximum.at(best_N, groups_B, grpo_B)
    np.maximum.at(new_best_N, groups_B, progrpo_B)
    # The highest A~ among GRPO's best: below the highest of all, another response has overtaken every one of them.
    among_best = grpo_B == best_N[groups_B]
    np.maximum.at(best_still_N, groups_B[among_best], progrpo_B[among_best])
    there_N = np.isfinite(best_N)
    return float((best_still_N < new_best_N)[there_N].mean())
