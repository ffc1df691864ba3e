"""What the trainers, the evaluation and the pages need of a task."""

from collections.abc import Sequence
from typing import Any, Protocol

from progrpo.verify import Verdict, registry

Problem = dict[str, Any]
"""One row of a dataset: ``prompt`` (text, or messages for a chat template), ``problem_id`` (unique in the task), and
what the verifier needs."""


class Task(Protocol):
    """Prompts, a verifier, and a split into training and held-out problems.

    The methods that have a body here suit problems that carry their ``gold`` and the name of their ``verifier``.
    """

    @property
    def name(self) -> str:
        """The task's name in records."""

    @property
    def verifier(self) -> str:
        """A name of :data:`progrpo.verify.registry.VERIFIERS`."""

    @property
    def max_response_tokens(self) -> int:
        """The limit on a response's tokens if the recipe sets none: enough for a right response and its end."""

    def train_problems(self) -> Sequence[Problem]:
        """The problems to train on."""

    def heldout_problems(self) -> Sequence[Problem]:
        """Problems that share nothing with the training problems."""

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Whether a response solves a problem; ``Verdict.canonical`` tells solutions apart."""
        return self.verify_batch([problem], [response])[0]

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        """The verdict on each response to the problem at the same index; slow verifiers work on many at a time."""
        golds = [problem["gold"] for problem in problems]
        return registry.verify([problem["verifier"] for problem in problems], golds, responses)

    def gold(self, problem: Problem) -> str:
        """The gold as text, for the datasets of other trainers."""
        return problem["gold"]

    def count_votes(self, problem: Problem, responses: Sequence[str]) -> tuple[list[int], int] | None:
        """How many responses give each answer, the most frequent first, and how many give none; None where a vote
        over answers makes no sense."""
        return registry.count_votes(problem["verifier"], problem["gold"], responses)

    def count_solutions(self, problem: Problem) -> int | None:
        """How many different solutions a problem has; None where this can't be known."""
        return None
