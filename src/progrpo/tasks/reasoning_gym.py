"""The problems of reasoning-gym: any of its data sets, made from seeds."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from progrpo.common.errors import ConfigError
from progrpo.tasks.base import Problem
from progrpo.tasks.rows import digest
from progrpo.tasks.templates import check_template, render
from progrpo.verify import Verdict
from progrpo.verify.code.sandbox import NotIsolatedError, ProgramFailedError, SandboxError
from progrpo.verify.reasoning_gym.answers import make_questions
from progrpo.verify.registry import verify

INSTRUCTION = "Think step by step, and give your final answer between <answer> and </answer>."


@dataclass(frozen=True)
class ReasoningGymTask:
    """Problems of one data set of reasoning-gym, scored by its own scorer inside the sandbox.

    Args:
        dataset: its name, e.g. ``"countdown"`` or ``"gsm_symbolic"``.
        config: its own settings, by name.
        train_size, heldout_size: how many problems each set has at most: those that occur in both, or twice, count
            once, and are held out.
        seed: of the training problems. The held-out problems are the same for every seed, so that runs compare.
        template: see :mod:`progrpo.tasks.templates`.

    Raises:
        ConfigError: (when problems are asked for) an unknown data set or setting.

    A response is right if its score is 1: reasoning-gym's partial scores count as 0.
    """

    dataset: str
    config: dict[str, Any] = field(default_factory=dict)
    train_size: int = 2048
    heldout_size: int = 200
    seed: int = 0
    template: str = "chat"

    name: ClassVar[str] = "reasoning_gym"
    verifier: ClassVar[str] = "reasoning_gym"
    max_response_tokens: ClassVar[int] = 1024

    def __post_init__(self) -> None:
        check_template(self.template)

    def train_problems(self) -> list[Problem]:
        held_out = {problem["problem_id"] for problem in self.heldout_problems()}
        return [problem for problem in self._train if problem["problem_id"] not in held_out]

    def heldout_problems(self) -> list[Problem]:
        return self._heldout

    def verify(self, problem: Problem, response: str) -> Verdict:
        return self.verify_batch([problem], [response])[0]

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        return verify([self.verifier] * len(problems), [problem["gold"] for problem in problems], responses)

    def gold(self, problem: Problem) -> str:
        return problem["gold"]

    def count_votes(self, problem: Problem, responses: Sequence[str]) -> None:
        return None

    def count_solutions(self, problem: Problem) -> None:
        return None

    @cached_property
    def _train(self) -> list[Problem]:
        return self._problems(f"train {self.seed}", self.train_size)

    @cached_property
    def _heldout(self) -> list[Problem]:
        return self._problems("held out", self.heldout_size)

    def _problems(self, stream: str, size: int) -> list[Problem]:
        """The problems of the seed that belongs to a stream; far-off seeds, for reasoning-gym counts on from one."""
        seed = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=4).digest()) >> 1
        found: dict[str, Problem] = {}
        for index, question in enumerate(self._questions(seed, size) if size else []):
            gold = {"dataset": self.dataset, "config": self.config, "seed": seed, "size": size, "index": index}
            prompt = render(self.template, question, INSTRUCTION)
            key = digest(question)
            found.setdefault(key, {"prompt": prompt, "problem_id": key, "gold": json.dumps(gold)})
        return list(found.values())

    def _questions(self, seed: int, size: int) -> list[str]:
        try:
            from reasoning_gym.factory import DATASETS
        except ImportError:
            raise ConfigError(
                "the task reasoning_gym needs reasoning-gym: pip install 'progrpo[reasoning-gym]'."
            ) from None

        if self.dataset not in DATASETS:
            raise ConfigError(
                f"task.dataset {self.dataset!r} is not one of reasoning-gym's: {', '.join(sorted(DATASETS))}."
            )
        try:
            return make_questions(self.dataset, self.config, seed, size)
        except ProgramFailedError as error:
            raise ConfigError(
                f"reasoning-gym's {self.dataset!r} refuses task.config {self.config!r}: {error}"
            ) from None
        except (NotIsolatedError, SandboxError) as error:
            raise ConfigError(
                f"the task reasoning_gym makes and scores its problems in a sandbox, and {error}"
            ) from None
