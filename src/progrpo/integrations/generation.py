"""Log-probs and entropies of sampled tokens, recorded while transformers generates: no forward pass of their own."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import StoppingCriteria, StoppingCriteriaList

from progrpo.core import token_logps


class SampledLogps(StoppingCriteria):
    """The log-prob and entropy of every token that ``model.generate`` samples.

    A forward hook sees each step's logits and a stopping criterion sees the token that was then chosen, so one gather
    a step is the whole cost. Both are at the sampling temperature over the full vocabulary, before top-k, top-p and
    penalties: the convention of TRL's own log-probs.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self.rows: list[list[float]] | None = None
        self._steps: list[tuple[Tensor, Tensor]] = []
        self._last_logits_BV: Tensor | None = None

    @property
    def logps_BT(self) -> Tensor:
        """Log-probs in nats, shape (B, T); what follows a response's end is meaningless."""
        return torch.stack([logps_B for logps_B, _ in self._steps], dim=1)

    @property
    def entropy_BT(self) -> Tensor:
        """Entropy of the distribution that each token was drawn from, in nats, shape (B, T)."""
        return torch.stack([entropy_B for _, entropy_B in self._steps], dim=1)

    def take(self, lengths: list[int]) -> list[list[float]]:
        """The recorded log-probs as one list per response, cut to these lengths."""
        if self.rows is None:
            self.rows = self.logps_BT.tolist()
        return [row[:length] for row, length in zip(self.rows, lengths, strict=True)]

    def keep_logits(self, module: nn.Module, args: Any, output: Any) -> None:
        """The forward hook."""
        self._last_logits_BV = output.logits[:, -1].detach()

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Called after each sampled token; never asks to stop."""
        assert self._last_logits_BV is not None, "generate() chose a token before any forward pass"
        logps_B1, entropy_B1 = token_logps(
            self._last_logits_BV[:, None], input_ids[:, -1:], temperature=self.temperature
        )
        self._steps.append((logps_B1[:, 0], entropy_B1[:, 0]))
        self._last_logits_BV = None
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@contextmanager
def record_logps(model: Any, *, temperature: float) -> Iterator[SampledLogps]:
    """Record the log-probs of all that ``model.generate`` (or ``generate_batch``) samples within the block.

    ``generate_batch``, transformers' continuous batching, hands log-probs over itself if it is configured with
    ``return_logprobs=True``; they are those of the processed distribution.
    """
    record = SampledLogps(temperature)
    hook = model.register_forward_hook(record.keep_logits)
    generate, generate_batch = model.generate, model.generate_batch

    @functools.wraps(generate)
    def generate_and_record(*args: Any, **kwargs: Any) -> Any:
        criteria = StoppingCriteriaList([*(kwargs.pop("stopping_criteria", None) or []), record])
        return generate(*args, stopping_criteria=criteria, **kwargs)

    @functools.wraps(generate_batch)
    def generate_batch_and_record(*args: Any, **kwargs: Any) -> Any:
        hook.remove()  # its logits are packed: no row is a response
        outputs = generate_batch(*args, **kwargs)
        record.rows = [output.logprobs for output in outputs.values()]
        return outputs

    # Set on the instance, where they hide the class's methods for as long as the block lasts.
    hidden = {name: model.__dict__[name] for name in ("generate", "generate_batch") if name in model.__dict__}
    model.__dict__.update(generate=generate_and_record, generate_batch=generate_batch_and_record)
    try:
        yield record
    finally:
        hook.remove()
        del model.__dict__["generate"], model.__dict__["generate_batch"]
        model.__dict__.update(hidden)
