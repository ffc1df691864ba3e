"""Answers to reasoning-gym's problems, scored by its own scorers inside the sandbox.

Ten of these scorers evaluate the answer's text (countdown's runs ``__import__('os').system(...)`` if the answer says
so), so none of them ever runs in this process. :mod:`progrpo.verify.reasoning_gym.scorer` runs in the sandbox.
"""

import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from progrpo.verify.code.sandbox import Isolation, Limits, NotIsolatedError, ProgramFailedError, Sandbox, SandboxError
from progrpo.verify.code.tests import isolation_level
from progrpo.verify.thinking import after_thinking
from progrpo.verify.verdict import Verdict

_MODULE = "progrpo.verify.reasoning_gym.scorer"
_TO_SCORE = Limits(seconds=5.0, memory_mb=4096)
_TO_MAKE = Limits(seconds=600.0, memory_mb=8192, output_mb=1024)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_KEYS = {"dataset": str, "config": dict, "seed": int, "size": int, "index": int}


def verify_reasoning_gym(golds: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
    """A response is right if its ``<answer>`` gets the full score, 1, of its dataset's own scorer.

    Gold: ``{"dataset": "countdown", "config": {}, "seed": 5, "size": 3, "index": 0}``.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        return list(threads.map(_verify, golds, responses))


def _verify(gold: str, response: str) -> Verdict:
    try:
        entry, answer = read_entry(gold), extract_tagged_answer(response)
        if answer is None:
            return Verdict("incorrect", "the response has no <answer>...</answer>")
        score = _sandbox().call(f"{_MODULE}:score", entry | {"answer": answer}, _TO_SCORE)
    except ProgramFailedError as error:
        return Verdict("incorrect", f"scoring the answer failed: {error}")
    except (ValueError, NotIsolatedError, SandboxError) as error:
        return Verdict("error", str(error))
    is_right = isinstance(score, float) and score >= 1
    return Verdict("correct", canonical=answer) if is_right else Verdict("incorrect", f"the score is {score}, not 1")


@cache
def _sandbox() -> Sandbox:
    """A sandbox with reasoning-gym loaded, which takes seconds: it is started when it is first needed."""
    spec = find_spec("reasoning_gym")
    place = Path(spec.origin).resolve().parent if spec and spec.origin else Path()
    if place.is_relative_to("/tmp") and isolation_level()[0] is Isolation.FULL:
        raise SandboxError(
            f"reasoning-gym is installed in {place}, and the sandbox has its own /tmp, where most of it is missing; "
            "make the environment elsewhere."
        )
    return Sandbox(preload=(_MODULE, "reasoning_gym"))


def make_questions(dataset: str, config: dict[str, Any], seed: int, size: int) -> list[str]:
    """The questions of a dataset, the same as those that the scorer will make.

    Raises:
        ProgramFailedError: reasoning-gym refuses the settings.
        NotIsolatedError, SandboxError: there is no sandbox here.
    """
    payload = {"dataset": dataset, "config": config, "seed": seed, "size": size}
    return cast(list[str], _sandbox().call(f"{_MODULE}:questions", payload, _TO_MAKE))


def extract_tagged_answer(response: str) -> str | None:
    """The text of the last ``<answer>...</answer>`` after the thinking part; None if there is none.

    >>> extract_tagged_answer("<think>...</think> It is <answer> 7 </answer>.")
    '7'
    """
    answers = _ANSWER.findall(after_thinking(response) or "")
    return answers[-1].strip() if answers else None


def read_entry(gold: str) -> dict[str, Any]:
    """The dataset, settings and index of a problem; a ValueError if the gold does not have them."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        entry: dict[str, Any] = json.loads(gold)
        if all(isinstance(entry[key], kind) for key, kind in _KEYS.items()):
            return entry
    raise ValueError(f"the gold {gold[:80]!r} does not have {', '.join(_KEYS)}")
