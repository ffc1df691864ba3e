"""Advantages: relative to the group (GRPO), then re-weighted by confidence (ARM)."""

import math

import torch
from torch import Tensor

from progrpo.core.checks import check_axes, check_choice, check_groups, check_number, check_values

SCALES = ("group", "batch", "none")
ACTIVATIONS = ("any_correct", "mixed")
CENTERS = ("prompt", "group", "correct")
_REWARD_REMEDY = "clamp it, or pass NaN to leave the response out of its group"


def group_relative_advantages(
    rewards_B: Tensor, groups_B: Tensor, *, scale: str = "group", eps: float = 1e-4
) -> Tensor:
    r"""How far each reward is above or below the mean of its group.

    .. math:: A_i = \frac{r_i - \mathrm{mean}(r)}{\mathrm{std}(r) + \delta}

    The mean is over the group. The sample standard deviation (ddof 1) is over the group (``scale="group"``) or over
    the batch (``"batch"``); with ``"none"`` (Dr. GRPO) there is no division.

    Args:
        rewards_B: shape (B,), finite. NaN means that the response could not be scored: it takes no part in its group
            and has advantage 0.
        eps: delta, which is added to the standard deviation. The default is TRL's; verl uses 1e-6.

    Returns:
        Shape (B,), in the rewards' dtype (float32 for integers). Exactly 0 where a group has one response or all its
        rewards are equal.

    Source: GRPO (arXiv 2402.03300, Sec. 4.1.2); ``scale="none"``: Dr. GRPO (arXiv 2503.20783).

    >>> rewards, groups = torch.tensor([1.0, 0.0, 0.5, 0.5]), torch.tensor([7, 7, 3, 3])
    >>> group_relative_advantages(rewards, groups, scale="none")
    tensor([ 0.5000, -0.5000,  0.0000,  0.0000])
    """
    check_axes("rewards_B", rewards_B)
    check_groups(groups_B, "rewards_B", rewards_B)
    check_choice("scale", scale, SCALES)
    check_number("eps", eps, low=0.0)
    check_values("rewards_B", rewards_B, rewards_B.isinf(), "not be infinite", _REWARD_REMEDY)
    rewards_B = rewards_B if rewards_B.dtype.is_floating_point else rewards_B.float()
    scored_B = ~rewards_B.isnan()
    index_B = _dense_index(groups_B)
    # Subtracting the group's lowest reward first makes equal rewards exact zeros, whatever their size.
    above_B = torch.where(scored_B, rewards_B - _group_lowest(rewards_B, scored_B, index_B), 0.0)
    deviations_B = torch.where(scored_B, above_B - _group_mean(above_B, scored_B, index_B), 0.0)
    if scale == "none":
        return deviations_B
    if scale == "group":
        std_B = _sample_std(deviations_B, scored_B, index_B)
    else:
        one_group_B = torch.zeros_like(index_B)
        centred_B = torch.where(scored_B, rewards_B - _group_mean(rewards_B, scored_B, one_group_B), 0.0)
        std_B = _sample_std(centred_B, scored_B, one_group_B)
    return torch.where(deviations_B == 0, 0.0, deviations_B / (std_B + eps))


def arm_advantages(
    advantages_B: Tensor,
    rewards_B: Tensor,
    prompt_confidence_B: Tensor,
    answer_confidence_B: Tensor,
    groups_B: Tensor,
    *,
    alpha: float,
    activation: str = "any_correct",
    center: str = "prompt",
    correct_above: float = 0.0,
) -> Tensor:
    r"""ARM, the Advantage Re-weighting Mechanism: an unlikely answer gains more, an over-confident one gains less.

    .. math::
        \tilde A_i = \begin{cases}
            A_i + \alpha \, (c(q) - c(o_i|q)) & \text{if the group is activated} \\
            A_i & \text{otherwise} \end{cases}

    A response is right if its reward is above ``correct_above`` (:func:`is_correct`); the paper's rewards are 0 and 1.

    ``activation`` says which groups are activated: ``"any_correct"``, those with a right response (in the paper's
    equation: sum_k r_k > 0); ``"mixed"``, those with a right and a wrong one. ``center`` says what c(o|q) is compared
    with: ``"prompt"``, the prompt's confidence c(q) (the paper); ``"group"``, the mean answer confidence of the group,
    so that the corrections of a group have mean 0; ``"correct"``, the mean over the group's right responses, and only
    these are corrected. The last two are this project's own; ``docs/method.md`` gives the reason.

    Args:
        advantages_B: group-relative advantages A, shape (B,), finite.
        rewards_B: shape (B,), the finite reward that says whether a response is right. The advantages may come from
            another one, such as a sum of several. NaN: the response takes no part in its group and keeps its advantage.
        prompt_confidence_B: c(q) of each response's prompt, shape (B,), in [0, 1]; NaN where unknown. Only
            ``center="prompt"`` uses it.
        answer_confidence_B: c(o|q), shape (B,), in [0, 1]; NaN where no token counts.
        alpha: strength of the correction, at least 0; 0 returns the advantages bit for bit.

    Returns:
        Shape (B,), in the dtype of ``advantages_B``. A response whose confidence is NaN keeps its advantage.

    Source: ProGRPO (arXiv 2602.05281), the ARM equation.

    >>> A, r = torch.tensor([0.5, 0.5, -1.0]), torch.tensor([1.0, 1.0, 0.0])
    >>> c_q, c_o = torch.full((3,), 0.5), torch.tensor([0.75, 0.25, 0.5])
    >>> arm_advantages(A, r, c_q, c_o, torch.tensor([0, 0, 0]), alpha=1.0)
    tensor([ 0.2500,  0.7500, -1.0000])
    """
    check_axes("advantages_B", advantages_B)
    check_axes("rewards_B", rewards_B, "advantages_B", advantages_B)
    _check_confidence("prompt_confidence_B", prompt_confidence_B, advantages_B)
    _check_confidence("answer_confidence_B", answer_confidence_B, advantages_B)
    check_groups(groups_B, "advantages_B", advantages_B)
    check_number("alpha", alpha, low=0.0)
    check_choice("activation", activation, ACTIVATIONS)
    check_choice("center", center, CENTERS)
    check_values("rewards_B", rewards_B, rewards_B.isinf(), "not be infinite", _REWARD_REMEDY)
    remedy = "a response that could not be scored has advantage 0"
    check_values("advantages_B", advantages_B, ~advantages_B.isfinite(), "be finite", remedy)
    index_B = _dense_index(groups_B)
    correct_B = is_correct(rewards_B, correct_above)
    activated_B = activated_groups(rewards_B, groups_B, activation=activation, correct_above=correct_above)
    known_B = ~rewards_B.isnan() & ~answer_confidence_B.isnan()
    if center == "prompt":
        reference_B = prompt_confidence_B
    elif center == "group":
        reference_B = _group_mean(answer_confidence_B, known_B, index_B)
    else:
        activated_B = activated_B & correct_B
        reference_B = _group_mean(answer_confidence_B, known_B & correct_B, index_B)
    correction_B = alpha * (reference_B - answer_confidence_B).to(advantages_B.dtype)
    # Adding a correction of 0 would turn -0.0 into 0.0: alpha=0 is bit for bit the input.
    corrected_B = activated_B & known_B & ~reference_B.isnan() & (correction_B != 0)
    return torch.where(corrected_B, advantages_B + correction_B, advantages_B)


def is_correct(rewards_B: Tensor, correct_above: float = 0.0) -> Tensor:
    """Which responses are right: those with a reward above ``correct_above``. The whole package uses this rule.

    The result is bool, shape (B,). It is False for NaN: such a response could not be scored, and is not wrong either.
    ``correct_above`` is a finite number: 0 suits rewards of 0 and 1, and a penalty that is 0 at best, such as
    ``-abs(20 - length)``, needs a number below 0.

    >>> is_correct(torch.tensor([1.0, 0.0, torch.nan])), is_correct(torch.tensor([-3.0, -8.0]), correct_above=-5.0)
    (tensor([ True, False, False]), tensor([ True, False]))
    """
    check_number("correct_above", correct_above, low=-math.inf)
    return rewards_B > correct_above


def activated_groups(
    rewards_B: Tensor, groups_B: Tensor, *, activation: str = "any_correct", correct_above: float = 0.0
) -> Tensor:
    """Whether ARM acts on each response's group: bool, shape (B,). See :func:`arm_advantages`.

    >>> rewards, groups = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]), torch.tensor([0, 0, 1, 1, 2])
    >>> activated_groups(rewards, groups), activated_groups(rewards, groups, activation="mixed")
    (tensor([ True,  True,  True,  True, False]), tensor([False, False,  True,  True, False]))
    """
    index_B, correct_B = _dense_index(groups_B), is_correct(rewards_B, correct_above)
    any_correct_B = _group_sum(correct_B.long(), index_B) > 0
    if activation == "any_correct":
        return any_correct_B
    wrong_B = ~correct_B & ~rewards_B.isnan()
    return any_correct_B & (_group_sum(wrong_B.long(), index_B) > 0)


def zero_variance_groups(rewards_B: Tensor, groups_B: Tensor) -> Tensor:
    """Whether all scored responses of each response's group have the same reward: bool, shape (B,).

    GRPO learns nothing from such a group: its advantages are all 0. NaN rewards are ignored, and a group without a
    scored response does not count as one.

    >>> zero_variance_groups(torch.tensor([0.5, 0.5, 0.1, 0.2, torch.nan]), torch.tensor([0, 0, 1, 1, 2]))
    tensor([ True,  True, False, False, False])
    """
    index_B, scored_B = _dense_index(groups_B), ~rewards_B.isnan()
    highest_B = -_group_lowest(-rewards_B, scored_B, index_B)  # -inf without a scored response, where the lowest is inf
    return _group_lowest(rewards_B, scored_B, index_B) == highest_B


def _check_confidence(name: str, confidence_B: Tensor, advantages_B: Tensor) -> None:
    check_axes(name, confidence_B, "advantages_B", advantages_B)
    outside_B, rule = (confidence_B < 0) | (confidence_B > 1), "lie in [0, 1] (NaN where unknown)"
    check_values(name, confidence_B, outside_B, rule, "pass probabilities, not log-probs")


def _dense_index(groups_B: Tensor) -> Tensor:
    """Group ids as 0..N-1 in the order of their values. N is at most B, so the sums over groups have B places."""
    return groups_B.unique(return_inverse=True)[1]


def _group_sum(values_B: Tensor, index_B: Tensor) -> Tensor:
    """The sum over each response's group, shape (B,)."""
    return torch.zeros_like(values_B).index_add_(0, index_B, values_B)[index_B]


def _group_lowest(values_B: Tensor, counts_B: Tensor, index_B: Tensor) -> Tensor:
    """The lowest counting value of each response's group, shape (B,); infinity where none counts."""
    values_B = torch.where(counts_B, values_B, torch.inf)
    return torch.full_like(values_B, torch.inf).scatter_reduce(0, index_B, values_B, "amin")[index_B]


def _group_mean(values_B: Tensor, counts_B: Tensor, index_B: Tensor) -> Tensor:
    """The mean over the counting responses of each response's group, shape (B,); NaN where none counts."""
    return _group_sum(torch.where(counts_B, values_B, 0.0), index_B) / _group_sum(counts_B.long(), index_B)


def _sample_std(deviations_B: Tensor, counts_B: Tensor, index_B: Tensor) -> Tensor:
    """Standard deviation with ddof 1 over each response's group, shape (B,); 0 where fewer than two count."""
    squares_B = _group_sum(deviations_B**2, index_B)
    return (squares_B / (_group_sum(counts_B.long(), index_B) - 1).clamp(min=1)).sqrt()
