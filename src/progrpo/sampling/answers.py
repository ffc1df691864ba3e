"""The answers of an OpenAI-compatible server: checked, and turned into samples."""

import json
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, Self

from pydantic import BaseModel, Field, FiniteFloat, ValidationError, model_validator

from progrpo.sampling import Sample


class _Token(BaseModel):
    logprob: FiniteFloat
    id: int | None = None  # from llama.cpp


class _Logprobs(BaseModel):
    """A chat has ``content``. A completion has ``token_logprobs``; one from llama.cpp has ``content`` instead."""

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
    _sample: Sample
    _reasoning: str | None

    @model_validator(mode="after")
    def _read(self) -> Self:
        if self.finish_reason in ("abort", "error"):
            raise ValueError(f"its finish_reason is {self.finish_reason}")
        message = self.message or _Message(content=self.text)
        reasoning = message.reasoning_content if message.reasoning is None else message.reasoning
        text = "" if message.content is None and reasoning is not None else message.content
        if text is None:
            raise ValueError("it has no text")
        logprobs = self.logprobs or _Logprobs()
        tokens = logprobs.content
        logps = logprobs.token_logprobs if tokens is None else [token.logprob for token in tokens]
        for listed in (self.token_ids, logprobs.tokens):
            if listed is not None and logps is not None and len(listed) != len(logps):
                raise ValueError(f"it has {len(listed)} tokens and {len(logps)} log-probs")
        ids = [token.id for token in tokens or [] if token.id is not None]
        if self.token_ids is not None or len(ids) != len(tokens or []):
            ids = self.token_ids or []
        self._sample = Sample(text, ids, logps or [], truncated=self.finish_reason == "length")
        self._reasoning = reasoning
        return self


class Answer(BaseModel):
    """The answer to a request for samples. It is valid only if no part of it is missing."""

    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None  # not validated, because it is needed only where tokens are not listed

    @model_validator(mode="after")
    def _has_first_choice(self) -> Self:
        if all(choice.index for choice in self.choices):
            raise ValueError("choice 0 is missing")
        return self

    @property
    def is_parsed(self) -> bool:
        """Whether the server's reasoning parser has taken thinking parts out of the texts."""
        return any(choice._reasoning is not None for choice in self.choices)

    def samples(self, most: int) -> list[Sample]:
        """The samples before the first missing choice, at most ``most``. The others have to be requested again.

        If their tokens are not listed, ``usage`` has the number of all of them, which is divided in proportion to the
        lengths of the choices in characters, reasoning included.
        """
        choices = sorted(self.choices, key=lambda choice: choice.index)
        samples = [choice._sample for choice in choices]
        total = self.usage.get("completion_tokens") if isinstance(self.usage, dict) else None
        is_listed = any(sample.tokens for sample in samples)
        if isinstance(total, int) and not isinstance(total, bool) and total >= 0 and not is_listed:
            lengths = [len(choice._sample.text) + len(choice._reasoning or "") for choice in choices]
            ends = [0, *accumulate(length + 1 for length in lengths)]  # even an empty text has its end token
            counts = [b - a for a, b in pairwise(total * end // ends[-1] for end in ends)]
            samples = [replace(sample, counted_tokens=n) for sample, n in zip(samples, counts, strict=True)]
        gap = next((place for place, choice in enumerate(choices) if choice.index != place), len(choices))
        return samples[: min(gap, most)]


def fault(error: ValidationError) -> str:
    """What is wrong with an answer, in one line."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return one_line(f"{where}: {first['msg']}" if where else first["msg"])


def one_line(body: object) -> str:
    """A server's error message in one line, from wherever in the body of its answer it stands.

    >>> one_line({"error": {"message": "too long."}})
    'too long'
    """
    while isinstance(body, dict):
        messages = [body[key] for key in ("error", "message", "detail") if body.get(key)]
        body = messages[0] if messages else json.dumps(body)
    line = " ".join(str(body).split())
    return (line if len(line) <= 300 else line[:300] + " ...").rstrip(".") or "nothing"
