"""Stops a training before NaN or infinity reaches the weights, and keeps the batch that caused it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trl import GRPOTrainer

MOST_NAMES = 20


@dataclass(eq=False)
class NonFiniteError(Exception):
    """The loss or the gradient of a step, or what tokens are drawn from, is not finite; the optimizer has not seen it.

    ``process`` is the first process that has such a value. ``batches`` are this process's micro-batches of the step, up
    to the one at fault, as TRL's loss took them, and ``gradients`` the names of its gradients that are not finite.
    """

    what: str
    value: float
    process: int
    batches: list[dict[str, Any]] = field(default_factory=list)
    gradients: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"the {self.what} is {self.value}"


class FiniteGuard(GRPOTrainer):
    """Raises :class:`NonFiniteError`. It has to come before GRPOTrainer among the bases of a trainer.

    It checks the loss before the backward pass and the norm of the gradient before the optimizer's step; all processes
    then stop together. Each process checks by itself the distribution that it draws tokens from. With float16, whose
    scaler finds its scale by skipping steps with an infinite gradient, it checks only the loss.
    """

    _micro_batches: list[dict[str, Any]]
    _gradients: list[str]

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = super().compute_loss(model, inputs, *args, **kwargs)
        if model.training:
            self._micro_batches = [*getattr(self, "_micro_batches", []), inputs]
            # A process that stopped alone would leave the others waiting for its gradient.
            losses = self.accelerator.gather(loss.detach().float().reshape(1))
            if not losses.isfinite().all():
                process = int((~losses.isfinite()).nonzero()[0])
                raise NonFiniteError("loss", losses[process].item(), process, self._micro_batches)
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        self._find_bad_gradients()
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if grad_norm is None:  # gradients are not clipped
            self._find_bad_gradients()
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and self.accelerator.scaler is None and not math.isfinite(value := float(norm)):
            process = self.accelerator.process_index
            raise NonFiniteError("norm of the gradient", value, process, self._micro_batches, self._gradients)
        self._micro_batches = []
        return norm

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        try:
            return super()._generate_and_score_completions(inputs)
        except (FloatingPointError, RuntimeError) as error:
            # progrpo's own sampling raises the first, torch.multinomial the second.
            if isinstance(error, FloatingPointError) or "probability tensor contains" in str(error):
                process = self.accelerator.process_index
                raise NonFiniteError("distribution of the next token", math.nan, process) from error
            raise

    def _find_bad_gradients(self) -> None:
        """Note the gradients that are not finite, before clipping spreads one NaN over all of them."""
        self._gradients = non_finite((name, parameter.grad) for name, parameter in self.model.named_parameters())


def batch_tensors(batches: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Micro-batches as named tensors: ``0.prompt_ids``, ``0.advantages``, ..., ``1.prompt_ids``.

    >>> sorted(batch_tensors([{"advantages": torch.zeros(2), "num_items_in_batch": 7, "old_per_token_logps": None}]))
    ['0.advantages', '0.num_items_in_batch']
    """
    # Cloned: safetensors refuses a tensor that micro-batches share, such as the number of tokens.
    return {
        f"{i}.{name}": torch.as_tensor(value).detach().cpu().contiguous().clone()
        for i, batch in enumerate(batches)
        for name, value in batch.items()
        if isinstance(value, Tensor | int | float)
    }


def non_finite(tensors: Iterator[tuple[str, Tensor | None]]) -> list[str]:
    """The names of tensors with a NaN or an infinity in this process's shards, :data:`MOST_NAMES` at most."""
    names: list[str] = []
    for name, tensor in tensors:
        local = tensor.to_local() if tensor is not None and hasattr(tensor, "to_local") else tensor
        if local is not None and not local.isfinite().all() and len(names) < MOST_NAMES:
            names.append(name)
    return names
