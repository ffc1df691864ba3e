"""Argument checks of the core. Each error names the argument, its value, and the remedy."""

import math

import torch
from torch import Tensor


def check_axes(name: str, values: Tensor, like_name: str = "", like: Tensor | None = None) -> None:
    """Raise unless a tensor has the axes that its name ends in, as in ``logps_BT``, and ``like``'s shape and device."""
    axes = tuple(name.rpartition("_")[2])
    shape = str(axes).replace("'", "")
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape {shape}, got {type(values).__name__}.")
    if like is not None and values.shape != like.shape:
        raise ValueError(f"{name} must have the shape of {like_name}, {tuple(like.shape)}, got {tuple(values.shape)}.")
    if values.dim() != len(axes):
        raise ValueError(f"{name} must have shape {shape}, got {tuple(values.shape)}.")
    if like is not None and values.device != like.device:
        raise ValueError(
            f"{name} is on {values.device} but {like_name} is on {like.device}; move one of them with .to()."
        )


def check_masked(values_name: str, values: Tensor, mask_name: str, mask: Tensor) -> None:
    """Raise unless ``mask`` is a bool tensor with the shape and device of ``values``, and both have their axes."""
    check_axes(values_name, values)
    check_axes(mask_name, mask, values_name, values)
    if mask.dtype != torch.bool:
        raise TypeError(f"{mask_name} must be a bool tensor (True counts), got {mask.dtype}; pass {mask_name}.bool().")


def check_groups(groups_B: Tensor, like_name: str, like: Tensor) -> None:
    """Raise unless ``groups_B`` holds one integer group id per response."""
    check_axes("groups_B", groups_B, like_name, like)
    if groups_B.dtype.is_floating_point or groups_B.dtype.is_complex or groups_B.dtype == torch.bool:
        raise TypeError(f"groups_B must hold integer group ids, got {groups_B.dtype}; pass one id per response.")


def check_values(name: str, values: Tensor, bad: Tensor, rule: str, remedy: str) -> None:
    """Raise if a value is bad, and say which rule the first bad one breaks."""
    if bad.any():
        index = tuple(int(i) for i in bad.nonzero()[0])
        raise ValueError(f"{name} must {rule}, got {float(values[index])} at {list(index)}; {remedy}.")


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
