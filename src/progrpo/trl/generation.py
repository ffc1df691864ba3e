"""Additions to transformers' generation: recorded log-probs, and a random stream of its own for each response."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.utils import is_peft_model
from numpy.random import Philox
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from progrpo.core.masking import at_least_float32
from progrpo.sampling.transformers import draw
from trl import GRPOTrainer


class SampledLogps(StoppingCriteria):
    """The log-prob of every token that ``model.generate`` chooses, one token for each row and forward pass.

    A forward hook sees the logits of each pass, and a stopping criterion sees the token that was then chosen. The
    log-probs are at the sampling temperature over the full vocabulary, before top-k, top-p and penalties, as TRL's are.

    Beam search reorders its rows, assisted decoding accepts several tokens of a pass, and guidance makes an additional
    pass. What was recorded then does not belong to the responses, and :meth:`take` returns None.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self.engine_logps: list[tuple[list[int], list[float]]] | None = None
        """The tokens and log-probs of each response, if an engine returns them itself."""
        self.is_complete = True
        """Whether every pass so far chose one token for each of its rows."""
        self._steps: list[tuple[Tensor, Tensor]] = []
        self._last_logits_BV: Tensor | None = None

    @property
    def logps_BT(self) -> Tensor:
        """Log-probs in nats, shape (B, T); those after the end of a response are meaningless."""
        return torch.stack([logps_B for _, logps_B in self._steps], dim=1)

    def take(self, responses: list[list[int]]) -> list[list[float]] | None:
        """The log-probs of these responses' tokens, one list each; None if other tokens were recorded."""
        rows = self.engine_logps
        if rows is None:
            if not (self.is_complete and self._steps):
                return None
            ids_BT = torch.stack([ids_B for ids_B, _ in self._steps], dim=1)
            rows = list(zip(ids_BT.tolist(), self.logps_BT.tolist(), strict=True))
        lengths = map(len, responses)
        cut = [(ids[:length], logps[:length]) for (ids, logps), length in zip(rows, lengths, strict=False)]
        matches = [ids for ids, _ in cut] == responses and all(len(ids) == len(logps) for ids, logps in cut)
        return [logps for _, logps in cut] if matches else None

    def keep_logits(self, module: nn.Module, args: Any, output: Any) -> None:
        """The forward hook."""
        self._last_logits_BV = output.logits[:, -1].detach()

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Called after each chosen token; never stops the generation."""
        logits_BV, self._last_logits_BV = self._last_logits_BV, None
        self.is_complete = self.is_complete and logits_BV is not None and len(logits_BV) == len(input_ids)
        if self.is_complete and logits_BV is not None:
            ids_B = input_ids[:, -1]
            logits_BV = at_least_float32(logits_BV) / self.temperature
            self._steps.append((ids_B, -cross_entropy(logits_BV, ids_B, reduction="none")))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@contextmanager
def record_logps(model: Any, *, temperature: float) -> Iterator[SampledLogps]:
    """Record the log-probs of all that ``model.generate`` (or ``generate_batch``) chooses within the block.

    ``generate_batch``, transformers' continuous batching, returns log-probs itself if it is configured with
    ``return_logprobs=True``; they are those of the processed distribution.
    """
    record = SampledLogps(temperature)
    hook = model.register_forward_hook(record.keep_logits)

    def generate_and_record(generate: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if _is_guided(model, kwargs):  # the hook can't tell its second pass from the first
            record.is_complete = False
            return generate(*args, **kwargs)
        criteria = StoppingCriteriaList([*(kwargs.pop("stopping_criteria", None) or []), record])
        return generate(*args, stopping_criteria=criteria, **kwargs)

    def generate_batch_and_record(generate_batch: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        hook.remove()  # this engine packs its logits: a row is not a response
        outputs = generate_batch(*args, **kwargs)
        record.engine_logps = [(output.generated_tokens, output.logprobs or []) for output in outputs.values()]
        return outputs

    try:
        with _wrapped(model, generate=generate_and_record, generate_batch=generate_batch_and_record):
            yield record
    finally:
        hook.remove()


def _is_guided(model: Any, kwargs: dict[str, Any]) -> bool:
    """Whether ``generate`` does classifier-free guidance; its argument overrides the model's configuration."""
    configs = (kwargs.get("generation_config"), model.generation_config)
    scales = [kwargs.get("guidance_scale"), *(getattr(config, "guidance_scale", None) for config in configs)]
    return next((scale for scale in scales if scale is not None), 1) != 1


class SeededResponses(GRPOTrainer):
    """With ``seeded_responses``, draws each response from a random stream of its own, which depends on the seed, the
    step and the response's place in the global batch: the responses are the same on any number of processes."""

    seeded_responses = False
    _generations, _generated_at = 0, -1

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        if not self.seeded_responses:
            return super()._generate_single_turn(*args, **kwargs)
        prompts = len(kwargs["prompt_ids"] if "prompt_ids" in kwargs else args[0])
        first, step = self.accelerator.process_index * prompts, self.state.global_step
        self._generations = self._generations + 1 if step == self._generated_at else 0
        self._generated_at = step
        streams = own_streams(range(first, first + prompts), self.args.seed, step, self._generations)
        with with_processor(generating_model(self), OwnStreams(streams, self.temperature, self.args.top_p)):
            return super()._generate_single_turn(*args, **kwargs)


def generating_model(trainer: GRPOTrainer) -> Any:
    """The model whose ``generate`` a trainer calls."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return model.get_base_model() if is_peft_model(model) else model


class OwnStreams(LogitsProcessor):
    """Lets ``model.generate`` choose the tokens that each row's random stream draws.

    A row's tokens then depend neither on the other rows nor on the process, up to the rounding of the model's
    arithmetic. They are drawn by inversion, as in :func:`progrpo.sampling.transformers.draw`.
    """

    def __init__(self, streams: Sequence[np.random.Generator], temperature: float, top_p: float) -> None:
        self.streams, self.temperature, self.top_p = streams, temperature, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores that leave only the chosen token."""
        uniform_B = torch.tensor([stream.random() for stream in self.streams], dtype=torch.float64)
        ids_B, _, _ = draw(scores, uniform_B, self.temperature, self.top_p)
        return torch.full_like(scores, -torch.inf).scatter(1, ids_B[:, None], 0.0)


def own_streams(rows: range, *key: int) -> list[np.random.Generator]:
    """A random stream for each row; equal row numbers and keys give equal streams.

    >>> float(own_streams(range(0, 4), 7)[2].random()) == float(own_streams(range(2, 4), 7)[0].random())
    True
    """
    digests = (hashlib.blake2b(repr((key, row)).encode(), digest_size=8).digest() for row in rows)
    return [np.random.Generator(Philox(int.from_bytes(digest))) for digest in digests]


@contextmanager
def with_processor(model: Any, processor: LogitsProcessor) -> Iterator[None]:
    """Apply a logits processor to all that ``model.generate`` samples within the block."""

    def add(generate: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        processors = LogitsProcessorList([*(kwargs.pop("logits_processor", None) or []), processor])
        return generate(*args, logits_processor=processors, **kwargs)

    with _wrapped(model, generate=add):
        yield


@contextmanager
def _wrapped(model: Any, **wrappers: Callable[..., Any]) -> Iterator[None]:
    """Call methods of one model through wrappers within the block."""
    # The wrappers are set on the instance, where they hide the methods of the class.
    hidden = {name: model.__dict__[name] for name in wrappers if name in model.__dict__}
    methods = {name: getattr(model, name) for name in wrappers}
    for name, wrapper in wrappers.items():
        model.__dict__[name] = functools.wraps(methods[name])(functools.partial(wrapper, methods[name]))
    try:
        yield
    finally:
        for name in wrappers:
            del model.__dict__[name]
        model.__dict__.update(hidden)
