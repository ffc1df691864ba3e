"""What the adapters log: confidence, correction, kinds of groups, distinct solutions."""

import hashlib
import logging
import math

import torch
from torch import Tensor

from progrpo.core.advantages import activated_groups, is_correct, zero_variance_groups
from progrpo.methods.options import ArmOptions

logger = logging.getLogger(__name__)

NO_SOLUTION = -1
QUIET_STEPS = 20
"""After so many steps without an activated group, the run says so."""


def exploration_metrics(
    rewards_B: Tensor,
    groups_B: Tensor,
    digests_B: Tensor,
    prompt_confidence_B: Tensor,
    answer_confidence_B: Tensor,
    correction_B: Tensor,
    *,
    activation: str,
    correct_above: float = 0.0,
    correct_rewards_B: Tensor | None = None,
) -> dict[str, float]:
    """The metrics of one batch of scored responses, the same in every adapter.

    Args:
        rewards_B: what the advantages are made from, shape (B,); NaN where a response could not be scored.
        groups_B: integer group id of each response, shape (B,); ragged groups in any order.
        digests_B: :func:`solution_digest` of each response's solution, shape (B,).
        prompt_confidence_B, answer_confidence_B: c(q) and c(o|q), shape (B,); NaN where unknown.
        correction_B: A~ - A, shape (B,).
        activation, correct_above: which groups ARM acts on; see :func:`progrpo.core.arm_advantages`.
        correct_rewards_B: the reward that says whether a response is right, shape (B,); by default ``rewards_B``.

    Returns:
        ``confidence/prompt/*``, ``confidence/answer/*`` and ``correction/*`` (mean, min and max over responses, NaN
        where none is known); ``groups/activated``, ``groups/all_right``, ``groups/all_wrong``, ``groups/mixed``,
        ``groups/zero_variance`` (shares of all groups; one without a scored response is none of the last four, and one
        of the last is a group whose scored responses all have the same reward: it teaches nothing. The
        ``groups/same_reward`` of ``progrpo inspect`` is a share of the groups with a scored response, and takes rewards
        that differ by less than 1e-8 for the same); ``distinct_solutions`` (different
        solutions a group).

    >>> rewards, groups = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]), torch.tensor([4, 4, 4, 9, 9])
    >>> digests, c = torch.tensor([7, 7, 8, -1, -1]), torch.full((5,), 0.5)
    >>> metrics = exploration_metrics(rewards, groups, digests, c, c, c - c, activation="any_correct")
    >>> metrics["groups/all_right"], metrics["groups/mixed"], metrics["distinct_solutions"]
    (0.5, 0.0, 1.0)
    """
    metrics: dict[str, float] = {}
    named = (
        ("confidence/prompt", prompt_confidence_B),
        ("confidence/answer", answer_confidence_B),
        ("correction", correction_B),
    )
    for name, values_B in named:
        known = values_B[~values_B.isnan()]
        for statistic in ("mean", "min", "max"):
            metrics[f"{name}/{statistic}"] = getattr(known, statistic)().item() if len(known) else float("nan")
    ids_N, index_B = groups_B.unique(return_inverse=True)

    def any_of(flags_B: Tensor) -> Tensor:
        return torch.zeros_like(ids_N).index_add_(0, index_B, flags_B.to(ids_N.dtype)) > 0

    correct_rewards_B = rewards_B if correct_rewards_B is None else correct_rewards_B
    correct_B = is_correct(correct_rewards_B, correct_above)
    activated_B = activated_groups(correct_rewards_B, groups_B, activation=activation, correct_above=correct_above)
    right_N = any_of(correct_B)
    wrong_N = any_of(~correct_B & ~correct_rewards_B.isnan())
    kinds = {
        "activated": any_of(activated_B),
        "all_right": right_N & ~wrong_N,
        "all_wrong": wrong_N & ~right_N,
        "mixed": right_N & wrong_N,
        "zero_variance": any_of(zero_variance_groups(rewards_B, groups_B)),
    }
    for kind, groups_N in kinds.items():
        metrics[f"groups/{kind}"] = groups_N.float().mean().item()
    different = torch.stack([index_B, digests_B], dim=1)[digests_B != NO_SOLUTION].unique(dim=0)
    metrics["distinct_solutions"] = len(different) / max(len(ids_N), 1)
    return metrics


class ActivationWatch:
    """Says where ARM may not do what the user takes for granted: each of two things once, as nothing else would tell.

    The rewards are graded: which of them count as right. ARM has acted on no group for ``QUIET_STEPS`` training steps
    one after another: the advantages are GRPO's all that time, and why.

    Args:
        options: of the run; with ``alpha=0`` nothing is said.
        knows_what_is_right: whether the user has said, or was told, what counts as right.
    """

    def __init__(self, options: ArmOptions, *, knows_what_is_right: bool = False) -> None:
        self._options = options
        self._knows = knows_what_is_right or options.correct_reward is not None or options.correct_above != 0
        self._first_quiet_step: int | None = None
        self._lowest, self._highest = math.inf, -math.inf
        self._is_over = options.alpha == 0

    def see(self, step: int, correct_rewards_B: Tensor, groups_B: Tensor) -> None:
        """Take the responses of a generation into account.

        Args:
            step: the number of the training step that they are for.
            correct_rewards_B: the reward that says whether a response is right, shape (B,).
            groups_B: integer group id of each response, shape (B,).
        """
        if self._is_over:
            return
        o = self._options
        scored = correct_rewards_B[~correct_rewards_B.isnan()]
        if not self._knows and len(scored.unique()) > 2:
            self._knows = True
            logger.warning(
                "The rewards are graded, from %g to %g in this step: a response counts as right if its reward is above "
                "correct_above=0. Set correct_above, or correct_reward to the name of the reward that says what is "
                "right.",
                *(scored.min().item(), scored.max().item()),
            )
        activated_B = activated_groups(
            correct_rewards_B, groups_B, activation=o.activation, correct_above=o.correct_above
        )
        if activated_B.any():
            self._first_quiet_step, self._lowest, self._highest = None, math.inf, -math.inf
            return
        if len(scored):
            self._lowest = min(self._lowest, scored.min().item())
            self._highest = max(self._highest, scored.max().item())
        self._first_quiet_step = step if self._first_quiet_step is None else self._first_quiet_step
        if step - self._first_quiet_step + 1 >= QUIET_STEPS:
            self._is_over = True
            logger.warning(
                "No group was re-weighted in steps %d to %d, so the advantages are those of GRPO: %s",
                *(self._first_quiet_step, step, self._reason()),
            )

    def _reason(self) -> str:
        o = self._options
        reward = f"reward {o.correct_reward!r}" if o.correct_reward else "reward"
        if self._highest == -math.inf:
            return f"no response had a {reward} at all."
        if self._highest <= o.correct_above:
            return (
                f"no response's {reward} was above correct_above={o.correct_above:g}, the highest was "
                f"{self._highest:g}. If some of them were right, set correct_above below what a right response gets, "
                "or correct_reward to the name of the reward that says whether a response is right."
            )
        return (
            f"activation='mixed' needs right and wrong responses in one group, and none had both: a response is right "
            f"if its {reward} is above correct_above={o.correct_above:g}, and the rewards were from {self._lowest:g} "
            f"to {self._highest:g}. Set correct_above or correct_reward, or activation='any_correct'."
        )


def solution_digest(form: str | None) -> int:
    """A solution's canonical form as a number that tensors hold, the same in every process; -1 for none.

    >>> solution_digest("3 + 5") == solution_digest("3 + 5") != solution_digest("5 + 3"), solution_digest(None)
    (True, -1)
    """
    if form is None:
        return NO_SOLUTION
    return int.from_bytes(hashlib.blake2b(form.encode(errors="surrogatepass"), digest_size=8).digest()) >> 1
