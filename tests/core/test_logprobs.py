import math
from collections.abc import Callable

import pytest
import torch
from tests.reference import method
from torch import Tensor

from progrpo.core import token_logps, token_logps_from_hidden

SHAPES = [(1, 1, 2), (2, 3, 5), (4, 33, 17)]


def random_logits(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_tokens(seed: int, batch: int, length: int, vocabulary: int) -> Tensor:
    return torch.randint(0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


def weighted_sum(logps_BT: Tensor, entropy_BT: Tensor) -> Tensor:
    """A number that depends on every output by its own weight."""
    weights_BT = torch.linspace(-1, 2, logps_BT.numel(), dtype=logps_BT.dtype).view(logps_BT.shape)
    return (weights_BT * logps_BT).sum() + (weights_BT.flip(1) * entropy_BT).sum()


def test_log_prob_and_entropy_worked_by_hand() -> None:
    logits = torch.tensor([[[0.0, math.log(3.0)]]])
    logps, entropy = token_logps(logits, torch.tensor([[1]]))
    torch.testing.assert_close(logps, torch.tensor([[math.log(0.75)]]))
    torch.testing.assert_close(entropy, torch.tensor([[-0.25 * math.log(0.25) - 0.75 * math.log(0.75)]]))


def test_temperature_divides_the_logits() -> None:
    logits = torch.tensor([[[0.0, math.log(9.0)]]])
    logps, _ = token_logps(logits, torch.tensor([[1]]), temperature=2.0)
    torch.testing.assert_close(logps, torch.tensor([[math.log(0.75)]]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", [0.6, 1, 1.7])
@pytest.mark.parametrize("chunk_tokens", [1, 7, 1024])
def test_values_and_gradients_from_logits_equal_a_float64_log_softmax(
    shape: tuple[int, int, int], temperature: float, chunk_tokens: int
) -> None:
    logits, tokens = random_logits(0, *shape).requires_grad_(), random_tokens(1, *shape)
    logits64 = logits.detach().double().requires_grad_()
    actual = token_logps(logits, tokens, temperature=temperature, chunk_tokens=chunk_tokens)
    expected = method.token_logps(logits64, tokens, temperature)
    for values, reference in zip(actual, expected, strict=True):
        assert values.dtype == torch.float32
        torch.testing.assert_close(values.double(), reference, rtol=2e-6, atol=2e-6)
    weighted_sum(*actual).backward()
    weighted_sum(*expected).backward()
    torch.testing.assert_close(logits.grad.double(), logits64.grad, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("temperature", [0.6, 1.0])
@pytest.mark.parametrize("chunk_tokens", [1, 10, 1024])
def test_values_and_gradients_from_hidden_states_equal_a_float64_log_softmax(
    with_bias: bool, temperature: float, chunk_tokens: int
) -> None:
    hidden, head = random_logits(0, 3, 11, 8).requires_grad_(), (random_logits(1, 19, 8) / 8).requires_grad_()
    bias = random_logits(2, 19).requires_grad_() if with_bias else None
    tokens = random_tokens(3, 3, 11, 19)
    actual = token_logps_from_hidden(
        hidden, head, tokens, bias_V=bias, temperature=temperature, chunk_tokens=chunk_tokens
    )
    copies = [None if x is None else x.detach().double().requires_grad_() for x in (hidden, head, bias)]
    logits64 = copies[0] @ copies[1].T + (0 if bias is None else copies[2])
    expected = method.token_logps(logits64, tokens, temperature)
    for values, reference in zip(actual, expected, strict=True):
        torch.testing.assert_close(values.double(), reference, rtol=5e-6, atol=5e-6)
    weighted_sum(*actual).backward()
    weighted_sum(*expected).backward()
    for tensor, copy in zip((hidden, head, bias), copies, strict=True):
        if tensor is not None:
            torch.testing.assert_close(tensor.grad.double(), copy.grad, rtol=2e-5, atol=2e-5)


def test_the_order_of_responses_and_other_tokens_do_not_matter() -> None:
    logits, tokens = random_logits(0, 4, 6, 9), random_tokens(1, 4, 6, 9)
    order = torch.tensor([2, 0, 3, 1])
    for shuffled, values in zip(token_logps(logits[order], tokens[order]), token_logps(logits, tokens), strict=True):
        torch.testing.assert_close(shuffled, values[order], rtol=1e-6, atol=1e-6)


def test_adding_a_constant_to_the_logits_of_a_token_changes_nothing() -> None:
    logits, tokens = random_logits(0, 2, 3, 9), random_tokens(1, 2, 3, 9)
    for shifted, values in zip(token_logps(logits + 100, tokens), token_logps(logits, tokens), strict=True):
        torch.testing.assert_close(shifted, values, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_upcast_and_their_gradient_comes_back_in_half(dtype: torch.dtype) -> None:
    logits, tokens = random_logits(0, 2, 5, 50).to(dtype).requires_grad_(), random_tokens(1, 2, 5, 50)
    actual = token_logps(logits, tokens)
    for values, reference in zip(actual, method.token_logps(logits.detach(), tokens, 1.0), strict=True):
        assert values.dtype == torch.float32
        torch.testing.assert_close(values.double(), reference, rtol=2e-6, atol=2e-6)
    actual[0].sum().backward()
    assert logits.grad.dtype == dtype


@pytest.mark.parametrize("from_hidden", [False, True])
def test_float64_keeps_its_digits(from_hidden: bool) -> None:
    hidden, tokens = random_logits(0, 2, 5, 7).double(), random_tokens(1, 2, 5, 50)
    head = random_logits(2, 50, 7).double()
    logits = (hidden @ head.T).requires_grad_()
    actual = token_logps_from_hidden(hidden, head, tokens) if from_hidden else token_logps(logits, tokens)
    expected = method.token_logps(logits, tokens, 1.0)
    for values, reference in zip(actual, expected, strict=True):
        assert values.dtype == torch.float64
        torch.testing.assert_close(values, reference, rtol=1e-12, atol=1e-12)
    if not from_hidden:
        [gradient] = torch.autograd.grad(weighted_sum(*actual), logits)
        [reference] = torch.autograd.grad(weighted_sum(*expected), logits)
        torch.testing.assert_close(gradient, reference, rtol=1e-12, atol=1e-12)


def test_a_forbidden_token_adds_nothing_to_the_entropy_or_the_gradient() -> None:
    allowed = torch.tensor([[[0.3, 1.2]]], requires_grad=True)
    logits = torch.tensor([[[0.3, 1.2, -torch.inf]]], requires_grad=True)
    without, with_it = token_logps(allowed, torch.tensor([[0]])), token_logps(logits, torch.tensor([[0]]))
    for values, reference in zip(with_it, without, strict=True):
        torch.testing.assert_close(values, reference)
    # A factor above 1 would overflow the lowest float32, if it stood in for -inf.
    (100 * (with_it[0] + with_it[1])).sum().backward()
    (100 * (without[0] + without[1])).sum().backward()
    torch.testing.assert_close(logits.grad[..., :2], allowed.grad)
    assert logits.grad[0, 0, 2] == 0


def test_the_log_prob_of_a_forbidden_token_is_minus_infinity() -> None:
    assert token_logps(torch.tensor([[[0.0, -torch.inf]]]), torch.tensor([[1]]))[0].item() == -torch.inf


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_batches(shape: tuple[int, int]) -> None:
    tokens = torch.empty(shape, dtype=torch.long)
    for values in (
        *token_logps(torch.empty(*shape, 5), tokens),
        *token_logps_from_hidden(torch.empty(*shape, 4), torch.zeros(5, 4), tokens),
    ):
        assert values.shape == shape


@pytest.mark.parametrize("tokens", [torch.tensor([[0, 5]]), torch.tensor([[-100, 1]])])
def test_a_token_outside_the_vocabulary_is_refused_with_a_remedy(tokens: Tensor) -> None:
    message = r"tokens_BT must hold ids in \[0, 5\), got .*; replace the id of masked-out tokens"
    with pytest.raises(ValueError, match=message):
        token_logps(torch.zeros(1, 2, 5), tokens)
    with pytest.raises(ValueError, match=message):
        token_logps_from_hidden(torch.zeros(1, 2, 3), torch.zeros(5, 3), tokens)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: token_logps(torch.zeros(1, 2), torch.zeros(1, 2).long()),
            ValueError,
            r"logits_BTV must have shape \(B, T, V\), got \(1, 2\)",
        ),
        (
            lambda: token_logps(torch.zeros(1, 3, 4), torch.zeros(1, 2).long()),
            ValueError,
            r"tokens_BT must have the shape of logits_BTV without its last axis, \(1, 3\), got \(1, 2\)",
        ),
        (
            lambda: token_logps_from_hidden(torch.zeros(2, 2, 4), torch.zeros(5, 4), torch.zeros(1, 2).long()),
            ValueError,
            "tokens_BT must have the shape of hidden_BTD without",
        ),
        (
            lambda: token_logps_from_hidden(torch.zeros(1, 2, 4), torch.zeros(4, 5), torch.zeros(1, 2).long()),
            ValueError,
            r"head_VD must have shape \(V, 4\), got \(4, 5\)",
        ),
        (
            lambda: token_logps(torch.zeros(1, 2, 4, device="meta"), torch.zeros(1, 2).long()),
            ValueError,
            "tokens_BT is on cpu but logits_BTV without its last axis is on meta; move one",
        ),
        (
            lambda: token_logps(torch.zeros(1, 2, 4), torch.zeros(1, 2)),
            TypeError,
            "tokens_BT must hold integer .*float32",
        ),
        (lambda: token_logps(torch.zeros(1, 1, 4), torch.tensor([[True]])), TypeError, "tokens_BT must .*torch.bool"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_not_above_0_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature must be a number in \(0.0, inf\), got "):
        token_logps(torch.zeros(1, 1, 2), torch.zeros(1, 1).long(), temperature=temperature)


def test_a_chunk_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"chunk_tokens must be a number in \[1, inf\), got 0"):
        token_logps(torch.zeros(1, 1, 2), torch.zeros(1, 1).long(), chunk_tokens=0)


@pytest.mark.parametrize("chunk_tokens", [2, 1024])
def test_without_the_entropy_and_without_gradients_the_log_probs_are_the_same_bit_for_bit(chunk_tokens: int) -> None:
    logits, tokens = random_logits(0, 2, 5, 9).requires_grad_(), random_tokens(1, 2, 5, 9)
    expected, _ = token_logps(logits, tokens, temperature=0.7, chunk_tokens=chunk_tokens)
    logps, entropy = token_logps(logits, tokens, temperature=0.7, chunk_tokens=chunk_tokens, with_entropy=False)
    with torch.no_grad():
        plain, _ = token_logps(logits, tokens, temperature=0.7, chunk_tokens=chunk_tokens, with_entropy=False)
    assert entropy.isnan().all()
    assert torch.equal(logps, expected)
    assert torch.equal(plain, expected)
    [gradient] = torch.autograd.grad(logps.sum(), logits)
    [reference] = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(gradient, reference)
