"""Reductions of per-token values to one number, and their precision. Only tokens whose mask is True count."""

import torch
from torch import Tensor

from progrpo.core.checks import check_masked, check_number


def token_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    r"""Mean over all counted tokens of the batch, so that every token has the same weight.

    .. math:: \frac{1}{\sum_i T_i} \sum_i \sum_t x_{it}

    Args:
        values_BT: per-token values, shape (B, T).
        mask_BT: bool, shape (B, T); True counts. Masked-out positions may hold anything, NaN included.

    Returns:
        A scalar tensor, in float32 where the values are coarser. If no token counts it is 0 and has a gradient, so
        that the backward pass of a fully masked micro-batch still runs.

    Source: the loss aggregation of DAPO (arXiv 2503.14476, Eq. 8) and of ProGRPO's objective (arXiv 2602.05281).

    >>> values = torch.tensor([[1.0, 2.0, 9.0], [6.0, 9.0, 9.0]])
    >>> token_mean(values, torch.tensor([[True, True, False], [True, False, False]]))
    tensor(3.)
    """
    return _counted(values_BT, mask_BT).sum() / mask_BT.sum().clamp(min=1)


def sequence_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    r"""Mean over responses of each response's token mean, so that every response has the same weight.

    .. math:: \frac{1}{B} \sum_i \frac{1}{T_i} \sum_t x_{it}

    A response without a counted token adds 0 and still counts in B, as in TRL. The rest is as in :func:`token_mean`.
    Source: GRPO (arXiv 2402.03300, Eq. 3).

    >>> values = torch.tensor([[1.0, 2.0, 9.0], [6.0, 9.0, 9.0]])
    >>> sequence_mean(values, torch.tensor([[True, True, False], [True, False, False]]))
    tensor(3.7500)
    """
    sums_B = _counted(values_BT, mask_BT).sum(dim=1)
    return (sums_B / token_counts(mask_BT).clamp(min=1)).sum() / max(len(values_BT), 1)


def constant_mean(values_BT: Tensor, mask_BT: Tensor, *, max_tokens: int) -> Tensor:
    r"""Sum over counted tokens divided by a constant, so that a token's weight does not depend on the length.

    .. math:: \frac{1}{B \, T_{max}} \sum_i \sum_t x_{it}

    ``max_tokens`` is the generation budget of a response, at least 1. The rest is as in :func:`token_mean`.
    Source: Dr. GRPO (arXiv 2503.20783, Sec. 3.2).

    >>> values = torch.tensor([[1.0, 2.0, 9.0], [6.0, 9.0, 9.0]])
    >>> constant_mean(values, torch.tensor([[True, True, False], [True, False, False]]), max_tokens=3)
    tensor(1.5000)
    """
    check_number("max_tokens", max_tokens, low=1)
    return _counted(values_BT, mask_BT).sum() / (max(len(values_BT), 1) * max_tokens)


def _counted(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The checked values, in float32 at least; 0 where the mask is False."""
    check_masked("values_BT", values_BT, "mask_BT", mask_BT)
    return torch.where(mask_BT, at_least_float32(values_BT), 0.0)


def token_counts(mask_BT: Tensor) -> Tensor:
    """T_i: how many tokens of each response count, shape (B,), int64.

    >>> token_counts(torch.tensor([[True, True, False], [False, False, False]]))
    tensor([2, 0])
    """
    # Summing bools into int64 at once is 20 times slower on a CPU.
    return mask_BT.sum(dim=1, dtype=torch.int32).long()


def at_least_float32(values: Tensor) -> Tensor:
    """The values in their own dtype, or in float32 where that is coarser; gradients flow through.

    bfloat16 and float16 are too coarse for sums and exponentials; float64 keeps its digits.

    >>> [at_least_float32(torch.zeros(1, dtype=t)).dtype for t in (torch.bfloat16, torch.float32, torch.float64)]
    [torch.float32, torch.float32, torch.float64]
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))
