"""While transformers generates: log-probs are recorded, and tokens may be drawn from streams of their own."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.random import Philox
from torch import Tensor, nn
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from progrpo.core.precision import at_least_float32
from progrpo.sampling.transformers import draw


class SampledLogps(StoppingCriteria):
    """The log-prob of every token that ``model.generate`` chooses, one token a row and forward pass.

    A forward hook sees each step's logits, and a stopping criterion sees the token that was then chosen. The log-probs
    are at the sampling temperature over the full vocabulary, before top-k, top-p and penalties, as TRL's own are.

    Beam search reorders its rows, assisted decoding accepts several tokens of a pass, and guidance makes a pass of its
    own: what was recorded is then not of the responses, and :meth:`take` returns None.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self.of_engine: list[tuple[list[int], list[float]]] | None = None
        """The tokens and log-probs of each response, from an engine that hands them over itself."""
        self.is_whole = True
        """Whether every pass so far chose one token for each of its rows."""
        self._steps: list[tuple[Tensor, Tensor]] = []
        self._last_logits_BV: Tensor | None = None

    @property
    def logps_BT(self) -> Tensor:
        """Log-probs in nats, shape (B, T); what follows a response's end is meaningless."""
        return torch.stack([logps_B for _, logps_B in self._steps], dim=1)

    def take(self, responses: list[list[int]]) -> list[list[float]] | None:
        """The log-probs of these responses' tokens, a list each; None if they are not what was recorded."""
        rows = self.of_engine
        if rows is None:
            if not (self.is_whole and self._steps):
                return None
            ids_BT = torch.stack([ids_B for ids_B, _ in self._steps], dim=1)
            rows = list(zip(ids_BT.tolist(), self.logps_BT.tolist(), strict=True))
        cut = [(ids[: len(own)], logps[: len(own)]) for (ids, logps), own in zip(rows, responses, strict=False)]
        is_of_these = [ids for ids, _ in cut] == responses and all(len(ids) == len(logps) for ids, logps in cut)
        return [logps for _, logps in cut] if is_of_these else None

    def keep_logits(self, module: nn.Module, args: Any, output: Any) -> None:
        """The forward hook."""
        self._last_logits_BV = output.logits[:, -1].detach()

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Called after each chosen token; never asks to stop."""
        logits_BV, self._last_logits_BV = self._last_logits_BV, None
        self.is_whole = self.is_whole and logits_BV is not None and len(logits_BV) == len(input_ids)
        if self.is_whole and logits_BV is not None:
            ids_B = input_ids[:, -1]
            logps_BV = (at_least_float32(logits_BV) / self.temperature).log_softmax(dim=1)
            self._steps.append((ids_B, logps_BV.gather(1, ids_B[:, None])[:, 0]))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@contextmanager
def record_logps(model: Any, *, temperature: float) -> Iterator[SampledLogps]:
    """Record the log-probs of all that ``model.generate`` (or ``generate_batch``) chooses within the block.

    ``generate_batch``, transformers' continuous batching, hands log-probs over itself if it is configured with
    ``return_logprobs=True``; they are those of the processed distribution.
    """
    record = SampledLogps(temperature)
    hook = model.register_forward_hook(record.keep_logits)

    def generate_and_record(generate: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if _is_guided(model, kwargs):  # its second pass would be taken for the model's own
            record.is_whole = False
            return generate(*args, **kwargs)
        criteria = StoppingCriteriaList([*(kwargs.pop("stopping_criteria", None) or []), record])
        return generate(*args, stopping_criteria=criteria, **kwargs)

    def generate_batch_and_record(generate_batch: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        hook.remove()  # its logits are packed: no row is a response
        outputs = generate_batch(*args, **kwargs)
        record.of_engine = [(output.generated_tokens, output.logprobs or []) for output in outputs.values()]
        return outputs

    try:
        with _replaced(model, generate=generate_and_record, generate_batch=generate_batch_and_record):
            yield record
    finally:
        hook.remove()


def _is_guided(model: Any, kwargs: dict[str, Any]) -> bool:
    """Whether ``generate`` does classifier-free guidance; its own configuration comes before the model's."""
    configs = (kwargs.get("generation_config"), model.generation_config)
    scales = [kwargs.get("guidance_scale"), *(getattr(config, "guidance_scale", None) for config in configs)]
    return next((scale for scale in scales if scale is not None), 1) != 1


class OwnStreams(LogitsProcessor):
    """Lets ``model.generate`` choose the tokens that each row's own random stream draws.

    What a row says then depends neither on how many rows there are nor on which process it is on, but for the rounding
    of the model's arithmetic. Drawn as :func:`progrpo.sampling.transformers.draw` does, by inversion.

    Args:
        streams: one a row of the batch.
        temperature, top_p: of the sampling.
    """

    def __init__(self, streams: Sequence[np.random.Generator], temperature: float, top_p: float) -> None:
        self.streams, self.temperature, self.top_p = streams, temperature, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores that leave the chosen token alone."""
        uniform_B = torch.tensor([stream.random() for stream in self.streams], dtype=torch.float64)
        ids_B, _, _ = draw(scores, uniform_B, self.temperature, self.top_p)
        return torch.full_like(scores, -torch.inf).scatter(1, ids_B[:, None], 0.0)


def own_streams(rows: range, *key: int) -> list[np.random.Generator]:
    """A random stream a row, the same for a row of the same number and key.

    >>> float(own_streams(range(0, 4), 7)[2].random()) == float(own_streams(range(2, 4), 7)[0].random())
    True
    """
    digests = (hashlib.blake2b(repr((key, row)).encode(), digest_size=8).digest() for row in rows)
    return [np.random.Generator(Philox(int.from_bytes(digest))) for digest in digests]


@contextmanager
def with_processor(model: Any, processor: LogitsProcessor) -> Iterator[None]:
    """Let all that ``model.generate`` samples within the block go through a logits processor."""

    def add(generate: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        processors = LogitsProcessorList([*(kwargs.pop("logits_processor", None) or []), processor])
        return generate(*args, logits_processor=processors, **kwargs)

    with _replaced(model, generate=add):
        yield


@contextmanager
def _replaced(model: Any, **wrappers: Callable[..., Any]) -> Iterator[None]:
    """Methods of one model, each called through its wrapper for as long as the block lasts."""
    # Set on the instance, where they hide the class's methods.
    hidden = {name: model.__dict__[name] for name in wrappers if name in model.__dict__}
    wrapped = {name: getattr(model, name) for name in wrappers}
    model.__dict__.update(
        {
            name: functools.wraps(wrapped[name])(functools.partial(wrapper, wrapped[name]))
            for name, wrapper in wrappers.items()
        }
    )
    try:
        yield
    finally:
        for name in wrappers:
            del model.__dict__[name]
        model.__dict__.update(hidden)
