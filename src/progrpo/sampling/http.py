"""Samples from any server that speaks OpenAI's protocol: vLLM's, SGLang's, llama.cpp's, a hosted one.

Requests are sent with OpenAI's own client, which asks again after a lost connection, a stall, 429 and 5xx, waits longer
each time, and as long as ``Retry-After`` says. A server that has answered and is gone after that is waited for: it may
be starting again. An answer is taken whole or not at all.
"""

import hashlib
import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise, takewhile
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, FiniteFloat, ValidationError, model_validator

from progrpo.common.errors import ConfigError, ServerAwayError
from progrpo.sampling import Request, Sample, Sampling, in_thinking, sample_seed
from progrpo.sampling.pieces import InOrder, split
from progrpo.verify.thinking import closes_unopened

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

# Beyond OpenAI's protocol. vLLM gives token ids when asked for them. What a request leaves open, vLLM takes from the
# model's generation_config.json, and llama.cpp has defaults of its own: a cut at top_k or min_p would go unseen.
EXTRAS: dict[str, Any] = {
    "return_token_ids": True,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
ADVICE = {
    401: "set OPENAI_API_KEY (in Python, api_key) to the right key",
    403: "set OPENAI_API_KEY (in Python, api_key) to a key that may do this",
    404: "check model, and base_url, which for most servers ends in /v1",
}
OTHER_ADVICE = "look at the prompts' length, max_new_tokens, temperature and top_p"
SECONDS_BETWEEN_HALF_ANSWERS = (0.5, 8.0)
"""Before the second attempt, doubled for each further one, and at most: as OpenAI's client does for lost answers."""
SECONDS_BETWEEN_CALLS = 1.0
"""At the door of a server that is gone."""
GATEWAY_ERRORS = (502, 503, 504)
"""What a proxy says while the server behind it is gone, and a server that is still loading."""


class HttpBackend:
    """Samples from an OpenAI-compatible server: ``/completions`` continues plain text, ``/chat/completions`` messages.

    Sample i is asked for with ``sample_seed(sampling.seed, prompt, i)``, and of n choices in one answer choice j is the
    sample j further on. vLLM seeds choice j with the seed plus j, so there a sample depends on nothing but its index.
    What other servers make of ``n`` and ``seed`` is theirs to say.

    Log-probs are those of :class:`~progrpo.sampling.Sample` only if the server reports them after
    temperature and top_p. vLLM does so when started with ``--logprobs-mode processed_logprobs``; by default it reports
    them at temperature 1. Whether the end token is among the tokens is the server's way; with vLLM it is.
    Behind a server's reasoning parser, text is what follows the reasoning: empty where the response was cut off in it.
    Without one, the server's chat template may end prompts inside of a thinking part, as DeepSeek-R1's does. The
    protocol does not show that, so ``opens_thinking`` has to say it. It changes nothing behind a parser.

    Args:
        base_url: ``http://host:port/v1``; the ``/v1`` may be left out where there is no other path.
        model: the name that the server knows the model by; None for its only one.
        api_key: by default ``$OPENAI_API_KEY``; a server of one's own mostly looks at none.
        concurrency: how many requests are under way at most, each for up to 16 samples of a prompt.
        timeout: how many seconds one answer may take, to its last byte.
        retries: how often a lost, broken or refused (408, 409, 429, 5xx) answer is asked for again.
        patience: how many seconds more, after the retries, to wait for a server that has answered before and now can't
            be reached, or answers 502, 503 or 504.
        opens_thinking: the server's chat template ends prompts inside of a thinking part (``<think>``).

    Raises:
        ConfigError: an argument that can't be used; for ``model=None`` also a server that can't be reached, or has
            several models. Or the package ``openai`` is not installed.
    """

    name = "http"

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        concurrency: int = 16,
        timeout: float = 600.0,
        retries: int = 5,
        patience: float = 300.0,
        opens_thinking: bool = False,
    ) -> None:
        try:
            import openai  # noqa: F401
        except ImportError:
            raise ConfigError("sampling from a server needs openai: pip install 'progrpo[http]'.") from None
        if concurrency < 1:
            raise ConfigError(f"concurrency must be at least 1, got {concurrency}.")
        if not 0 < timeout < math.inf:
            raise ConfigError(f"timeout must be a number of seconds above 0, got {timeout}.")
        if retries < 0:
            raise ConfigError(f"retries must be at least 0, got {retries}.")
        if not 0 <= patience < math.inf:
            raise ConfigError(f"patience must be a number of seconds from 0, got {patience}.")
        self.base_url = _checked_url(base_url)
        self.concurrency, self.timeout, self.retries = concurrency, timeout, retries
        self.patience, self._has_answered = patience, False
        self.opens_thinking, self._has_warned = opens_thinking, False
        self._gone_since: float | None = None
        self._api_key = _checked_key(api_key)
        self._extras, self._extras_taken = EXTRAS, False
        self.model = model if model is not None else self._only_model()

    @property
    def model_digest(self) -> str:
        """Of the server's address and the model's name, as a server doesn't show its weights; and of how its responses
        begin."""
        known = [self.base_url, self.model, *(["opens thinking"] if self.opens_thinking else [])]
        return hashlib.blake2b(json.dumps(known).encode(), digest_size=16).hexdigest()

    def sample(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> Generator[tuple[int, list[Sample]], None, None]:
        """The samples of each request, as they come; see :class:`progrpo.sampling.Backend`.

        The requests are sent from a thread of their own, which ends with the generator, so that they go on while the
        caller works on what has come.

        Raises:
            ConfigError: the server refuses, or gives no whole answer however often it is asked. No further request is
                sent then, those under way are seen to their end, and what they bring is yielded first.
        """
        if not requests:
            return
        from anyio.from_thread import start_blocking_portal

        answers: SimpleQueue[tuple[int, int, list[Sample]] | None] = SimpleQueue()
        in_order = InOrder(requests)
        with start_blocking_portal() as portal:
            run = portal.start_task_soon(self._run, requests, sampling, answers.put)
            run.add_done_callback(lambda _: answers.put(None))
            while answer := answers.get():
                place, first, samples = answer
                if ready := in_order.add(place, first, samples):
                    yield place, ready
            run.result()

    async def _run(
        self, requests: Sequence[Request], sampling: Sampling, put: Callable[[tuple[int, int, list[Sample]]], None]
    ) -> None:
        import anyio

        self._gone_since = None
        waiting = deque(split(requests))
        failures: list[ConfigError] = []

        async def work() -> None:
            while waiting:
                place, piece = waiting.popleft()
                end = piece.first + piece.count
                try:
                    while piece.count > 0:  # a server that heeds no n gives one choice at a time
                        samples = await self._ask(client, piece, sampling)
                        put((place, piece.first, samples))
                        first = piece.first + len(samples)
                        piece = Request(piece.prompt, first, end - first)
                except ConfigError as error:
                    failures.append(error)
                    waiting.clear()

        async with self._client() as client, anyio.create_task_group() as group:
            for _ in range(min(self.concurrency, len(waiting))):
                group.start_soon(work)
        if failures:
            raise failures[0]

    async def _ask(self, client: "openai.AsyncOpenAI", piece: Request, sampling: Sampling) -> list[Sample]:
        """The first of a piece's samples, or all of them."""
        import anyio

        body: dict[str, Any] = {
            "model": self.model,
            "n": piece.count,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sample_seed(sampling.seed, piece.prompt, piece.first),
        }
        if isinstance(piece.prompt, str):
            # 1, not 0, which some servers read as none; the chosen token's log-prob comes in either case.
            path, body = "/completions", body | {"prompt": piece.prompt, "logprobs": 1}
        else:
            path, body = "/chat/completions", body | {"messages": piece.prompt, "logprobs": True}
        shortest, longest = SECONDS_BETWEEN_HALF_ANSWERS
        fault = ""
        for attempt in range(self.retries + 1):
            if attempt:
                await anyio.sleep(min(shortest * 2 ** (attempt - 1), longest))
            try:
                answer = _Answer.model_validate_json(await self._post(client, path, body))
                return self._in_thinking(answer, piece)
            except ValidationError as error:
                fault = _fault(error)
        raise self._no_answer(f"half an answer ({fault})")

    def _in_thinking(self, answer: "_Answer", piece: Request) -> list[Sample]:
        """The samples of an answer, with the ``<think>`` that the prompt ends in; a parser has taken its part out."""
        samples = answer.samples(piece.count)
        if any(choice.is_parsed for choice in answer.choices):
            return samples
        is_chat = not isinstance(piece.prompt, str)
        if is_chat and not (self.opens_thinking or self._has_warned) and any(closes_unopened(s.text) for s in samples):
            self._has_warned = True
            logger.warning(
                "A response of the server %s ends a thinking part that it did not begin, so the server's chat template "
                "seems to open it. Responses that are cut off while thinking are graded as if they had answered; give "
                "--opens-thinking (opens_thinking=True).",
                self.base_url,
            )
        return in_thinking(samples, piece.prompt, self.opens_thinking)

    async def _post(self, client: "openai.AsyncOpenAI", path: str, body: dict[str, Any]) -> str:
        """The answer's body. A refused request goes out once more without EXTRAS, unless they were taken before."""
        import openai

        extras = self._extras
        while True:
            try:
                text = await client.post(path, cast_to=str, body=body | extras)
            except openai.APIError as error:
                if self._may_come_back(error):
                    await self._wait()
                    client = client.with_options(max_retries=0)  # the waiting is here now
                    continue
                told_off = isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError)
                if not told_off or not extras or self._extras_taken:
                    raise self._error(error) from None
                extras = {}
            else:
                self._welcome()
                if extras:
                    self._extras_taken = True
                else:
                    self._extras = {}
                return text

    def _may_come_back(self, error: "openai.APIError") -> bool:
        """Whether this is what a server looks like that is started again, and there is patience left."""
        import openai

        if isinstance(error, openai.APIStatusError):
            is_gone = error.status_code in GATEWAY_ERRORS
        else:
            is_gone = isinstance(error, openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError)
        waited = 0.0 if self._gone_since is None else time.monotonic() - self._gone_since
        return is_gone and self._has_answered and waited < self.patience

    async def _wait(self) -> None:
        import anyio

        if self._gone_since is None:
            self._gone_since = time.monotonic()
            logger.warning("The server %s is gone; waiting up to %g s for it.", self.base_url, self.patience)
        await anyio.sleep(SECONDS_BETWEEN_CALLS)

    def _welcome(self) -> None:
        if self._gone_since is not None:
            logger.warning("The server %s is back.", self.base_url)
        self._has_answered, self._gone_since = True, None

    def _client(self) -> "openai.AsyncOpenAI":
        import anyio
        import httpx2
        import openai

        seconds = self.timeout

        class Client(openai.DefaultAsyncHttpxClient):
            """httpx's own timeout is for each piece that it reads: a trickle of bytes would never end."""

            async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
                try:
                    with anyio.fail_after(seconds):
                        return await super().send(request, **options)
                except TimeoutError:
                    raise httpx2.ReadTimeout("the answer took too long", request=request) from None

        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._api_key,
            timeout=seconds,
            max_retries=self.retries,
            http_client=Client(timeout=seconds),
        )

    def _only_model(self) -> str:
        import openai
        from anyio.from_thread import start_blocking_portal

        async def ask() -> str:
            async with self._client() as client:
                return await client.get("/models", cast_to=str)

        try:
            with start_blocking_portal() as portal:
                names = [model.id for model in _Models.model_validate_json(portal.call(ask)).data]
        except openai.APIError as error:
            raise self._error(error) from None
        except ValidationError as error:
            raise ConfigError(
                f"the server {self.base_url} does not list its models ({_fault(error)}); name one as model."
            ) from None
        if len(names) != 1:
            listed = ", ".join(map(repr, names)) or "none"
            raise ConfigError(f"the server {self.base_url} has not one model but {listed}; name one as model.")
        return names[0]

    def _error(self, error: "openai.APIError") -> ConfigError:
        import openai

        if isinstance(error, openai.APIStatusError):
            status, said = error.status_code, _said(error.body or error.response.text)
            if status < 500 and status not in (408, 409, 429):
                advice = ADVICE.get(status, OTHER_ADVICE)
                return ConfigError(f"the server {self.base_url} refuses with {status}: {said}; {advice}.")
            return self._no_answer(f"{status}: {said}")
        if isinstance(error, openai.APITimeoutError):
            return self._no_answer(f"nothing whole within timeout, {self.timeout:g} s")
        return self._no_answer(f"no connection ({_said(str(error.__cause__ or error))})")

    def _no_answer(self, last: str) -> ServerAwayError:
        if self._gone_since is not None:
            return ServerAwayError(
                f"the server {self.base_url} went away and was not back within {self.patience:g} s; the last time: "
                f"{last}; start it, and give the same command again, which goes on with the samples that were kept; or "
                "raise patience."
            )
        times = "once" if self.retries == 0 else f"up to {self.retries + 1} times"
        return ServerAwayError(
            f"the server {self.base_url} gave no whole answer, asked {times}; the last time: {last}; see that it runs, "
            "or raise retries or timeout."
        )


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ConfigError("base_url must hold no user name and no password; the server's key goes into OPENAI_API_KEY.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"base_url must start with http:// or https:// and name a host, got {url!r}.")
    return url.rstrip("/") if parts.path.strip("/") else url.rstrip("/") + "/v1"


def _checked_key(key: str | None) -> str:
    checked = (os.environ.get("OPENAI_API_KEY") if key is None else key) or "none"
    if not (checked.isascii() and checked.isprintable()):
        raise ConfigError(
            "OPENAI_API_KEY, or api_key, must be printable ASCII, for it goes into a header; this one is not."
        )
    return checked


class _Token(BaseModel):
    logprob: FiniteFloat
    id: int | None = None  # llama.cpp's


class _Logprobs(BaseModel):
    """Of a chat: content. Of a completion: token_logprobs, or content as well (llama.cpp)."""

    content: list[_Token] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[FiniteFloat] | None = None


class _Message(BaseModel):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(BaseModel):
    index: int
    finish_reason: str
    text: str | None = None
    message: _Message | None = None
    logprobs: _Logprobs | None = None
    token_ids: list[int] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.finish_reason in ("abort", "error"):
            raise ValueError(f"its finish_reason is {self.finish_reason}")
        if self.response is None:
            raise ValueError("it has no text")
        named = self.logprobs.tokens if self.logprobs else None
        for tokens in (self.token_ids, named):
            if tokens is not None and self.logps is not None and len(tokens) != len(self.logps):
                raise ValueError(f"it has {len(tokens)} tokens and {len(self.logps)} log-probs")
        return self

    @property
    def response(self) -> str | None:
        if self.message is None:
            return self.text
        return "" if self.message.content is None and self.is_parsed else self.message.content

    @property
    def is_parsed(self) -> bool:
        """Whether the server's reasoning parser has taken the thinking part out."""
        return self.message is not None and (
            self.message.reasoning is not None or self.message.reasoning_content is not None
        )

    @property
    def logps(self) -> list[float] | None:
        if self.logprobs is None:
            return None
        content = self.logprobs.content
        return self.logprobs.token_logprobs if content is None else [token.logprob for token in content]

    @property
    def ids(self) -> list[int]:
        if self.token_ids is not None:
            return self.token_ids
        told = self.logprobs.content if self.logprobs and self.logprobs.content else []
        ids = [token.id for token in told if token.id is not None]
        return ids if len(ids) == len(told) else []

    @property
    def length(self) -> int:
        """Characters, those of the reasoning among them: of n choices the longer one has more tokens."""
        thought = (self.message.reasoning or self.message.reasoning_content or "") if self.message else ""
        return len(self.response or "") + len(thought)

    def sample(self) -> Sample:
        assert self.response is not None, "the validator saw to it"
        return Sample(self.response, self.ids, self.logps or [], truncated=self.finish_reason == "length")


class _Answer(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None  # looked at where tokens are not listed, and never a reason to ask again

    @model_validator(mode="after")
    def _has_the_first(self) -> Self:
        if all(choice.index for choice in self.choices):
            raise ValueError("choice 0 is missing")
        return self

    def samples(self, most: int) -> list[Sample]:
        """As many as there are without a gap: what is missing is asked for again."""
        choices = sorted(self.choices, key=lambda choice: choice.index)
        samples = self._with_tokens([choice.sample() for choice in choices], [choice.length for choice in choices])
        ordered = enumerate(zip(choices, samples, strict=True))
        return [sample for _, (_, sample) in takewhile(lambda pair: pair[0] == pair[1][0].index, ordered)][:most]

    def _with_tokens(self, samples: list[Sample], lengths: list[int]) -> list[Sample]:
        """The samples, with what ``usage`` says of tokens where they are not listed.

        The choices of an answer share one number, which is exact: it is divided in proportion to their length.
        """
        told = self.usage.get("completion_tokens") if isinstance(self.usage, dict) else None
        if not isinstance(told, int) or isinstance(told, bool) or told < 0 or any(sample.tokens for sample in samples):
            return samples
        ends = [0, *accumulate(length + 1 for length in lengths)]  # 1: an empty text has its end token
        shares = [told * end // ends[-1] for end in ends]
        return [replace(s, counted_tokens=b - a) for s, (a, b) in zip(samples, pairwise(shares), strict=True)]


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


def _fault(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return _said(f"{where}: {first['msg']}" if where else first["msg"])


def _said(body: object) -> str:
    """What a server says, in one line: its message, wherever the body of its answer has that."""
    while isinstance(body, dict):
        told = [body[key] for key in ("error", "message", "detail") if body.get(key)]
        body = told[0] if told else json.dumps(body)
    line = " ".join(str(body).split())
    return (line if len(line) <= 300 else line[:300] + " ...").rstrip(".") or "nothing"
