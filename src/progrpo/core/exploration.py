"""Metrics of a batch of scored responses: confidences, kinds of groups, distinct solutions. Every adapter logs them."""

import hashlib

import torch
from torch import Tensor

from progrpo.core.advantages import activated_groups, is_correct, zero_variance_groups

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
    correct_above: float = 0.0,
    correct_rewards_B: Tensor | None = None,
) -> dict[str, float]:
    """The metrics of one batch of scored responses.

    Args:
        rewards_B: the rewards that the advantages are made from, shape (B,); NaN where a response has none.
        groups_B: integer group id of each response, shape (B,); ragged groups in any order.
        digests_B: :func:`solution_digest` of each response's solution, shape (B,).
        prompt_confidence_B, answer_confidence_B: c(q) and c(o|q), shape (B,); NaN where unknown.
        correction_B: A~ - A, shape (B,).
        activation, correct_above: which groups ARM acts on; see :func:`progrpo.core.arm_advantages`.
        correct_rewards_B: the rewards that say whether a response is right, shape (B,); by default ``rewards_B``.

    Returns:
        ``confidence/prompt/*``, ``confidence/answer/*`` and ``correction/*``: mean, min and max over the responses,
        NaN where none is known. ``groups/activated``, ``groups/all_right``, ``groups/all_wrong``, ``groups/mixed`` and
        ``groups/zero_variance``: shares of all groups. A group has zero variance if it has scored responses and they
        all have the same reward, so that it teaches nothing. A group without a scored response counts in none of the
        last four. ``distinct_solutions``: the mean number of different solutions in a group. (``groups/same_reward``
        of ``progrpo inspect`` is a share of the groups with a scored response, and counts rewards that differ by less
        than 1e-8 as equal.)

    >>> rewards, groups = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]), torch.tensor([4, 4, 4, 9, 9])
    >>> digests, c = torch.tensor([7, 7, 8, -1, -1]), torch.full((5,), 0.5)
    >>> metrics = exploration_metrics(rewards, groups, digests, c, c, c - c, activation="any_correct")
    >>> metrics["groups/all_right"], metrics["groups/mixed"], metrics["distinct_solutions"]
    (0.5, 0.0, 1.0)
    """
    metrics: dict[str, float] = {}
    for name, values_B in (
        ("confidence/prompt", prompt_confidence_B),
        ("confidence/answer", answer_confidence_B),
        ("correction", correction_B),
    ):
        known = values_B[~values_B.isnan()]
        for statistic in ("mean", "min", "max"):
            metrics[f"{name}/{statistic}"] = getattr(known, statistic)().item() if len(known) else float("nan")
    ids_N, index_B = groups_B.unique(return_inverse=True)

    def any_of(flags_B: Tensor) -> Tensor:
        return torch.zeros_like(ids_N).index_add_(0, index_B, flags_B.to(ids_N.dtype)) > 0

    correct_rewards_B = rewards_B if correct_rewards_B is None else correct_rewards_B
    correct_B = is_correct(correct_rewards_B, correct_above)
    activated_B = activated_groups(correct_rewards_B, groups_B, activation=activation, correct_above=correct_above)
    right_N, wrong_N = any_of(correct_B), any_of(~correct_B & ~correct_rewards_B.isnan())
    kinds = {
        "activated": any_of(activated_B),
        "all_right": right_N & ~wrong_N,
        "all_wrong": wrong_N & ~right_N,
        "mixed": right_N & wrong_N,
        "zero_variance": any_of(zero_variance_groups(rewards_B, groups_B)),
    }
    metrics |= {f"groups/{kind}": groups_N.float().mean().item() for kind, groups_N in kinds.items()}
    solutions = torch.stack([index_B, digests_B], dim=1)[digests_B != NO_SOLUTION].unique(dim=0)
    metrics["distinct_solutions"] = len(solutions) / max(len(ids_N), 1)
    return metrics


def solution_digest(form: str | None) -> int:
    """A solution's canonical form as a 63-bit number, which a tensor can hold; it is the same in every process.

    >>> solution_digest("3 + 5") == solution_digest("3 + 5") != solution_digest("5 + 3"), solution_digest(None)
    (True, -1)
    """
    if form is None:
        return NO_SOLUTION
    return int.from_bytes(hashlib.blake2b(form.encode(errors="surrogatepass"), digest_size=8).digest()) >> 1
