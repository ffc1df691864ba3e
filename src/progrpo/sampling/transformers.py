"""Samples from a transformers model in this process, on any device."""

import inspect
import sys
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from numpy.random import Philox
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from progrpo.common.errors import ConfigError
from progrpo.sampling import Request, Sample, SampleStream, Sampling, in_thinking, sample_seed, split
from progrpo.tasks.templates import Prompt, template_opens_thinking

Piece = tuple[int, Request]  # samples of a request, with the request's place


class TransformersBackend:
    """Samples from a causal language model.

    A prompt is read once for all its samples, a finished sample leaves the batch, and prompts of similar length are
    read together. Each sample draws from its own random stream, so that the other samples of its batch change nothing
    but the rounding of the model's arithmetic.

    Args:
        model, tokenizer: a causal language model, and its tokenizer with a pad token.
        batch: the most samples generated at a time.
        model_digest: see :class:`progrpo.sampling.Backend`; needed only where samples are kept.
    """

    name = "transformers"

    def __init__(self, model: Any, tokenizer: Any, *, batch: int = 1024, model_digest: str = "") -> None:
        self.model, self.tokenizer, self.batch, self.model_digest = model, tokenizer, batch, model_digest

    def sample(self, requests: Sequence[Request], sampling: Sampling) -> SampleStream:
        """The samples of each request, the longest prompts first; see :class:`progrpo.sampling.Backend`.

        Raises:
            ConfigError: a prompt is longer than the model's window, or the model gives no finite probabilities.
        """
        prompt_ids = token_ids(self.tokenizer, [request.prompt for request in requests])
        longest_first = sorted(split(requests, self.batch), key=lambda piece: -len(prompt_ids[piece[0]]))
        template_opens = template_opens_thinking(self.tokenizer)
        training = self.model.training
        self.model.eval()
        try:
            for pieces in _batches(longest_first, self.batch):
                drawn = self._sample_batch([prompt_ids[place] for place, _ in pieces], pieces, sampling)
                for (place, request), samples in zip(pieces, drawn, strict=True):
                    yield place, in_thinking(samples, request.prompt, template_opens)
        finally:
            self.model.train(training)

    @torch.no_grad()
    def _sample_batch(self, prompts: list[list[int]], pieces: list[Piece], sampling: Sampling) -> list[list[Sample]]:
        """The samples of each piece; ``prompts`` holds the tokens of its prompt."""
        window = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
        check_lengths(prompts, window)
        counts = [request.count for _, request in pieces]
        limits = [min(sampling.max_new_tokens, window - len(ids)) for ids in prompts]
        limits = [limit for limit, count in zip(limits, counts, strict=True) for _ in range(count)]
        streams = [
            np.random.Generator(Philox(sample_seed(sampling.seed, request.prompt, i)))
            for _, request in pieces
            for i in range(request.first, request.first + request.count)
        ]
        ends = _end_ids(self.model, self.tokenizer)
        device, lengths_N = self.model.device, torch.tensor([len(ids) for ids in prompts])
        unpadded = [torch.tensor(ids) for ids in prompts]
        ids_NP = pad_sequence(
            unpadded, batch_first=True, padding_value=self.tokenizer.pad_token_id, padding_side="left"
        )
        mask_NP = torch.arange(ids_NP.shape[1]) >= ids_NP.shape[1] - lengths_N[:, None]
        forward = _Forward(self.model, len(prompts))
        logits_NV = forward.read(ids_NP.to(device), mask_NP.long().to(device))
        prompt_B = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(device)
        forward.select(prompt_B)
        logits_BV = logits_NV[prompt_B]
        drawn: list[list[tuple[int, float, float]]] = [[] for _ in streams]
        alive = list(range(len(streams)))  # the sample of each row of the batch
        while True:
            uniform_B = torch.tensor([streams[i].random() for i in alive], dtype=torch.float64)
            try:
                ids_B, logps_B, entropy_B = draw(logits_BV, uniform_B, sampling.temperature, sampling.top_p)
            except FloatingPointError as error:
                raise ConfigError(
                    f"{error}: the model's weights are damaged, or too large for their dtype; use another checkpoint, "
                    "or a wider dtype."
                ) from None
            tokens = zip(ids_B.tolist(), logps_B.tolist(), entropy_B.tolist(), strict=True)
            for i, token in zip(alive, tokens, strict=True):
                drawn[i].append(token)
            rows = [row for row, i in enumerate(alive) if drawn[i][-1][0] not in ends and len(drawn[i]) < limits[i]]
            if not rows:
                break
            if len(rows) < len(alive):
                alive = [alive[row] for row in rows]
                forward.select(torch.tensor(rows, device=device))
            ids_B1 = ids_B[rows, None]
            logits_BV = forward.read(ids_B1, torch.ones_like(ids_B1))
        samples = []
        for sample in drawn:
            ids, logps, entropies = (list(values) for values in zip(*sample, strict=True))
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            samples.append(Sample(text, ids, logps, entropies, truncated=ids[-1] not in ends))
        return [samples[start:end] for start, end in pairwise(accumulate(counts, initial=0))]


class _Forward:
    """The model's forward passes over one batch."""

    def __init__(self, model: Any, rows: int) -> None:
        self.model, self.cache = model, DynamicCache(config=model.config)
        self.mask_BT = torch.zeros(rows, 0, dtype=torch.long, device=model.device)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.parameters = inspect.signature(base.forward).parameters

    def read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The logits of the token that follows these in each row, shape (B, V)."""
        self.mask_BT = torch.cat([self.mask_BT, mask], dim=1)
        # Not every model takes these arguments.
        positions = (self.mask_BT.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        optional = {"position_ids": positions, "logits_to_keep": 1}
        supported = {name: value for name, value in optional.items() if name in self.parameters}
        output = self.model(
            input_ids=ids, attention_mask=self.mask_BT, past_key_values=self.cache, use_cache=True, **supported
        )
        return output.logits[:, -1]

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, of which one may come several times."""
        self.cache.batch_select_indices(rows)
        self.mask_BT = self.mask_BT[rows]


def draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one token per row: the one at which the cumulative sum of the distribution exceeds a uniform random number.

    Args:
        logits_BV: logits of the next token.
        uniform_B: random numbers in [0, 1).
        temperature, top_p: as in :class:`progrpo.sampling.Sampling`. At temperature 0 the token is the likeliest one.

    Returns:
        Token ids, their log-probs, and the entropy of the distribution that they were drawn from (nats), each (B,). At
        temperature 0 the distribution is the model's own.

    Raises:
        FloatingPointError: the logits of a row are NaN, so that there is no distribution.

    >>> logits = torch.tensor([[0.0, 0.0, 0.0, 0.0]] * 2)
    >>> ids, logps, entropies = draw(logits, torch.tensor([0.1, 0.6]), temperature=1.0, top_p=1.0)
    >>> ids.tolist(), round(float(logps[0].exp()), 6), round(float(entropies[0].exp()), 6)
    ([0, 2], 0.25, 4.0)
    """
    logps_BV = torch.log_softmax(logits_BV.float() / (temperature or 1.0), dim=-1)
    if top_p < 1:
        sorted_BV, order_BV = logps_BV.sort(dim=-1, descending=True)
        before_BV = sorted_BV.exp().cumsum(dim=-1) - sorted_BV.exp()
        left_out_BV = torch.zeros_like(logps_BV, dtype=torch.bool).scatter(1, order_BV, before_BV >= top_p)
        logps_BV = torch.log_softmax(logps_BV.masked_fill(left_out_BV, -torch.inf), dim=-1)
    probs_BV = logps_BV.exp()
    # In float32 the rounding of a sum over a large vocabulary outweighs rare tokens; MPS has no float64.
    wide = torch.float32 if probs_BV.device.type == "mps" else torch.float64
    cumulative_BV = probs_BV.cumsum(dim=-1, dtype=wide)
    threshold_B = uniform_B.to(cumulative_BV) * cumulative_BV[:, -1]
    drawn_B = torch.searchsorted(cumulative_BV, threshold_B[:, None], right=True)[:, 0].clamp(max=probs_BV.shape[1] - 1)
    ids_B = drawn_B if temperature else logits_BV.argmax(dim=-1)
    entropy_B = -(probs_BV * logps_BV.clamp(min=torch.finfo(torch.float32).min)).sum(dim=-1)
    logps_B = logps_BV.gather(1, ids_B[:, None])[:, 0]
    if not logps_B.isfinite().all():
        raise FloatingPointError("the logits of a response's next token are not finite")
    return ids_B, logps_B, entropy_B


def token_ids(
    tokenizer: Any,
    prompts: Sequence[Prompt],
    remedy: str = "take another template, such as base (--template base, task.template=base)",
) -> list[list[int]]:
    """The prompts' tokens, as in TRL: the chat template writes the special tokens of messages, and the tokenizer adds
    them to plain text. Raises ConfigError with this remedy for messages without a chat template."""
    if not tokenizer.chat_template and not all(isinstance(prompt, str) for prompt in prompts):
        raise ConfigError(f"the prompts are messages and the model's tokenizer has no chat template: {remedy}.")
    ids = []
    for prompt in prompts:
        is_text = isinstance(prompt, str)
        text = prompt if is_text else tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        ids.append(tokenizer(text, add_special_tokens=is_text)["input_ids"])
    return ids


def check_lengths(prompt_ids: Sequence[Sequence[int]], window: int, remedy: str = "") -> None:
    """Raise ConfigError for a prompt that is empty or fills the model's window; the message includes ``remedy``."""
    for ids in prompt_ids:
        if not 0 < len(ids) < window:
            raise ConfigError(
                f"a prompt has {len(ids)} tokens, where the model reads 1 to {window - 1}; leave it out, {remedy}or "
                "take a model with a longer window."
            )


def _end_ids(model: Any, tokenizer: Any) -> set[int]:
    """Every token that ends a response; chat models have several."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return {end for end in (*several, tokenizer.eos_token_id) if end is not None}


def _batches(pieces: Sequence[Piece], most: int) -> Iterator[list[Piece]]:
    """Neighbouring pieces in batches of at most ``most`` samples."""
    batch: list[Piece] = []
    for piece in pieces:
        if batch and sum(request.count for _, request in [*batch, piece]) > most:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch
