"""The problems of reasoning-gym: any of its datasets, made from seeds."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from progrpo.common.errors import ConfigError
from progrpo.tasks.base import Problem, Task
from progrpo.tasks.rows import digest
from progrpo.tasks.templates import check_template, render
from progrpo.verify.code.sandbox import NotIsolatedError, ProgramFailedError, SandboxError
from progrpo.verify.reasoning_gym.answers import make_questions

INSTRUCTION = "Think step by step, and give your final answer between <answer> and </answer>."


@dataclass(frozen=True)
class ReasoningGymTask(Task):
    """Problems of one dataset of reasoning-gym, scored by its own scorer inside the sandbox.

    A response is right if its score is 1: reasoning-gym's partial scores count as 0.

    Args:
        dataset, config: the dataset's name, e.g. ``"countdown"`` or ``"gsm_symbolic"``, and its settings by name; if
            they are unknown, a ConfigError is raised when the problems are made.
        train_size, heldout_size: the greatest number of problems in each set. A problem that occurs twice counts
            once; one that occurs in both sets is held out.
        seed: the seed of the training problems. The held-out problems are the same for every seed, so that runs are
            comparable.
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

    @cached_property
    def _train(self) -> list[Problem]:
        return self._problems(f"train {self.seed}", self.train_size)

    @cached_property
    def _heldout(self) -> list[Problem]:
        return self._problems("held out", self.heldout_size)

    def _problems(self, stream: str, size: int) -> list[Problem]:
        """The problems of a stream. Seeds are far apart, because reasoning-gym counts up from the first one."""
        seed = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=4).digest()) >> 1
        problems: dict[str, Problem] = {}
        for index, question in enumerate(self._questions(seed, size) if size else []):
            gold = {"dataset": self.dataset, "config": self.config, "seed": seed, "size": size, "index": index}
            prompt, key = render(self.template, question, INSTRUCTION), digest(question)
            problem = dict(prompt=prompt, problem_id=key, gold=json.dumps(gold), verifier=self.verifier)
            problems.setdefault(key, problem)
        return list(problems.values())

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
            reason = f"reasoning-gym's {self.dataset!r} refuses task.config {self.config!r}: {error}"
        except (NotIsolatedError, SandboxError) as error:
            reason = f"the task reasoning_gym makes and scores its problems in a sandbox, and {error}"
        raise ConfigError(reason)
