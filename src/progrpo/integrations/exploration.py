"""What the adapters log: confidence, correction, kinds of groups, distinct solutions."""

import hashlib

import torch
from torch import Tensor

from progrpo.core.advantages import activated_groups

NO_SOLUTION = -1


def exploration_metrics(
    rewards_B: Tensor,
    groups_B: Tensor,
    digests_B: Tensor,
    prompt_confidence_B: Tensor,
    answer_confidence_B: Tensor,
    correction_B: Tensor,
    *,
    activation: str,
) -> dict[str, float]:
    """The metrics of one batch of scored responses, the same in every adapter.

    Args:
        rewards_B: shape (B,); NaN where a response could not be scored. Above 0 is right.
        groups_B: integer group id of each response, shape (B,); ragged groups in any order.
        digests_B: :func:`solution_digest` of each response's solution, shape (B,).
        prompt_confidence_B, answer_confidence_B: c(q) and c(o|q), shape (B,); NaN where unknown.
        correction_B: A~ - A, shape (B,).
        activation: which groups ARM acts on; see :func:`progrpo.core.arm_advantages`.

    Returns:
        ``confidence/prompt/*``, ``confidence/answer/*`` and ``correction/*`` (mean, min and max over responses, NaN
        where none is known); ``groups/activated``, ``groups/all_right``, ``groups/all_wrong``, ``groups/mixed``
        (shares of groups; one without a scored response is none of the last three); ``distinct_solutions`` (different
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

    right_N = any_of(rewards_B > 0)
    wrong_N = any_of(rewards_B <= 0)  # NaN is neither
    kinds = {
        "activated": any_of(activated_groups(rewards_B, groups_B, activation=activation)),
        "all_right": right_N & ~wrong_N,
        "all_wrong": wrong_N & ~right_N,
        "mixed": right_N & wrong_N,
    }
    for kind, groups_N in kinds.items():
        metrics[f"groups/{kind}"] = groups_N.float().mean().item()
    different = torch.stack([index_B, digests_B], dim=1)[digests_B != NO_SOLUTION].unique(dim=0)
    metrics["distinct_solutions"] = len(different) / max(len(ids_N), 1)
    return metrics


def solution_digest(form: str | None) -> int:
    """A solution's canonical form as a number that tensors hold, the same in every process; -1 for none.

    >>> solution_digest("3 + 5") == solution_digest("3 + 5") != solution_digest("5 + 3"), solution_digest(None)
    (True, -1)
    """
    if form is None:
        return NO_SOLUTION
    return int.from_bytes(hashlib.blake2b(form.encode(), digest_size=8).digest()) >> 1
