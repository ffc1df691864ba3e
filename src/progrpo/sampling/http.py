"""Samples from any server that speaks OpenAI's protocol, such as vLLM's, SGLang's, llama.cpp's, or a hosted one.

OpenAI's own client sends the requests. After a lost connection, a timeout, 429, 5xx or a broken answer it asks again,
waits longer each time, and obeys ``Retry-After``. If a server that has answered goes away after that, the backend waits
for it, because it may be restarting. An answer is used whole or not at all.
"""

import hashlib
import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic import ValidationError

from progrpo.common.errors import ConfigError, ServerAwayError
from progrpo.sampling import Request, Sample, SampleStream, Sampling, in_order, in_thinking, sample_seed, split
from progrpo.sampling.answers import Answer, fault, one_line
from progrpo.verify.thinking import closes_unopened

try:
    import anyio
    import httpx2
    import openai
    from anyio.from_thread import start_blocking_portal
except ImportError:
    raise ConfigError("sampling from a server needs openai: pip install 'progrpo[http]'.") from None

logger = logging.getLogger(__name__)

# These go beyond OpenAI's protocol. vLLM returns token ids on request only. A setting that is not in the request comes
# from the model's generation_config.json (vLLM) or is a default (llama.cpp), so that top_k might apply unnoticed.
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
SECONDS_BETWEEN_CALLS = 1.0
"""How long to wait before a request is sent again to a server that is gone."""
GATEWAY_ERRORS = (502, 503, 504)
"""A proxy answers these while the server behind it is gone, and a server while it is loading."""


class HttpBackend:
    """Samples from an OpenAI-compatible server: text goes to ``/completions``, messages to ``/chat/completions``.

    Sample i is requested with ``sample_seed(sampling.seed, prompt, i)``, and choice j of the answer is sample i + j.
    vLLM seeds choice j with the seed plus j, so that a sample depends on its index alone. Other servers may treat ``n``
    and ``seed`` differently.

    Log-probs are those of :class:`~progrpo.sampling.Sample` only if the server reports them after temperature and
    top_p. vLLM does so with ``--logprobs-mode processed_logprobs``; by default it reports them at temperature 1. The
    end token may be listed or not; vLLM lists it. Behind a server's reasoning parser, the text is what follows the
    reasoning, and is empty if the response ended before that.

    Args:
        base_url: ``http://host:port/v1``. The ``/v1`` may be left out if there is no other path.
        model: the server's name for the model; None if it has only one.
        api_key: by default ``$OPENAI_API_KEY``. Most local servers ignore it.
        concurrency: the most requests at a time, each for up to 16 samples of a prompt.
        timeout: how many seconds one answer may take, to its last byte.
        retries: how often a request is repeated if its answer is lost, broken or refused (408, 409, 429, 5xx).
        patience: after the retries, how many seconds to wait for a server that has answered before and now can't be
            reached, or answers 502, 503 or 504.
        opens_thinking: the server's chat template ends prompts in an open thinking part (``<think>``), as DeepSeek-R1's
            does. The protocol does not show that. Behind a reasoning parser it changes nothing.

    Raises:
        ConfigError: an argument is out of range; or, with ``model=None``, the server can't be reached or has several
            models.
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
        if concurrency < 1:
            raise ConfigError(f"concurrency must be at least 1, got {concurrency}.")
        if not 0 < timeout < math.inf:
            raise ConfigError(f"timeout must be a number of seconds above 0, got {timeout}.")
        if retries < 0:
            raise ConfigError(f"retries must be at least 0, got {retries}.")
        if not 0 <= patience < math.inf:
            raise ConfigError(f"patience must be a number of seconds from 0, got {patience}.")
        self.base_url, self._api_key = _checked_url(base_url), _checked_key(api_key)
        self.concurrency, self.timeout, self.retries, self.patience = concurrency, timeout, retries, patience
        self.opens_thinking, self._has_warned = opens_thinking, False
        self._extras, self._extras_accepted = EXTRAS, False
        self._has_answered = False
        self._gone_since: float | None = None
        self.model = model if model is not None else self._only_model()

    @property
    def model_digest(self) -> str:
        """A digest of the server's address, the model's name and ``opens_thinking``; a server does not show weights."""
        parts = [self.base_url, self.model, *(["opens thinking"] if self.opens_thinking else [])]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def sample(self, requests: Sequence[Request], sampling: Sampling) -> SampleStream:
        """The samples of each request, as they come; see :class:`progrpo.sampling.Backend`.

        A thread sends the requests, so that they go on while the caller works. It ends with the generator.

        Raises:
            ConfigError: the server refuses, or gives no complete answer after all retries. No further request is sent
                then. Requests under way are finished, and their samples are yielded before the error is raised.
        """
        if not requests:
            return
        answers: SimpleQueue[tuple[int, int, list[Sample]] | None] = SimpleQueue()
        with start_blocking_portal() as portal:
            run = portal.start_task_soon(self._run, requests, sampling, answers.put)
            run.add_done_callback(lambda _: answers.put(None))
            yield from in_order(requests, iter(answers.get, None))
            run.result()

    async def _run(
        self, requests: Sequence[Request], sampling: Sampling, put: Callable[[tuple[int, int, list[Sample]]], None]
    ) -> None:
        self._gone_since = None
        waiting = deque(split(requests))
        failures: list[ConfigError] = []

        async def work() -> None:
            while waiting:
                place, piece = waiting.popleft()
                first, end = piece.first, piece.first + piece.count
                try:
                    while first < end:  # a server that ignores n gives one choice at a time
                        samples = await self._ask(client, Request(piece.prompt, first, end - first), sampling)
                        put((place, first, samples))
                        first += len(samples)
                except ConfigError as error:
                    failures.append(error)
                    waiting.clear()

        async with self._client() as client, anyio.create_task_group() as group:
            for _ in range(min(self.concurrency, len(waiting))):
                group.start_soon(work)
        if failures:
            raise failures[0]

    async def _ask(self, client: openai.AsyncOpenAI, piece: Request, sampling: Sampling) -> list[Sample]:
        """The samples of the piece, or the first ones if the server gives fewer than requested."""
        body: dict[str, Any] = {
            "model": self.model,
            "n": piece.count,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sample_seed(sampling.seed, piece.prompt, piece.first),
        }
        is_chat = not isinstance(piece.prompt, str)
        if is_chat:
            path, body = "/chat/completions", body | {"messages": piece.prompt, "logprobs": True}
        else:
            # 1 and not 0, because some servers read 0 as a request for none. Both give the drawn token's log-prob.
            path, body = "/completions", body | {"prompt": piece.prompt, "logprobs": 1}
        answer = await self._post(client, path, body)
        samples = answer.samples(piece.count)
        if answer.is_parsed:
            return samples
        if is_chat and not (self.opens_thinking or self._has_warned) and any(closes_unopened(s.text) for s in samples):
            self._has_warned = True
            logger.warning(
                "A response of the server %s ends a thinking part that it did not begin, so the server's chat template "
                "seems to open it. Responses that are cut off while thinking are graded as if they had answered; give "
                "--opens-thinking (opens_thinking=True).",
                self.base_url,
            )
        return in_thinking(samples, piece.prompt, self.opens_thinking)

    async def _post(self, client: openai.AsyncOpenAI, path: str, body: dict[str, Any]) -> Answer:
        """The answer. If the server refuses a request and has not accepted EXTRAS before, it is asked without them."""
        extras = self._extras
        while True:
            was_gone = self._gone_since is not None
            options: Any = {"max_retries": 0 if was_gone else self.retries}  # while it is gone, this loop retries
            try:
                response = await client.post(path, cast_to=httpx2.Response, body=body | extras, options=options)
            except openai.APIError as error:
                is_refusal = isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError)
                if self._described(error)[1] and self._may_wait():
                    await anyio.sleep(SECONDS_BETWEEN_CALLS)
                elif is_refusal and extras and not self._extras_accepted:
                    extras = {}
                elif not was_gone or self._gone_since is not None:  # else it is back, and its first answer was broken
                    raise self._error(error) from None
                continue
            if extras:
                self._extras_accepted = True
            else:
                self._extras = {}
            return cast(Answer, response.extensions["answer"])

    def _may_wait(self) -> bool:
        """Whether to wait for a server that is away; logs when it went away."""
        now = time.monotonic()
        if not self._has_answered or now - (self._gone_since or now) >= self.patience:
            return False
        if self._gone_since is None:
            logger.warning("The server %s is gone; waiting up to %g s for it.", self.base_url, self.patience)
            self._gone_since = now
        return True

    def _note_answer(self) -> None:
        if self._gone_since is not None:
            logger.warning("The server %s is back.", self.base_url)
        self._has_answered, self._gone_since = True, None

    def _client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._api_key,
            timeout=self.timeout,
            max_retries=self.retries,
            http_client=_Client(self.timeout, self._note_answer),
        )

    def _only_model(self) -> str:
        async def ask() -> str:
            async with self._client() as client:
                return await client.get("/models", cast_to=str)

        try:
            with start_blocking_portal() as portal:
                names = [str(model["id"]) for model in json.loads(portal.call(ask))["data"]]
        except openai.APIError as error:
            raise self._error(error) from None
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the server {self.base_url} does not list its models ({error!r}); name one as model."
            ) from None
        if len(names) != 1:
            listed = ", ".join(map(repr, names)) or "none"
            raise ConfigError(
                f"the server {self.base_url} does not have exactly one model (it has {listed}); name one as model."
            )
        return names[0]

    def _described(self, error: openai.APIError) -> tuple[str, bool]:
        """A failed request in words, and whether the server, or the server behind a proxy, can't be reached."""
        if isinstance(error, openai.APIStatusError):
            status = error.status_code
            return f"{status}: {one_line(error.body or error.response.text)}", status in GATEWAY_ERRORS
        if isinstance(error, openai.APITimeoutError):
            return f"no complete answer within the timeout of {self.timeout:g} s", False
        if isinstance(error.__cause__, httpx2.DecodingError):
            return f"a broken answer ({error.__cause__})", False
        return f"no connection ({one_line(str(error.__cause__ or error))})", isinstance(
            error, openai.APIConnectionError
        )

    def _error(self, error: openai.APIError) -> ConfigError:
        last, _ = self._described(error)
        status = error.status_code if isinstance(error, openai.APIStatusError) else 500
        if status < 500 and status not in (408, 409, 429):
            advice = ADVICE.get(status, OTHER_ADVICE)
            return ConfigError(f"the server {self.base_url} refuses a request with {last}; {advice}.")
        if self._gone_since is not None:
            return ServerAwayError(
                f"the server {self.base_url} went away and was not back within {self.patience:g} s; the last time: "
                f"{last}; start it, and give the same command again, which goes on with the samples that were kept; or "
                "raise patience."
            )
        times = "once" if self.retries == 0 else f"up to {self.retries + 1} times"
        return ServerAwayError(
            f"the server {self.base_url} gave no complete answer when asked {times}; the last time: {last}; check "
            "that it runs, or raise retries or timeout."
        )


class _Client(openai.DefaultAsyncHttpxClient):
    """Limits the time of a whole answer, while httpx limits that of each read, and parses the answers with samples."""

    def __init__(self, seconds: float, note_answer: Callable[[], None]) -> None:
        super().__init__(timeout=seconds)
        self._seconds, self._note_answer = seconds, note_answer

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            with anyio.fail_after(self._seconds):
                response = await super().send(request, **options)
        except TimeoutError:
            raise httpx2.ReadTimeout("the answer took too long", request=request) from None
        if request.method == "POST" and response.is_success:
            self._note_answer()
            try:
                response.extensions["answer"] = Answer.model_validate_json(response.content)
            except ValidationError as error:  # OpenAI's client asks again, as after a lost connection
                raise httpx2.DecodingError(fault(error), request=request) from None
        return response


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
            "OPENAI_API_KEY, or api_key, must be printable ASCII, because it goes into a header; this one is not."
        )
    return checked
