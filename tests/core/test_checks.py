"""Every argument of the core is checked, and the error begins with its name."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from progrpo.core.advantages import arm_advantages, group_relative_advantages
from progrpo.core.confidence import LOGP_ROUNDING, answer_confidence, low_probability_mask, prompt_confidence
from progrpo.core.losses import clipped_surrogate
from progrpo.core.masking import constant_mean, sequence_mean, token_mean

LOGPS, MASK = torch.full((2, 3), -1.0), torch.ones(2, 3, dtype=torch.bool)
VALUES: dict[str, Tensor] = {
    "rewards_B": torch.tensor([0.0, 1.0]),
    "advantages_B": torch.tensor([-1.0, 1.0]),
    "prompt_confidence_B": torch.tensor([0.5, 0.5]),
    "answer_confidence_B": torch.tensor([0.5, 0.5]),
    "groups_B": torch.tensor([0, 0]),
    **dict.fromkeys(("logps_BP", "logps_BT", "old_logps_BT", "values_BT"), LOGPS),
    **dict.fromkeys(("mask_BP", "mask_BT"), MASK),
}
FUNCTIONS: list[Callable[..., Tensor]] = [
    group_relative_advantages,
    arm_advantages,
    prompt_confidence,
    answer_confidence,
    low_probability_mask,
    clipped_surrogate,
    token_mean,
    sequence_mean,
    constant_mean,
]
ARGUMENTS = [(call, name) for call in FUNCTIONS for name in inspect.signature(call).parameters if name in VALUES]


def called(call: Callable[..., Tensor], **changed: Any) -> Tensor:
    names = inspect.signature(call).parameters
    settings = {"alpha": 1.0, "max_tokens": 3}
    return call(**{name: value for name, value in (VALUES | settings | changed).items() if name in names})


@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_the_error_names_an_argument_with_a_wrong_type_or_shape(call: Callable[..., Tensor], name: str) -> None:
    assert called(call).isfinite().all()
    with pytest.raises(TypeError, match=f"^{name} must be a torch.Tensor of shape "):
        called(call, **{name: VALUES[name].tolist()})
    with pytest.raises(ValueError, match=f"^{name} must have (the )?shape "):
        called(call, **{name: VALUES[name][None]})


@pytest.mark.parametrize(("call", "name"), [pair for pair in ARGUMENTS if pair[1].startswith("mask")])
def test_the_error_names_a_wrong_mask_and_the_argument_that_it_must_match(
    call: Callable[..., Tensor], name: str
) -> None:
    fits = next(other for other in inspect.signature(call).parameters if other in VALUES)
    with pytest.raises(TypeError, match=f"^{name} must be a bool tensor"):
        called(call, **{name: MASK.long()})
    with pytest.raises(ValueError, match=rf"^{name} must have the shape of {fits}, \(2, 3\), got \(2, 2\)"):
        called(call, **{name: MASK[:, :2]})


def test_the_error_shows_the_wrong_log_prob_and_not_one_with_a_rounding_error() -> None:
    logps = torch.tensor([[-1.0, LOGP_ROUNDING, torch.nan]])
    with pytest.raises(ValueError, match=r"^logps_BP must hold finite .* got nan at \[0, 2\]; pass"):
        prompt_confidence(logps, torch.ones(1, 3, dtype=torch.bool))
