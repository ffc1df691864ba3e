"""The precision that the core computes in."""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """The values in their own dtype, or in float32 where that is coarser; gradients flow through.

    bfloat16 and float16 are too coarse for sums and exponentials; float64 keeps its digits.

    >>> [at_least_float32(torch.zeros(1, dtype=t)).dtype for t in (torch.bfloat16, torch.float32, torch.float64)]
    [torch.float32, torch.float32, torch.float64]
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))
