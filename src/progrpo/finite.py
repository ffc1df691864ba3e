"""A training that stops before NaN or infinity reaches the weights, and hands over the batch that it came from."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

MOST_NAMES = 20


class NonFiniteError(Exception):
    """A step's loss or gradient is no finite number; the optimizer has not seen it.

    Attributes:
        what: ``"loss"``, ``"norm of the gradient"`` or ``"distribution of the next token"``.
        value: it, NaN or infinite.
        batches: the step's micro-batches up to the one at fault, as TRL's loss took them; none for a distribution.
    """

    def __init__(self, what: str, value: float, batches: list[dict[str, Any]]) -> None:
        super().__init__(f"the {what} is {value}")
        self.what, self.value, self.batches = what, value, batches


class FiniteGuard:
    """To be put before GRPOTrainer among the bases: raises :class:`NonFiniteError` on all processes alike.

    The loss is looked at before its backward pass, the gradient's norm before the optimizer's step. With float16, whose
    scaler skips steps with an infinite gradient as its way of finding the scale, only the loss is.
    """

    _micro_batches: list[dict[str, Any]]

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        if model.training:
            self._remember(inputs)
            # One process that stops alone would leave the others waiting for its gradient.
            at_fault = self.accelerator.reduce((~loss.detach().isfinite()).float().reshape(1), "sum")
            if at_fault.item():
                raise NonFiniteError("loss", loss.item(), self._micro_batches)
        return loss

    def _get_grad_norm(self: Any, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        if norm is not None and self.accelerator.scaler is None and not math.isfinite(value := float(norm)):
            raise NonFiniteError("norm of the gradient", value, self._micro_batches)
        self._micro_batches = []
        return norm

    def _generate_and_score_completions(self: Any, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        try:
            return super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        except (FloatingPointError, RuntimeError) as error:
            # Of progrpo's own sampling, and of torch.multinomial.
            if isinstance(error, FloatingPointError) or "probability tensor contains" in str(error):
                raise NonFiniteError("distribution of the next token", math.nan, []) from error
            raise

    def _remember(self, inputs: dict[str, Any]) -> None:
        self._micro_batches = [*getattr(self, "_micro_batches", []), inputs]


def batch_tensors(batches: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Micro-batches as named tensors: ``0.prompt_ids``, ``0.advantages``, ..., ``1.prompt_ids``.

    >>> sorted(batch_tensors([{"advantages": torch.zeros(2), "num_items_in_batch": 7, "old_per_token_logps": None}]))
    ['0.advantages', '0.num_items_in_batch']
    """
    named = {
        f"{i}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for i, batch in enumerate(batches)
        for name, value in batch.items()
        if isinstance(value, Tensor | int | float)
    }
    # A tensor that several micro-batches share (the number of tokens) is stored with each.
    return {name: value.clone() for name, value in named.items()}


def non_finite(tensors: Iterator[tuple[str, Tensor | None]]) -> list[str]:
    """The names of tensors with a NaN or an infinity in them, :data:`MOST_NAMES` at most; of this process's shards."""
    found: list[str] = []
    for name, tensor in tensors:
        local = tensor.to_local() if tensor is not None and hasattr(tensor, "to_local") else tensor
        if local is not None and not local.isfinite().all() and len(found) < MOST_NAMES:
            found.append(name)
    return found
