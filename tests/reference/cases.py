"""Random cases for the comparisons, from a seed."""

import torch
from torch import Tensor


def random_logps(seed: int, rows: int, columns: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Log-probs between -8 and 0. Most are near 0, as in a reasoning chain, and some occur twice in their row."""
    generator = torch.Generator().manual_seed(seed)
    logps = -8 * torch.rand(rows, columns, generator=generator, dtype=dtype) ** 4
    if columns > 3:
        logps[:, columns // 2] = logps[:, 1]
    return logps


def random_mask(seed: int, rows: int, columns: int) -> Tensor:
    """Ragged rows with holes in the middle. The first is full; if there are three or more, the last has no counted
    token."""
    generator = torch.Generator().manual_seed(1000 + seed)
    lengths = torch.randint(1, columns + 1, (rows, 1), generator=generator)
    mask = (torch.arange(columns) < lengths) & (torch.rand(rows, columns, generator=generator) > 0.25)
    mask[0] = True
    if rows > 2:
        mask[-1] = False
    return mask


def random_groups(seed: int, rows: int) -> Tensor:
    """Ragged groups in any order, with ids far apart and below 0."""
    generator = torch.Generator().manual_seed(2000 + seed)
    ids = torch.tensor([907, -3, 12, 0, 2**40])
    return ids[torch.randint(0, len(ids), (rows,), generator=generator)]


def random_rewards(seed: int, rows: int, kind: str) -> Tensor:
    """Rewards in float64: ``binary``, ``graded`` (negative ones too), or binary with ``missing`` (NaN) ones."""
    generator = torch.Generator().manual_seed(3000 + seed)
    if kind == "graded":
        return torch.randn(rows, generator=generator, dtype=torch.float64)
    rewards = torch.randint(0, 2, (rows,), generator=generator).double()
    if kind == "missing":
        rewards[torch.rand(rows, generator=generator) < 0.3] = torch.nan
    return rewards


def random_confidences(seed: int, rows: int, *, missing: bool = False) -> Tensor:
    """Confidences in [0, 1], float64."""
    generator = torch.Generator().manual_seed(4000 + seed)
    confidences = torch.rand(rows, generator=generator, dtype=torch.float64)
    if missing:
        confidences[torch.rand(rows, generator=generator) < 0.3] = torch.nan
    return confidences
