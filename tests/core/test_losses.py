import math

import pytest
import torch
from tests.reference import cases, method
from torch import Tensor

from progrpo.core import clipped_surrogate, token_mean


def test_loss_and_gradient_worked_by_hand() -> None:
    # Ratios 1, 2 and 0.5, with a positive and a negative advantage.
    logps = torch.tensor([[1.0, 2.0, 0.5], [1.0, 2.0, 0.5]]).log().sub(2).requires_grad_()
    loss = clipped_surrogate(logps, torch.full((2, 3), -2.0), torch.tensor([3.0, -3.0]))
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), torch.tensor([[-3.0, -3 * 1.28, -1.5], [3.0, 6.0, 3 * 0.8]]))
    torch.testing.assert_close(logps.grad, torch.tensor([[-3.0, 0.0, -1.5], [3.0, 6.0, 0.0]]))


@pytest.mark.parametrize(("clip_low", "clip_high"), [(0.2, 0.28), (0.2, 0.2), (0.0, 0.0), (1.0, 5.0), (3e-4, 4e-4)])
@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (8, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_equal_a_loop(shape: tuple[int, int], clip_low: float, clip_high: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    old = cases.random_logps(seed, *shape, dtype=torch.float64)
    logps = (old + torch.randn(shape, generator=generator, dtype=torch.float64) * 0.4).requires_grad_()
    advantages = torch.randn(shape[0], generator=generator, dtype=torch.float64)
    loss = clipped_surrogate(logps, old, advantages, clip_low=clip_low, clip_high=clip_high)
    loss.sum().backward()
    assert logps.grad is not None
    for b in range(shape[0]):
        for t in range(shape[1]):
            expected, slope = method.clipped_surrogate_token(
                logps[b, t].item(), old[b, t].item(), advantages[b].item(), clip_low, clip_high
            )
            assert loss[b, t].item() == pytest.approx(expected, rel=1e-12)
            assert logps.grad[b, t].item() == pytest.approx(slope, rel=1e-12)


def test_on_policy_the_gradient_is_that_of_the_policy_gradient() -> None:
    logps = cases.random_logps(0, 4, 6, dtype=torch.float64).requires_grad_()
    advantages = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    mask = cases.random_mask(0, 4, 6)
    token_mean(clipped_surrogate(logps, logps, advantages), mask).backward()
    expected = -advantages[:, None] * mask / mask.sum()
    torch.testing.assert_close(logps.grad, expected, rtol=1e-13, atol=0)


def test_no_gradient_flows_into_old_log_probs_or_advantages() -> None:
    logps = torch.zeros(2, 3, requires_grad=True)
    old, advantages = torch.zeros(2, 3, requires_grad=True), torch.ones(2, requires_grad=True)
    clipped_surrogate(logps, old, advantages).sum().backward()
    assert logps.grad is not None
    assert old.grad is None
    assert advantages.grad is None


def test_an_advantage_of_zero_has_no_loss_and_no_gradient() -> None:
    logps = cases.random_logps(1, 2, 5).requires_grad_()
    loss = clipped_surrogate(logps, cases.random_logps(2, 2, 5), torch.zeros(2))
    loss.sum().backward()
    assert torch.equal(loss.detach().abs(), torch.zeros(2, 5))
    assert torch.equal(logps.grad.abs(), torch.zeros(2, 5))


def test_the_order_of_responses_does_not_matter() -> None:
    logps, old = cases.random_logps(1, 5, 4), cases.random_logps(2, 5, 4)
    advantages, order = torch.randn(5, generator=torch.Generator().manual_seed(0)), torch.tensor([4, 1, 0, 3, 2])
    shuffled = clipped_surrogate(logps[order], old[order], advantages[order])
    assert torch.equal(shuffled, clipped_surrogate(logps, old, advantages)[order])


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf, 1e9])
def test_garbage_in_padding_and_holes_reaches_no_counted_token(garbage: float) -> None:
    mask = cases.random_mask(5, 4, 8)
    old, advantages = cases.random_logps(6, 4, 8), torch.tensor([1.0, -1.0, 2.0, 0.5])
    clean = cases.random_logps(5, 4, 8).requires_grad_()
    dirty = torch.where(mask, clean.detach(), garbage).requires_grad_()
    clean_loss = token_mean(clipped_surrogate(clean, old, advantages), mask)
    dirty_loss = token_mean(clipped_surrogate(dirty, torch.where(mask, old, garbage), advantages), mask)
    clean_loss.backward()
    dirty_loss.backward()
    assert torch.equal(dirty_loss, clean_loss)
    assert torch.equal(dirty.grad[mask], clean.grad[mask])


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_an_empty_batch_has_an_empty_loss(shape: tuple[int, int]) -> None:
    assert clipped_surrogate(torch.empty(shape), torch.empty(shape), torch.empty(shape[0])).shape == shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_its_gradient_comes_back_in_half(dtype: torch.dtype) -> None:
    # A ratio of exp(1/16) has 8 bits in bfloat16: it would be 1.0625.
    logps = torch.tensor([[-1.0, -1.0]], dtype=dtype, requires_grad=True)
    old = torch.tensor([[-1.0625, -3.0]], dtype=dtype)
    loss = clipped_surrogate(logps, old, torch.ones(1, dtype=dtype))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.detach(), torch.tensor([[-math.exp(0.0625), -1.28]]), rtol=1e-6, atol=0)
    loss.sum().backward()
    assert logps.grad is not None
    assert logps.grad.dtype == dtype


def test_float64_keeps_its_digits() -> None:
    old = cases.random_logps(0, 3, 5, dtype=torch.float64)
    loss = clipped_surrogate(old + 0.1, old, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(loss, torch.full_like(old, -math.exp(0.1)), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("logps", "old", "advantages", "error", "message"),
    [
        (torch.zeros(2), torch.zeros(2), torch.zeros(2), ValueError, r"logps_BT must have shape \(B, T\), got \(2,\)"),
        (None, torch.zeros(2, 3), torch.zeros(2), TypeError, "logps_BT must be a torch.Tensor .* got NoneType"),
        (
            torch.zeros(2, 3),
            torch.zeros(2, 4),
            torch.zeros(2),
            ValueError,
            "old_logps_BT must have the shape of logps_BT",
        ),
        (
            torch.zeros(2, 3),
            torch.zeros(2, 3),
            torch.zeros(3),
            ValueError,
            r"advantages_B must have the shape of .*\(2,\)",
        ),
        (
            torch.zeros(2, 3),
            torch.zeros(2, 3),
            torch.zeros(2, 1),
            ValueError,
            r"advantages_B must have .* got \(2, 1\)",
        ),
        (
            torch.zeros(2, 3),
            torch.zeros(2, 3, device="meta"),
            torch.zeros(2),
            ValueError,
            "old_logps_BT is on meta but logps_BT is on cpu; move one",
        ),
        (
            torch.zeros(2, 3),
            torch.zeros(2, 3),
            torch.zeros(2, device="meta"),
            ValueError,
            "advantages_B is on meta but a column of logps_BT is on cpu",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    logps: Tensor, old: Tensor, advantages: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        clipped_surrogate(logps, old, advantages)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("clip_low", -0.1, r"\[0.0, 1.0\]"),
        ("clip_low", 1.1, r"\[0.0, 1.0\]"),
        ("clip_low", math.nan, r"\[0.0, 1.0\]"),
        ("clip_high", -0.1, r"\[0.0, inf\)"),
        ("clip_high", math.inf, r"\[0.0, inf\)"),
        ("clip_high", None, r"\[0.0, inf\)"),
    ],
)
def test_clipping_bounds_out_of_range_are_refused(name: str, value: float, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number in {allowed}, got {value}"):
        clipped_surrogate(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1), **{name: value})
