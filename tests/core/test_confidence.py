import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reference import cases, method
from torch import Tensor

from progrpo.core import answer_confidence, low_probability_mask, prompt_confidence
from progrpo.core.confidence import _low_prob_counts

SHAPES = [(1, 1), (1, 5), (4, 7), (6, 35), (3, 101)]
FRACTIONS = [0.05, 0.2, 0.3, 1 / 3, 0.5, 0.999, 1]
CONFIDENCES = {"prompt": prompt_confidence, "answer": answer_confidence}
each_confidence = pytest.mark.parametrize("confidence", CONFIDENCES.values(), ids=CONFIDENCES)


def assert_confidences(actual_B: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(actual_B.double(), torch.tensor(expected).double(), rtol=2e-6, atol=0, equal_nan=True)


def test_prompt_confidence_worked_by_hand() -> None:
    logps = torch.tensor([[0.5, 0.125, 1.0], [0.9, 0.5, 0.5]]).log()
    mask = torch.tensor([[True, True, False], [False, True, True]])
    # The geometric means of 1/2 and 1/8, and of 1/2 and 1/2.
    torch.testing.assert_close(prompt_confidence(logps, mask), torch.tensor([0.25, 0.5]))


def test_answer_confidence_worked_by_hand() -> None:
    # 10 tokens, 20 % of them: 0.02 and 0.08, whose geometric mean is 0.04.
    logps = torch.tensor([[0.9, 0.02, 0.5, 0.9, 0.08, 0.9, 0.9, 0.9, 0.9, 0.9]]).log()
    mask = torch.ones(1, 10, dtype=torch.bool)
    torch.testing.assert_close(answer_confidence(logps, mask), torch.tensor([0.04]))
    assert low_probability_mask(logps, mask).nonzero().tolist() == [[0, 1], [0, 4]]


def test_the_whole_response_is_the_inverse_of_its_perplexity() -> None:
    logps, mask = cases.random_logps(0, 5, 9), cases.random_mask(0, 5, 9)
    whole = answer_confidence(logps, mask, low_prob_fraction=1)
    torch.testing.assert_close(whole, prompt_confidence(logps, mask), equal_nan=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_prompt_confidence_equals_a_loop(shape: tuple[int, int], seed: int) -> None:
    logps, mask = cases.random_logps(seed, *shape), cases.random_mask(seed, *shape)
    expected = [method.prompt_confidence(*row) for row in zip(logps.tolist(), mask.tolist(), strict=True)]
    assert_confidences(prompt_confidence(logps, mask), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_answer_confidence_equals_a_loop(shape: tuple[int, int], fraction: float, seed: int) -> None:
    logps, mask = cases.random_logps(seed, *shape), cases.random_mask(seed, *shape)
    rows = list(zip(logps.tolist(), mask.tolist(), strict=True))
    expected = [method.answer_confidence(*row, fraction) for row in rows]
    assert_confidences(answer_confidence(logps, mask, low_prob_fraction=fraction), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_low_probability_mask_equals_a_sort(shape: tuple[int, int], fraction: float, seed: int) -> None:
    logps, mask = cases.random_logps(seed, *shape), cases.random_mask(seed, *shape)
    places = low_probability_mask(logps, mask, low_prob_fraction=fraction)
    for row, row_mask, row_places in zip(logps.tolist(), mask.tolist(), places, strict=True):
        expected = sorted(method.low_probability_places(row, row_mask, fraction))
        assert row_places.nonzero().flatten().tolist() == expected


def test_t_low_holds_one_token_however_small_the_fraction() -> None:
    logps, mask = torch.tensor([[-1.0, -2.0, -1.5], [-1.0, -9.0, -9.0]]), torch.tensor([[True] * 3, [False] * 3])
    places = low_probability_mask(logps, mask, low_prob_fraction=1e-12)
    assert places.tolist() == [[False, True, False], [False, False, False]]
    confidences = answer_confidence(logps, mask, low_prob_fraction=1e-12)
    torch.testing.assert_close(confidences, torch.tensor([math.exp(-2), math.nan]), equal_nan=True)


def test_the_earlier_of_equally_likely_tokens_are_in_t_low() -> None:
    logps = torch.tensor([[-1.0, -2.0, -2.0, -2.0, -0.5], [-3.0, -3.0, -3.0, -3.0, -3.0]])
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 0] = False
    places = low_probability_mask(logps, mask, low_prob_fraction=0.4)
    assert places.tolist() == [[False, True, True, False, False], [False, True, True, False, False]]


def test_a_float64_log_prob_is_ranked_by_all_its_digits() -> None:
    # They are equal in float32, which would choose the earlier one.
    logps = torch.tensor([[-1.0, -1.0 - 1e-12, -0.1]], dtype=torch.float64)
    assert low_probability_mask(logps, torch.ones(1, 3, dtype=torch.bool)).tolist() == [[False, True, False]]


def test_the_mean_over_t_low_is_the_answer_confidence() -> None:
    logps, mask = cases.random_logps(7, 8, 40), cases.random_mask(7, 8, 40)
    places = low_probability_mask(logps, mask)
    torch.testing.assert_close(answer_confidence(logps, mask), prompt_confidence(logps, places), equal_nan=True)


@pytest.mark.parametrize("fraction", ["0.2", "0.1", "0.3", "0.07", "0.55", "0.6", "0.7", "0.9", "0.001", "1"])
def test_the_size_of_t_low_is_exact_for_every_length(fraction: str) -> None:
    counts = _low_prob_counts(torch.arange(8193), float(fraction)).tolist()
    assert counts == [0] + [max(1, math.ceil(Fraction(fraction) * length)) for length in range(1, 8193)]


def test_a_rounding_error_of_the_product_adds_no_token() -> None:
    assert math.ceil(0.07 * 100) == 8, "the rounding error that the count must not have"
    logps, mask = torch.rand(1, 100).log(), torch.ones(1, 100, dtype=torch.bool)
    assert low_probability_mask(logps, mask, low_prob_fraction=0.07).sum() == 7
    assert low_probability_mask(logps[:, :35], mask[:, :35], low_prob_fraction=0.2).sum() == 7


def test_the_size_of_t_low_by_length_in_one_batch() -> None:
    lengths = torch.arange(0, 301)
    mask = torch.arange(300) < lengths[:, None]
    counts = low_probability_mask(cases.random_logps(0, 301, 300), mask).sum(dim=1).tolist()
    assert counts == [0] + [max(1, -(-length // 5)) for length in range(1, 301)]


@settings(derandomize=True, deadline=None, max_examples=150, database=None)
@given(st.integers(1, 200_000), st.decimals("0.000001", "1", places=6, allow_nan=False))
def test_the_size_of_t_low_is_exact_for_any_decimal_fraction(length: int, fraction: Decimal) -> None:
    count = int(_low_prob_counts(torch.tensor([length]), float(fraction)))
    assert count == max(1, math.ceil(Fraction(fraction) * length)) == method.low_prob_count(length, float(fraction))


@each_confidence
def test_confidences_carry_no_gradient(confidence: Callable[..., Tensor]) -> None:
    logps = cases.random_logps(0, 3, 6).requires_grad_()
    assert not confidence(logps, torch.ones(3, 6, dtype=torch.bool)).requires_grad


@each_confidence
def test_the_order_of_responses_does_not_matter(confidence: Callable[..., Tensor]) -> None:
    logps, mask = cases.random_logps(1, 6, 12), cases.random_mask(1, 6, 12)
    order = torch.tensor([4, 2, 5, 0, 3, 1])
    torch.testing.assert_close(
        confidence(logps[order], mask[order]), confidence(logps, mask)[order], rtol=0, atol=0, equal_nan=True
    )


@each_confidence
def test_a_response_has_the_same_confidence_alone_and_in_a_batch(confidence: Callable[..., Tensor]) -> None:
    logps, mask = cases.random_logps(2, 6, 30), cases.random_mask(2, 6, 30)
    alone = torch.cat([confidence(logps[i : i + 1], mask[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(alone, confidence(logps, mask), rtol=1e-6, atol=0, equal_nan=True)


@each_confidence
@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf, 5.0])
def test_padding_and_holes_may_hold_anything(confidence: Callable[..., Tensor], garbage: float) -> None:
    logps, mask = cases.random_logps(2, 6, 12), cases.random_mask(2, 6, 12)
    dirty = torch.where(mask, logps, garbage)
    torch.testing.assert_close(confidence(dirty, mask), confidence(logps, mask), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(low_probability_mask(dirty, mask), low_probability_mask(logps, mask))


@each_confidence
@pytest.mark.parametrize("garbage", [0.0, torch.nan, -torch.inf, -50.0])
def test_added_padding_columns_change_nothing(confidence: Callable[..., Tensor], garbage: float) -> None:
    logps, mask = cases.random_logps(2, 6, 12), cases.random_mask(2, 6, 12)
    padding, off = torch.full((6, 4), garbage), torch.zeros(6, 4, dtype=torch.bool)
    padded, padded_mask = torch.cat([padding, logps, padding], 1), torch.cat([off, mask, off], 1)
    torch.testing.assert_close(
        confidence(padded, padded_mask), confidence(logps, mask), rtol=1e-6, atol=0, equal_nan=True
    )
    assert torch.equal(low_probability_mask(padded, padded_mask)[:, 4:-4], low_probability_mask(logps, mask))


@each_confidence
def test_masked_tool_tokens_in_the_middle_of_a_row_are_ignored(confidence: Callable[..., Tensor]) -> None:
    whole = torch.tensor([[-0.1, -3.0, -7.0, -7.0, -0.2, -2.0, -0.3]])
    mask = torch.tensor([[True, True, False, False, True, True, True]])
    without = whole[:, mask[0]]
    torch.testing.assert_close(confidence(whole, mask), confidence(without, torch.ones(1, 5, dtype=torch.bool)))


def test_the_order_of_tokens_does_not_matter() -> None:
    logps, mask = cases.random_logps(3, 4, 30), cases.random_mask(3, 4, 30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        answer_confidence(logps[:, order], mask[:, order]),
        answer_confidence(logps, mask),
        rtol=1e-6,
        atol=0,
        equal_nan=True,
    )


@each_confidence
def test_a_row_without_a_counted_token_is_nan(confidence: Callable[..., Tensor]) -> None:
    mask = torch.tensor([[False, False], [True, False]])
    values = confidence(torch.tensor([[torch.nan, -1.0], [-1.0, torch.nan]]), mask)
    assert values[0].isnan()
    torch.testing.assert_close(values[1], torch.tensor(math.exp(-1)))
    assert not low_probability_mask(torch.zeros(2, 2), mask)[0].any()


@each_confidence
@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (0, 0), (2, 0)])
def test_empty_batches_and_a_prompt_of_one_token(confidence: Callable[..., Tensor], rows: int, columns: int) -> None:
    # A prompt of one token has no log-prob, and so no column.
    logps, mask = torch.empty(rows, columns), torch.empty(rows, columns, dtype=torch.bool)
    values = confidence(logps, mask)
    assert values.shape == (rows,)
    assert values.isnan().all()
    assert low_probability_mask(logps, mask).shape == (rows, columns)


def test_a_response_of_one_token_is_its_own_t_low() -> None:
    torch.testing.assert_close(
        answer_confidence(torch.tensor([[-1.5]]), torch.tensor([[True]])), torch.tensor([math.exp(-1.5)])
    )


@each_confidence
def test_certain_tokens_have_confidence_one_and_rounding_does_not_exceed_it(confidence: Callable[..., Tensor]) -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert confidence(torch.zeros(1, 3), mask).item() == 1
    assert confidence(torch.full((1, 3), 0.009), mask).item() == 1


def test_certain_tokens_beside_holes_and_padding() -> None:
    # 0 is the highest log-prob. A hole must not be taken for a token with this log-prob.
    mask = torch.tensor([[False, True, True, False, True, False], [True, True, False, True, True, True]])
    logps = torch.zeros(2, 6)
    logps[1, 4] = -1.0
    places = low_probability_mask(logps, mask, low_prob_fraction=0.6)
    expected = [method.low_probability_places(*row, 0.6) for row in zip(logps.tolist(), mask.tolist(), strict=True)]
    assert [row.nonzero().flatten().tolist() for row in places] == [sorted(row) for row in expected]
    assert places.sum(dim=1).tolist() == [2, 3]
    confidences = answer_confidence(logps, mask, low_prob_fraction=0.6)
    torch.testing.assert_close(confidences, torch.tensor([1.0, math.exp(-1 / 3)]))


@each_confidence
def test_the_arguments_are_not_changed(confidence: Callable[..., Tensor]) -> None:
    # An in-place clamp would change these log-probs, which are in float32 and a rounding error above 0.
    logps, mask = torch.full((2, 3), 0.001), torch.ones(2, 3, dtype=torch.bool)
    confidence(logps, mask)
    low_probability_mask(logps, mask)
    assert torch.equal(logps, torch.full((2, 3), 0.001))
    assert mask.all()


@each_confidence
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_coarser_precisions_are_averaged_in_float32(confidence: Callable[..., Tensor], dtype: torch.dtype) -> None:
    logps, mask = cases.random_logps(4, 5, 400).to(dtype), cases.random_mask(4, 5, 400)
    values = confidence(logps, mask)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, confidence(logps.float(), mask), rtol=1e-6, atol=0, equal_nan=True)


@pytest.mark.parametrize("seed", range(3))
def test_float64_keeps_its_digits(seed: int) -> None:
    logps, mask = cases.random_logps(seed, 5, 400, dtype=torch.float64), cases.random_mask(seed, 5, 400)
    rows = list(zip(logps.tolist(), mask.tolist(), strict=True))
    for actual, expected in (
        (prompt_confidence(logps, mask), [method.prompt_confidence(*row) for row in rows]),
        (answer_confidence(logps, mask), [method.answer_confidence(*row, 0.2) for row in rows]),
    ):
        assert actual.dtype == torch.float64
        torch.testing.assert_close(
            actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12, equal_nan=True
        )


@each_confidence
@pytest.mark.parametrize(
    ("value", "shown"),
    [(torch.nan, "nan"), (torch.inf, "inf"), (-torch.inf, "-inf"), (0.5, "0.5"), (0.015625, "0.015625")],
)
def test_a_counted_value_that_is_not_a_log_prob_is_refused(
    confidence: Callable[..., Tensor], value: float, shown: str
) -> None:
    logps = torch.full((2, 3), -1.0)
    logps[1, 2] = value
    mask = torch.ones(2, 3, dtype=torch.bool)
    message = rf"logps_B[PT] must hold finite log-probabilities .*, got {shown}.* at \[1, 2\]; pass log-softmax values"
    with pytest.raises(ValueError, match=message):
        confidence(logps, mask)
    mask[1, 2] = False
    assert confidence(logps, mask).isfinite().all()


@each_confidence
@pytest.mark.parametrize(
    ("logps", "mask", "error", "message"),
    [
        ([[0.0]], torch.ones(1, 1, dtype=torch.bool), TypeError, "logps_B[PT] must be a torch.Tensor .*, got list"),
        (
            torch.zeros(3),
            torch.ones(3, dtype=torch.bool),
            ValueError,
            r"logps_B[PT] must have shape \(B, [PT]\), got \(3,\)",
        ),
        (
            torch.zeros(1, 3),
            torch.ones(1, 3),
            TypeError,
            r"mask_B[PT] must be a bool tensor .*pass mask_B[PT].bool\(\)",
        ),
        (
            torch.zeros(1, 3),
            torch.ones(1, 2, dtype=torch.bool),
            ValueError,
            "mask_B[PT] must have the shape of logps_B",
        ),
        (
            torch.zeros(1, 3),
            torch.ones(1, 3, dtype=torch.bool, device="meta"),
            ValueError,
            "mask_B[PT] is on meta but logps_B[PT] is on cpu; move one",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    confidence: Callable[..., Tensor], logps: Tensor, mask: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        confidence(logps, mask)


@pytest.mark.parametrize("fraction", [0, 0.0, -0.2, 1.0001, 20, math.nan, math.inf, True, "0.2", None])
@pytest.mark.parametrize("function", [answer_confidence, low_probability_mask])
def test_a_fraction_outside_0_1_is_refused(function: Callable[..., Tensor], fraction: float) -> None:
    with pytest.raises(ValueError, match=r"low_prob_fraction must be a number in \(0.0, 1.0\], got "):
        function(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), low_prob_fraction=fraction)
