"""Samples from a transformers model in this process, on any device."""

import inspect
import sys
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.random import Philox
from torch import Tensor
from transformers import DynamicCache

from progrpo.common.errors import ConfigError
from progrpo.sampling import Request, Sample, Sampling, in_thinking, sample_seed
from progrpo.tasks.templates import Prompt, template_opens_thinking


class TransformersBackend:
    """Samples from a causal language model.

    A prompt is read once for all its samples, a finished sample leaves the batch, and prompts of like length are read
    together. Each sample draws from a random stream of its own: which samples share a batch makes no difference but
    for the rounding of the model's arithmetic.

    Args:
        model, tokenizer: a causal language model, and its tokenizer with a pad token.
        batch: samples generated at a time.
        model_digest: see :class:`progrpo.sampling.Backend`; needed only where samples are kept.
    """

    name = "transformers"

    def __init__(self, model: Any, tokenizer: Any, *, batch: int = 1024, model_digest: str = "") -> None:
        self.model, self.tokenizer, self.batch, self.model_digest = model, tokenizer, batch, model_digest

    def sample(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> Generator[tuple[int, list[Sample]], None, None]:
        """The samples of each request, the longest prompts first; see :class:`progrpo.sampling.Backend`.

        Raises:
            ConfigError: a prompt is longer than the model can read, or the model gives no finite probabilities.
        """
        prompt_ids = token_ids(self.tokenizer, [request.prompt for request in requests])
        longest_first = sorted(range(len(requests)), key=lambda i: -len(prompt_ids[i]))
        template_opens = template_opens_thinking(self.tokenizer)
        training = self.model.training
        self.model.eval()
        try:
            for pieces in _batches([(i, requests[i]) for i in longest_first], self.batch):
                streams = [_streams(request, sampling.seed) for _, request in pieces]
                ids_NP = [prompt_ids[i] for i, _ in pieces]
                for (i, piece), samples in zip(pieces, self._sample_batch(ids_NP, streams, sampling), strict=True):
                    yield i, in_thinking(samples, piece.prompt, template_opens)
        finally:
            self.model.train(training)

    @torch.no_grad()
    def _sample_batch(
        self, prompts: list[list[int]], streams: list[list[np.random.Generator]], sampling: Sampling
    ) -> list[list[Sample]]:
        """The samples of some prompts, one for each of a prompt's random streams."""
        ends = _end_ids(self.model, self.tokenizer)
        limits = [limit for limit, of in zip(self._limits(prompts, sampling), streams, strict=True) for _ in of]
        forward = _Forward(self.model, prompts, self.tokenizer.pad_token_id)
        logits_BV = forward.read_prompts([len(of_prompt) for of_prompt in streams])
        flat = [stream for of_prompt in streams for stream in of_prompt]
        drawn: list[list[tuple[int, float, float]]] = [[] for _ in flat]
        alive = list(range(len(flat)))  # which sample each row of the batch is
        while True:
            uniform_B = torch.tensor([flat[i].random() for i in alive], dtype=torch.float64)
            try:
                ids_B, logps_B, entropy_B = draw(logits_BV, uniform_B, sampling.temperature, sampling.top_p)
            except FloatingPointError as error:
                raise ConfigError(
                    f"{error}: the model's weights are damaged, or too large for their dtype; take another checkpoint, "
                    "or a wider dtype."
                ) from None
            told = zip(ids_B.tolist(), logps_B.tolist(), entropy_B.tolist(), strict=True)
            for i, one in zip(alive, told, strict=True):
                drawn[i].append(one)
            keep = [row for row, i in enumerate(alive) if drawn[i][-1][0] not in ends and len(drawn[i]) < limits[i]]
            if not keep:
                break
            if len(keep) < len(alive):
                alive = [alive[row] for row in keep]
                ids_B = forward.keep_rows(keep, ids_B)
            logits_BV = forward.read_tokens(ids_B)
        samples = iter([self._sample(tokens, tokens[-1][0] in ends) for tokens in drawn])
        return [[next(samples) for _ in of_prompt] for of_prompt in streams]

    def _limits(self, prompts: list[list[int]], sampling: Sampling) -> list[int]:
        """How many tokens may follow each prompt: a response also ends where the model's window does."""
        window = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
        for ids in prompts:
            if not 0 < len(ids) < window:
                raise ConfigError(
                    f"a prompt has {len(ids)} tokens, where the model reads 1 to {window - 1}; leave it out, or take a "
                    "model with a longer window."
                )
        return [min(sampling.max_new_tokens, window - len(ids)) for ids in prompts]

    def _sample(self, tokens: list[tuple[int, float, float]], ended: bool) -> Sample:
        ids, logps, entropies = (list(values) for values in zip(*tokens, strict=True))
        return Sample(self.tokenizer.decode(ids, skip_special_tokens=True), ids, logps, entropies, not ended)


class _Forward:
    """The model's forward passes over one batch: the prompts once, then a token of every sample at a time."""

    def __init__(self, model: Any, prompts: list[list[int]], pad_id: int) -> None:
        longest = max(map(len, prompts))
        rows = [[pad_id] * (longest - len(ids)) + ids for ids in prompts]
        masks = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
        self.model = model
        self.prompts_NP = torch.tensor(rows, device=model.device)
        self.mask_BT = torch.tensor(masks, device=model.device)
        self.cache = DynamicCache(config=model.config)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.takes = inspect.signature(base.forward).parameters

    def read_prompts(self, counts: list[int]) -> Tensor:
        """The logits of the first token of each sample, shape (B, V): as many rows a prompt as it has samples."""
        positions_NP = (self.mask_BT.cumsum(dim=1) - 1).clamp(min=0)
        logits_NV = self._logits(self.prompts_NP, positions_NP)
        row_of_sample = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(self.model.device)
        self._select(row_of_sample)
        return logits_NV[row_of_sample]

    def keep_rows(self, rows: list[int], ids_B: Tensor) -> Tensor:
        """Let the other rows go; the ids of those that stay."""
        index = torch.tensor(rows, device=self.model.device)
        self._select(index)
        return ids_B[index]

    def read_tokens(self, ids_B: Tensor) -> Tensor:
        """The logits of the next token, shape (B, V)."""
        positions_B1 = self.mask_BT.sum(dim=1, keepdim=True)
        self.mask_BT = torch.nn.functional.pad(self.mask_BT, (0, 1), value=1)
        return self._logits(ids_B[:, None], positions_B1)

    def _select(self, index: Tensor) -> None:
        self.cache.batch_select_indices(index)
        self.mask_BT = self.mask_BT[index]

    def _logits(self, ids: Tensor, positions: Tensor) -> Tensor:
        known = {"position_ids": positions, "logits_to_keep": 1}
        optional = {name: value for name, value in known.items() if name in self.takes}
        output = self.model(
            input_ids=ids, attention_mask=self.mask_BT, past_key_values=self.cache, use_cache=True, **optional
        )
        return output.logits[:, -1]


def draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor, Tensor]:
    """One token a row, by inversion of the distribution's cumulative sum at a uniform random number; at temperature 0
    the likeliest.

    Args:
        logits_BV: of the next token.
        uniform_B: in [0, 1).
        temperature, top_p: as in :class:`progrpo.sampling.Sampling`.

    Returns:
        Token ids, their log-probs, and the entropy of the distribution that they were drawn from (nats), each (B,); at
        temperature 0 of the model's own.

    Raises:
        FloatingPointError: a token has no distribution, as its logits are NaN.

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
    # In float32 the sum over a large vocabulary would be off by what rare tokens weigh; MPS has nothing finer.
    wide = torch.float32 if probs_BV.device.type == "mps" else torch.float64
    cumulative_BV = probs_BV.cumsum(dim=-1, dtype=wide)
    threshold_B = uniform_B.to(cumulative_BV) * cumulative_BV[:, -1]
    drawn_B = torch.searchsorted(cumulative_BV, threshold_B[:, None], right=True)[:, 0].clamp(max=probs_BV.shape[1] - 1)
    ids_B = drawn_B if temperature else logits_BV.argmax(dim=-1)
    entropy_B = -(probs_BV * logps_BV.clamp(min=torch.finfo(torch.float32).min)).sum(dim=-1)
    logps_B = logps_BV.gather(1, ids_B[:, None])[:, 0]
    if not logps_B.isfinite().all():
        raise FloatingPointError("the logits of a response's next token are no finite numbers")
    return ids_B, logps_B, entropy_B


def token_ids(tokenizer: Any, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The prompts' tokens, as TRL makes them: a chat template brings its own special tokens, the tokenizer adds them
    to plain text.

    Raises:
        ConfigError: messages, and a tokenizer without a chat template.
    """
    if not tokenizer.chat_template and not all(isinstance(prompt, str) for prompt in prompts):
        raise ConfigError(
            "the prompts are messages and the model's tokenizer has no chat template: take another template, such as "
            "base (--template base, task.template=base)."
        )
    texts = [
        prompt
        if isinstance(prompt, str)
        else tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        for prompt in prompts
    ]
    return [
        tokenizer(text, add_special_tokens=isinstance(prompt, str))["input_ids"]
        for text, prompt in zip(texts, prompts, strict=True)
    ]


def _end_ids(model: Any, tokenizer: Any) -> set[int]:
    """Every token that ends a response: chat models have several."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return {end for end in (*several, tokenizer.eos_token_id) if end is not None}


def _streams(request: Request, seed: int) -> list[np.random.Generator]:
    indices = range(request.first, request.first + request.count)
    return [np.random.Generator(Philox(sample_seed(seed, request.prompt, i))) for i in indices]


def _batches(pieces: list[tuple[int, Request]], batch: int) -> Iterator[list[tuple[int, Request]]]:
    """Requests put together to at most ``batch`` samples; one that has more is split, its samples in order."""
    together: list[tuple[int, Request]] = []
    for i, request in pieces:
        end = request.first + request.count
        for first in range(request.first, end, batch):
            part = Request(request.prompt, first, min(batch, end - first))
            if together and sum(one.count for _, one in together) + part.count > batch:
                yield together
                together = []
            together.append((i, part))
    if together:
        yield together
