"""Where samples come from: one small interface, three backends.

============  ================================================================================================
transformers  :class:`~progrpo.sampling.transformers.TransformersBackend`: any device, this process
vllm          :class:`~progrpo.sampling.vllm.VllmBackend`: vLLM's engine, in this process
http          :class:`~progrpo.sampling.http.HttpBackend`: any OpenAI-compatible server
============  ================================================================================================

Each draws sample i of a prompt from a seed of its own (:func:`sample_seed`): what a prompt's i-th sample is depends on
neither the other prompts nor on how many samples are asked for at once, as far as the engine's arithmetic allows. An
evaluation that was interrupted, or is given more samples later, so goes on with the samples that it would have had.
"""

import hashlib
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from progrpo.tasks.templates import Prompt, opens_thinking
from progrpo.verify.thinking import begin_thinking


@dataclass(frozen=True)
class Sample:
    """One response, with what was recorded for each of its tokens. The end-of-sequence token counts as a token."""

    text: str
    """Where the prompt ends inside of a thinking part, it begins with the ``<think>`` that opened it."""
    token_ids: list[int]
    """Empty where a server gives no ids."""
    logps: list[float]
    """Log-prob of each token in nats under the distribution that it was drawn from: at the sampling temperature, and
    with top_p below 1 renormalised over what top_p leaves. At temperature 0, where nothing is drawn, it is the model's
    own distribution, of temperature 1. Empty where a server gives none."""
    entropies: list[float] | None = None
    """Entropy of the same distribution at each token, in nats; None where a backend can't tell."""
    truncated: bool = False
    """Cut off by ``max_new_tokens``."""
    counted_tokens: int | None = None
    """How many tokens there are, where neither ids nor log-probs come; None where that is not known either."""

    @property
    def tokens(self) -> int:
        """How many tokens there are; 0 where that is not known."""
        return max(len(self.token_ids), len(self.logps)) or self.counted_tokens or 0


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Args:
        max_new_tokens: where a response is cut off, its end token included.
        temperature: of the sampling; 0 takes the likeliest token each time (greedy decoding), so that all samples of
            a prompt are the same.
        top_p: sample from the likeliest tokens whose probabilities add up to it; 1 samples from all, and goes with
            temperature 0 alone.
        seed: of the whole evaluation.

    Raises:
        ValueError: an argument out of its range.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}.")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be a finite number from 0, got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}.")
        if self.is_greedy and self.top_p < 1:
            raise ValueError(f"top_p must be 1 at temperature 0, which takes the likeliest token, got {self.top_p}.")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self.temperature == 0


@dataclass(frozen=True)
class Request:
    """The samples ``first`` to ``first + count - 1`` of a prompt."""

    prompt: Prompt
    """Plain text, which is continued; or messages, which the model's chat template wraps."""
    first: int
    count: int


def in_thinking(samples: Sequence[Sample], prompt: Prompt, template_opens: bool) -> list[Sample]:
    """The samples of a prompt, with the ``<think>`` that it ends in; see
    :func:`progrpo.tasks.templates.opens_thinking`."""
    if not opens_thinking(prompt, template_opens):
        return list(samples)
    return [replace(sample, text=begin_thinking(sample.text)) for sample in samples]


class Backend(Protocol):
    """Samples responses from one model."""

    @property
    def name(self) -> str:
        """``transformers``, ``vllm`` or ``http``: samples of different backends are never mixed."""
        ...

    @property
    def model_digest(self) -> str:
        """Tells the model's weights apart from all others'; for a server, where it is and what it calls the model."""
        ...

    def sample(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> Generator[tuple[int, list[Sample]], None, None]:
        """The samples of each request, as they come: the request's place, and its next samples.

        Requests may be answered in any order and in several pieces; a request's own samples come in the order of
        their index, each once. The generator may be closed before its end.

        Raises:
            ConfigError: what was asked for can't be had: a prompt that is too long, a server that is not there.
        """
        ...


def sample_seed(seed: int, prompt: Prompt, index: int) -> int:
    """The seed of a prompt's sample ``index``: below 2**31 for every server's sake; one more for the next sample.

    >>> sample_seed(0, "1 + 1 =", 3) - sample_seed(0, "1 + 1 =", 0)
    3
    >>> sample_seed(0, "1 + 1 =", 0) == sample_seed(1, "1 + 1 =", 0)
    False
    """
    told = json.dumps([seed, prompt], sort_keys=True, ensure_ascii=False)
    return int.from_bytes(hashlib.blake2b(told.encode(errors="surrogatepass"), digest_size=8).digest()) % 2**30 + index
