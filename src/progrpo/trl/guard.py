"""A training that stops before NaN or infinity reaches the weights, and hands over the batch that it came from."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

MOST_NAMES = 20


class NonFiniteError(Exception):
    """A step's loss or gradient is no finite number; the optimizer has not seen it.

    Attributes:
        what: ``"loss"``, ``"norm of the gradient"`` or ``"distribution of the next token"``.
        value: it, NaN or infinite.
        process: the first one that found it.
        batches: this process's micro-batches of the step up to the one at fault, as TRL's loss took them; none for a
            distribution.
        gradients: the names of this process's gradients that are not finite.
    """

    def __init__(
        self, what: str, value: float, process: int, batches: list[dict[str, Any]], gradients: Sequence[str] = ()
    ) -> None:
        super().__init__(f"the {what} is {value}")
        self.what, self.value, self.process = what, value, process
        self.batches, self.gradients = batches, list(gradients)


class FiniteGuard:
    """To be put before GRPOTrainer among the bases: raises :class:`NonFiniteError`.

    The loss is looked at before its backward pass and the gradient's norm before the optimizer's step, on all processes
    alike; the distribution that tokens are drawn from on each by itself. With float16, whose scaler skips steps with an
    infinite gradient as its way of finding the scale, only the loss is.
    """

    _micro_batches: list[dict[str, Any]]
    _gradients: list[str]

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        if model.training:
            self._remember(inputs)
            # One process that stops alone would leave the others waiting for its gradient.
            losses = self.accelerator.gather(loss.detach().float().reshape(1))
            if not losses.isfinite().all():
                process = int((~losses.isfinite()).nonzero()[0])
                raise NonFiniteError("loss", losses[process].item(), process, self._micro_batches)
        return loss

    def _clip_grad_norm(self: Any, model: Any) -> Any:
        self._look_at_gradients()
        return super()._clip_grad_norm(model)  # type: ignore[misc]

    def _get_grad_norm(self: Any, model: Any, grad_norm: Any = None) -> Any:
        if grad_norm is None:  # not clipped
            self._look_at_gradients()
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        if norm is not None and self.accelerator.scaler is None and not math.isfinite(value := float(norm)):
            process = self.accelerator.process_index
            raise NonFiniteError("norm of the gradient", value, process, self._micro_batches, self._gradients)
        self._micro_batches = []
        return norm

    def _generate_and_score_completions(self: Any, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        try:
            return super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        except (FloatingPointError, RuntimeError) as error:
            # Of progrpo's own sampling, and of torch.multinomial.
            if isinstance(error, FloatingPointError) or "probability tensor contains" in str(error):
                process = self.accelerator.process_index
                raise NonFiniteError("distribution of the next token", math.nan, process, []) from error
            raise

    def _look_at_gradients(self: Any) -> None:
        """Before their norm is taken, which spreads one NaN over all of them."""
        self._gradients = non_finite((name, parameter.grad) for name, parameter in self.model.named_parameters())

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
