"""What the trainer, the evaluation and the report need of a task."""

from collections.abc import Sequence
from typing import Any, Protocol

from progrpo.verify import Verdict

Problem = dict[str, Any]
"""One row of a dataset: ``prompt`` (text, or messages for a chat template), ``problem_id`` (unique in the task), and
what the verifier needs."""


class Task(Protocol):
    """Prompts, a verifier, and a split into training and held-out problems."""

    @property
    def name(self) -> str:
        """What the task is called in records."""
        ...

    @property
    def verifier(self) -> str:
        """Its name in :data:`progrpo.verify.registry.VERIFIERS`."""
        ...

    @property
    def max_response_tokens(self) -> int:
        """How many tokens a response may have where the recipe doesn't say: enough for right ones with their end."""
        ...

    def train_problems(self) -> Sequence[Problem]:
        """The problems to train on."""
        ...

    def heldout_problems(self) -> Sequence[Problem]:
        """Problems that share nothing with the training ones."""
        ...

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Whether a response solves a problem; ``Verdict.canonical`` tells solutions apart."""
        ...

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        """The verdict on each response to the problem at its place; slow verifiers work on many at a time."""
        ...

    def gold(self, problem: Problem) -> str:
        """What the verifier compares with, as text: for the datasets of other trainers."""
        ...

    def count_votes(self, problem: Problem, responses: Sequence[str]) -> tuple[list[int], int] | None:
        """How many responses give each answer, the most frequent first, and how many give none; None where a vote
        over answers makes no sense."""
        ...

    def count_solutions(self, problem: Problem) -> int | None:
        """How many different solutions a problem has; None where that can't be known."""
        ...
