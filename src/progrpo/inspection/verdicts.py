"""The verdicts of progrpo's own verifiers on the responses of a file, in the place of the file's rewards."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.inspection.values import as_text, is_message
from progrpo.tasks.templates import opens_thinking, response_text
from progrpo.verify import Verdict
from progrpo.verify.registry import VERIFIERS, verify


@dataclass
class Judge:
    """Verifies the responses of a file by the golds in one of its columns.

    Args:
        verifier: a name of :data:`progrpo.verify.registry.VERIFIERS`, such as ``"math_any"``.
        template_opens: whether the chat template of prompts that are messages ends inside of a thinking part; a prompt
            that is a text tells by itself.

    Raises:
        ConfigError: an unknown verifier.

    >>> judge = Judge("math_any")
    >>> verdicts = judge(["3 / 4?", "<think>"], ["The answer is 0.75.", "Maybe 3/4? Wait"], ["3/4", "3/4"])
    >>> [verdict.status for verdict in verdicts]
    ['correct', 'incorrect']
    """

    verifier: str
    template_opens: bool = False
    failures: list[str] = field(default_factory=list)
    """Why the verifier failed, for each response that it failed on."""

    def __post_init__(self) -> None:
        if self.verifier not in VERIFIERS:
            raise ConfigError(f"--verify must be one of {', '.join(VERIFIERS)}, got {self.verifier!r}.")

    def __call__(self, prompts: Sequence[Any], responses: Sequence[Any], golds: Sequence[Any]) -> list[Verdict]:
        """The verdict on each response; of an error the reason is kept.

        Args:
            prompts, responses: as the file has them, text or chat messages: of a response the verifier reads what it
                reads in training, see :func:`progrpo.tasks.templates.response_text`.
            golds: of any type; where one is null, NaN or blank, the verdict is an error.
        """
        texts = [
            response_text(_as_completion(response), in_thinking=opens_thinking(prompt, self.template_opens))
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        golds_as_text = [_as_gold(gold) for gold in golds]
        known = [i for i, gold in enumerate(golds_as_text) if gold.strip()]
        verdicts = [Verdict("error", "the gold is null or blank")] * len(texts)
        judged = verify([self.verifier] * len(known), [golds_as_text[i] for i in known], [texts[i] for i in known])
        for i, verdict in zip(known, judged, strict=True):
            verdicts[i] = verdict
        self.failures += [verdict.reason for verdict in verdicts if verdict.status == "error"]
        return verdicts

    def notes(self) -> list[str]:
        """What to say of the failures."""
        if not self.failures:
            return []
        return [f"The verifier {self.verifier!r} failed on {len(self.failures)} responses: {self.failures[0]}"]


def rewards_of(verdicts: Sequence[Verdict]) -> list[float]:
    """1 for a correct response, 0 for an incorrect one, NaN where the verifier failed."""
    return [math.nan if verdict.reward is None else verdict.reward for verdict in verdicts]


def _as_completion(response: Any) -> Any:
    """A response as TRL hands one over: a text, or a list of messages."""
    if is_message(response):
        return [response]
    return response if isinstance(response, list) else as_text(response)


def _as_gold(value: Any) -> str:
    """A gold as the verifiers take it: numbers as the shortest text, what is nested as JSON, empty if there is none."""
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)
