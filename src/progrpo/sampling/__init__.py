"""Where samples come from: one small interface and three backends.

============  ================================================================================================
transformers  :class:`~progrpo.sampling.transformers.TransformersBackend`: this process, any device
vllm          :class:`~progrpo.sampling.vllm.VllmBackend`: vLLM's engine in this process
http          :class:`~progrpo.sampling.http.HttpBackend`: any OpenAI-compatible server
============  ================================================================================================

Each backend draws sample i of a prompt with its own seed (:func:`sample_seed`). As far as the engine's arithmetic
allows, the sample depends neither on the other prompts nor on how many samples are requested. So an evaluation that was
interrupted, or gets more samples later, goes on with the samples that it would have had.
"""

import hashlib
import json
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from progrpo.tasks.templates import Prompt, opens_thinking
from progrpo.verify.thinking import begin_thinking

PIECE = 16
"""A server or an engine works on several pieces of at most so many samples at once, and finishes them in any order. An
interruption loses only the pieces that are not finished."""


@dataclass(frozen=True)
class Sample:
    """One response, with a record of each of its tokens, including the end-of-sequence token."""

    text: str
    """If the prompt ends in an open thinking part, the text begins with the ``<think>`` that opened it."""
    token_ids: list[int]
    """Empty if a server gives no ids."""
    logps: list[float]
    """Log-prob of each token in nats under the distribution that it was drawn from: at the sampling temperature, and
    with top_p below 1 renormalised over the tokens that remain. At temperature 0 nothing is drawn, and the distribution
    is the model's at temperature 1. Empty if a server gives none."""
    entropies: list[float] | None = None
    """Entropy of the same distribution at each token, in nats; None if the backend does not give it."""
    truncated: bool = False
    """Whether the response was cut off by ``max_new_tokens``."""
    counted_tokens: int | None = None
    """The number of tokens, if neither ids nor log-probs are given; None if it is not known either."""

    @property
    def tokens(self) -> int:
        """The number of tokens; 0 if it is not known."""
        return max(len(self.token_ids), len(self.logps)) or self.counted_tokens or 0


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Args:
        max_new_tokens: the most tokens of a response, its end token included.
        temperature: the sampling temperature. 0 takes the likeliest token each time (greedy decoding), so that all
            samples of a prompt are equal.
        top_p: sample from the likeliest tokens whose probabilities add up to it. 1 samples from all tokens, and is the
            only value allowed at temperature 0.
        seed: the seed of the whole evaluation.

    Raises:
        ValueError: an argument is out of its range.
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
    """Plain text, which the model continues; or messages, for the model's chat template."""
    first: int
    count: int


SampleStream = Generator[tuple[int, list[Sample]], None, None]
"""Some samples at a time, with the place of their request in the list of requests."""


def in_thinking(samples: Sequence[Sample], prompt: Prompt, template_opens: bool) -> list[Sample]:
    """The samples of a prompt, with its ``<think>`` if it ends in one; see
    :func:`progrpo.tasks.templates.opens_thinking`."""
    if not opens_thinking(prompt, template_opens):
        return list(samples)
    return [replace(sample, text=begin_thinking(sample.text)) for sample in samples]


class Backend(Protocol):
    """Samples responses from one model."""

    @property
    def name(self) -> str:
        """``transformers``, ``vllm`` or ``http``. Samples of different backends are never mixed."""

    @property
    def model_digest(self) -> str:
        """Identifies the model's weights; for a server, its address and its name for the model."""

    def sample(self, requests: Sequence[Request], sampling: Sampling) -> SampleStream:
        """Yield the samples as they come: the place of a request in the list, and its next samples.

        Requests come in any order and in several pieces. The samples of one request come in the order of their index,
        each once. The generator may be closed before its end.

        Raises:
            ConfigError: the samples can't be drawn, for example because a prompt is too long or a server is away.
        """


def sample_seed(seed: int, prompt: Prompt, index: int) -> int:
    """The seed of a prompt's sample ``index``. It is below 2**31, as servers require; the next sample's is one higher.

    >>> sample_seed(0, "1 + 1 =", 3) - sample_seed(0, "1 + 1 =", 0)
    3
    >>> sample_seed(0, "1 + 1 =", 0) == sample_seed(1, "1 + 1 =", 0)
    False
    """
    key = json.dumps([seed, prompt], sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) % 2**30 + index


def split(requests: Sequence[Request], most: int = PIECE) -> list[tuple[int, Request]]:
    """Pieces of at most ``most`` samples, each with the place of its request.

    >>> [(place, piece.first, piece.count) for place, piece in split([Request("a", 4, 5), Request("b", 0, 1)], most=3)]
    [(0, 4, 3), (0, 7, 2), (1, 0, 1)]
    """
    return [
        (place, Request(request.prompt, first, min(most, request.first + request.count - first)))
        for place, request in enumerate(requests)
        for first in range(request.first, request.first + request.count, most)
    ]


def in_order(requests: Sequence[Request], pieces: Iterable[tuple[int, int, list[Sample]]]) -> SampleStream:
    """The samples of each request in the order of their index, from pieces in any order: the place of the request, the
    index of the first sample, and the samples.

    >>> pieces = [(0, 1, [Sample("1", [], [])]), (0, 0, [Sample("0", [], [])])]
    >>> [[sample.text for sample in samples] for _, samples in in_order([Request("a", 0, 2)], pieces)]
    [['0', '1']]
    """
    following = [request.first for request in requests]
    kept: dict[tuple[int, int], list[Sample]] = {}
    for place, first, samples in pieces:
        kept[place, first] = samples
        ready: list[Sample] = []
        while piece := kept.pop((place, following[place]), []):
            ready += piece
            following[place] += len(piece)
        if ready:
            yield place, ready
