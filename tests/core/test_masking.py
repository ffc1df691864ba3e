from collections.abc import Callable
from functools import partial

import pytest
import torch
from tests.reference import cases, method
from torch import Tensor

from progrpo.core import constant_mean, sequence_mean, token_mean

REDUCTIONS = {
    "token": (token_mean, method.token_mean),
    "sequence": (sequence_mean, method.sequence_mean),
    "constant": (partial(constant_mean, max_tokens=7), partial(method.constant_mean, max_tokens=7)),
}
every_reduction = pytest.mark.parametrize(("reduce", "reference"), REDUCTIONS.values(), ids=REDUCTIONS)


def test_the_three_means_worked_by_hand() -> None:
    values = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    mask = torch.tensor([[True, False, True], [True, False, False]])
    assert token_mean(values, mask).item() == pytest.approx(13 / 3, rel=1e-6)
    assert sequence_mean(values, mask).item() == pytest.approx((2.5 + 8) / 2, rel=1e-6)
    assert constant_mean(values, mask, max_tokens=4).item() == pytest.approx(13 / 8, rel=1e-6)


@every_reduction
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (6, 17)])
def test_means_equal_loops_over_tokens(
    reduce: Callable[..., Tensor], reference: Callable[..., float], shape: tuple[int, int], seed: int
) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mask = cases.random_mask(seed, *shape)
    assert reduce(values, mask).item() == pytest.approx(reference(values.tolist(), mask.tolist()), rel=1e-12, abs=1e-14)


@every_reduction
def test_the_gradient_is_the_weight_of_each_token(
    reduce: Callable[..., Tensor], reference: Callable[..., float]
) -> None:
    mask = cases.random_mask(3, 4, 6)
    values = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    reduce(values, mask).backward()
    for b in range(4):
        for t in range(6):
            unit = torch.zeros(4, 6)
            unit[b, t] = 1.0
            weight = reference(unit.tolist(), mask.tolist())
            assert values.grad is not None
            assert values.grad[b, t].item() == pytest.approx(weight, rel=1e-12, abs=1e-15)


@every_reduction
@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_masked_out_positions_may_hold_anything(
    reduce: Callable[..., Tensor], reference: Callable[..., float], garbage: float
) -> None:
    mask = cases.random_mask(1, 5, 8)
    clean = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    dirty = torch.where(mask, clean, garbage).requires_grad_()
    assert torch.equal(reduce(dirty, mask), reduce(clean, mask))
    reduce(dirty, mask).backward()
    assert dirty.grad is not None
    assert dirty.grad[~mask].eq(0).all()
    assert dirty.grad.isfinite().all()


@every_reduction
def test_added_padding_columns_change_nothing(reduce: Callable[..., Tensor], reference: Callable[..., float]) -> None:
    values, mask = torch.randn(5, 8, generator=torch.Generator().manual_seed(1)).double(), cases.random_mask(1, 5, 8)
    padding = torch.full((5, 3), torch.nan, dtype=torch.float64)
    off = torch.zeros(5, 3, dtype=torch.bool)
    padded = reduce(torch.cat([padding, values, padding], 1), torch.cat([off, mask, off], 1))
    assert padded.item() == pytest.approx(reduce(values, mask).item(), rel=1e-13)


@every_reduction
def test_the_order_of_responses_does_not_matter(reduce: Callable[..., Tensor], reference: Callable[..., float]) -> None:
    values, mask = torch.randn(5, 8, generator=torch.Generator().manual_seed(1)).double(), cases.random_mask(1, 5, 8)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert reduce(values[order], mask[order]).item() == pytest.approx(reduce(values, mask).item(), rel=1e-13)


@every_reduction
def test_no_counted_token_gives_zero_with_a_zero_gradient(
    reduce: Callable[..., Tensor], reference: Callable[..., float]
) -> None:
    values = torch.full((2, 3), torch.nan, requires_grad=True)
    mean = reduce(values, torch.zeros(2, 3, dtype=torch.bool))
    mean.backward()
    assert mean.item() == 0
    assert values.grad is not None
    assert torch.equal(values.grad, torch.zeros(2, 3))


@every_reduction
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_an_empty_batch_is_zero(
    reduce: Callable[..., Tensor], reference: Callable[..., float], shape: tuple[int, int]
) -> None:
    assert reduce(torch.empty(shape), torch.empty(shape, dtype=torch.bool)).item() == 0


def test_a_response_without_tokens_adds_zero_and_still_counts_in_the_sequence_mean() -> None:
    mask = torch.tensor([[True, True], [False, False]])
    assert sequence_mean(torch.ones(2, 2), mask).item() == 0.5


@every_reduction
@pytest.mark.parametrize(
    ("values", "mask", "error", "message"),
    [
        (
            [[1.0]],
            torch.ones(1, 1, dtype=torch.bool),
            TypeError,
            r"values_BT must be a torch.Tensor of shape \(B, T\), got",
        ),
        (torch.ones(2), torch.ones(2, dtype=torch.bool), ValueError, r"values_BT must have shape \(B, T\), got \(2,\)"),
        (
            torch.ones(1, 2),
            torch.ones(1, 2),
            TypeError,
            r"mask_BT must be a bool tensor .*float32; pass mask_BT.bool\(\)",
        ),
        (torch.ones(1, 2), torch.ones(1, 2).long(), TypeError, r"mask_BT must be a bool tensor .*int64"),
        (torch.ones(1, 2), [[True, True]], TypeError, r"mask_BT must be a torch.Tensor of shape \(B, T\), got list"),
        (
            torch.ones(1, 2),
            torch.ones(2, dtype=torch.bool),
            ValueError,
            r"mask_BT must have the shape of values_BT, \(1, 2\), got \(2,\)",
        ),
        (
            torch.ones(1, 2),
            torch.ones(2, 2, dtype=torch.bool),
            ValueError,
            r"mask_BT must have the shape of values_BT, \(1, 2\), got \(2, 2\)",
        ),
        (
            torch.ones(1, 2),
            torch.ones(1, 2, dtype=torch.bool, device="meta"),
            ValueError,
            r"mask_BT is on meta but values_BT is on cpu; move one of them with .to\(\)",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    reduce: Callable[..., Tensor],
    reference: Callable[..., float],
    values: Tensor,
    mask: Tensor,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        reduce(values, mask)


@pytest.mark.parametrize("max_tokens", [0, -1, float("nan"), float("inf"), True, "8"])
def test_max_tokens_must_be_at_least_one(max_tokens: int) -> None:
    with pytest.raises(ValueError, match=r"max_tokens must be a number in \[1, inf\), got "):
        constant_mean(torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool), max_tokens=max_tokens)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_coarse_values_are_averaged_in_float32_and_float64_keeps_its_digits(dtype: torch.dtype) -> None:
    values, mask = cases.random_logps(5, 4, 300, dtype=torch.float64).to(dtype), cases.random_mask(5, 4, 300)
    rows = values.tolist(), mask.tolist()
    for actual, expected in (
        (token_mean(values, mask), method.token_mean(*rows)),
        (sequence_mean(values, mask), method.sequence_mean(*rows)),
        (constant_mean(values, mask, max_tokens=300), method.constant_mean(*rows, 300)),
    ):
        assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert actual.item() == pytest.approx(expected, rel=1e-12 if dtype == torch.float64 else 1e-6)
