"""Argument checks of the core. Each error names the argument, its value, and the remedy."""

import math

import torch
from torch import Tensor

from progrpo.core.precision import at_least_float32

# The rounding of a log-softmax in bfloat16 can exceed 0 by a little; a probability passed by mistake exceeds it by far.
LOGP_ROUNDING = 1e-2


def check_vector(name: str, values: Tensor, *, like: Tensor | None = None, like_name: str = "") -> None:
    """Raise unless ``values`` is a 1-D tensor, on the device and with the length of ``like``."""
    _check_tensor(name, values, 1, "(B,)", like, like_name)


def check_matrix(name: str, values: Tensor, *, like: Tensor | None = None, like_name: str = "") -> None:
    """Raise unless ``values`` is a 2-D tensor, on the device and with the shape of ``like``."""
    _check_tensor(name, values, 2, "(B, T)", like, like_name)


def check_mask(name: str, mask: Tensor, like: Tensor, like_name: str) -> None:
    """Raise unless ``mask`` is a bool tensor with the shape and device of ``like``."""
    _check_tensor(name, mask, like.dim(), str(tuple(like.shape)))
    if mask.dtype != torch.bool:
        raise TypeError(f"{name} must be a bool tensor (True counts), got {mask.dtype}; pass {name}.bool().")
    _check_alike(name, mask, like_name, like)


def check_groups(groups_B: Tensor, like: Tensor, like_name: str) -> None:
    """Raise unless ``groups_B`` holds one integer group id per response."""
    check_vector("groups_B", groups_B, like=like, like_name=like_name)
    if groups_B.dtype.is_floating_point or groups_B.dtype.is_complex or groups_B.dtype == torch.bool:
        raise TypeError(f"groups_B must hold integer group ids, got {groups_B.dtype}; pass one id per response.")


def counted_logps(name: str, logps: Tensor, mask: Tensor) -> Tensor:
    """The log-probs that count, in float32 or float64, at most 0 and without gradient; 0 where the mask is False.

    Raises if a log-prob that counts is NaN, infinite or above 0. Masked-out positions may hold anything.
    """
    counted = torch.where(mask, at_least_float32(logps.detach()), 0.0)
    if counted.numel() == 0:
        return counted
    low, high = counted.aminmax()  # one pass, which keeps NaN
    if low.isfinite() and high <= LOGP_ROUNDING:
        return counted.clamp_(max=0.0)
    bad = ~(counted.isfinite() & (counted <= LOGP_ROUNDING))
    index = tuple(int(i) for i in bad.nonzero()[0])
    raise ValueError(
        f"{name} must hold finite log-probabilities (at most 0) where its mask is True, got {float(counted[index])} "
        f"at {list(index)}; pass log-softmax values, and mask out tokens whose log-prob is unknown."
    )


def check_no_infinity(name: str, values: Tensor) -> None:
    """Raise if a value is infinite. NaN is allowed: it means that the value is not known."""
    if values.isinf().any():
        index = int(values.isinf().nonzero()[0])
        raise ValueError(
            f"{name} must not be infinite, got {float(values[index])} at [{index}]; clamp it, or pass NaN to leave the "
            "response out of its group."
        )


def check_number(name: str, value: float, *, low: float, high: float = math.inf, open_low: bool = False) -> None:
    """Raise unless ``value`` is a finite number in [low, high] ((low, high] with ``open_low``)."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < low or value > high or (open_low and value == low):
        bracket, upper = ("(" if open_low or low == -math.inf else "["), ("inf)" if high == math.inf else f"{high}]")
        raise ValueError(f"{name} must be a number in {bracket}{low}, {upper}, got {value!r}.")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}.")


def _check_tensor(
    name: str, values: Tensor, dim: int, axes: str, like: Tensor | None = None, like_name: str = ""
) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape {axes}, got {type(values).__name__}.")
    if values.dim() != dim:
        raise ValueError(f"{name} must have shape {axes}, got {tuple(values.shape)}.")
    if like is not None:
        _check_alike(name, values, like_name, like)


def _check_alike(name: str, values: Tensor, like_name: str, like: Tensor) -> None:
    if values.shape != like.shape:
        raise ValueError(f"{name} must have the shape of {like_name}, {tuple(like.shape)}, got {tuple(values.shape)}.")
    if values.device != like.device:
        raise ValueError(
            f"{name} is on {values.device} but {like_name} is on {like.device}; move one of them with .to()."
        )
