"""Countdown problems: made from seeds, each solvable, with a fixed split into training and held-out problems.

A prompt is ``5 3 7 2 : 24 ;``: the numbers, then the target. :mod:`progrpo.verify.countdown` has the rules.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from progrpo.common.errors import ConfigError
from progrpo.tasks.base import Problem, Task
from progrpo.verify.countdown import OPERATORS, Steps, apply, check_steps, solutions
from progrpo.verify.verdict import Verdict

MAX_NUMBER = 12
PROBLEMS = {3: (3_919, 434), 4: (56_021, 6_411), 5: (374_213, 42_562), 6: (1_257_069, 142_359)}
"""The number of solvable problems, for training and held out, by the number of numbers in a problem."""
SIZES = tuple(PROBLEMS)


def random_problem(rng: random.Random, size: int) -> tuple[list[int], int, Steps]:
    """Random numbers and a random solution; the target is where the solution leads.

    >>> numbers, target, steps = random_problem(random.Random(0), 4)
    >>> check_steps(numbers, target, steps_text(steps)).correct
    True
    """
    while True:
        numbers = [rng.randint(1, MAX_NUMBER) for _ in range(size)]
        left_over, steps = list(numbers), []
        while len(left_over) > 1:
            left = left_over.pop(rng.randrange(len(left_over)))
            right = left_over.pop(rng.randrange(len(left_over)))
            operator = rng.choice(OPERATORS)
            value = apply(left, operator, right)
            if value is None:
                break
            steps.append((left, operator, right, value))
            left_over.append(value)
        else:
            return numbers, left_over[0], steps


def prompt_text(numbers: Sequence[int], target: int) -> str:
    """``5 3 7 2 : 24 ;``"""
    return f"{' '.join(map(str, numbers))} : {target} ;"


def steps_text(steps: Steps) -> str:
    """``7 - 5 = 2 , 2 * 3 = 6``"""
    return " , ".join(f"{left} {operator} {right} = {result}" for left, operator, right, result in steps)


def is_heldout(numbers: Sequence[int], target: int) -> bool:
    """Whether a problem, whatever the order of its numbers, belongs to the held-out tenth of all problems. Its digest
    decides this, so no training set, whatever its size and seed, shares a problem with the held-out sets, and neither
    does the data of the starting model."""
    key = prompt_text(sorted(numbers), target).encode()
    return hashlib.blake2b(key, digest_size=4).digest()[0] % 10 == 0


@dataclass(frozen=True)
class Countdown(Task):
    """The Countdown task: problems of one size, made from a seed, in disjoint training and held-out sets.

    A problem has 3 to 6 ``numbers``; the problems of a set are all different. ``seed`` is that of the training
    problems. The held-out problems are the same for every seed, so that runs are comparable.

    Raises:
        ConfigError: ``numbers`` is outside 3..6, or a set has no problems. If a set is to have more problems than
            there are (:data:`PROBLEMS`), this is raised when the problems are made.

    >>> task = Countdown(numbers=4, train_size=3, heldout_size=2)
    >>> problem = task.heldout_problems()[0]
    >>> sorted(problem)
    ['numbers', 'problem_id', 'prompt', 'target']
    >>> task.verify(problem, "1 + 1 = 3").status
    'incorrect'
    """

    numbers: int = 4
    train_size: int = 8192
    heldout_size: int = 200
    seed: int = 0
    name: ClassVar[str] = "countdown"
    verifier: ClassVar[str] = "countdown"

    def __post_init__(self) -> None:
        if self.numbers not in SIZES:
            raise ConfigError(f"numbers must be one of {', '.join(map(str, SIZES))}, got {self.numbers!r}.")
        for name in ("train_size", "heldout_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)!r}.")

    @property
    def max_response_tokens(self) -> int:
        """With the shipped model's tokenizer, a step has five tokens, and a comma or the end follows it."""
        return 6 * (self.numbers - 1)

    def train_problems(self) -> list[Problem]:
        return self._problems(random.Random(f"train {self.numbers} {self.seed}"), self.train_size, heldout=False)

    def heldout_problems(self) -> list[Problem]:
        return self._problems(random.Random(f"held-out {self.numbers}"), self.heldout_size, heldout=True)

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        return [check_steps(p["numbers"], p["target"], text) for p, text in zip(problems, responses, strict=True)]

    def gold(self, problem: Problem) -> str:
        return json.dumps({"numbers": problem["numbers"], "target": problem["target"]})

    def count_votes(self, problem: Problem, responses: Sequence[str]) -> None:
        return None

    def count_solutions(self, problem: Problem) -> int:
        return len(solutions(problem["numbers"], problem["target"]))

    def check_size(self, *, heldout: bool) -> None:
        """Raise a ConfigError if there are fewer problems than the size of the set."""
        name, most = ("train_size", "heldout_size")[heldout], PROBLEMS[self.numbers][heldout]
        if getattr(self, name) > most:
            raise ConfigError(
                f"task.{name} is {getattr(self, name)}, and there are only {most} such problems with {self.numbers} "
                "numbers; ask for fewer, or for more numbers."
            )

    def _problems(self, rng: random.Random, size: int, *, heldout: bool) -> list[Problem]:
        self.check_size(heldout=heldout)
        problems: dict[str, Problem] = {}
        for _ in range(101 * size + 10_000):
            numbers, target, _ = random_problem(rng, self.numbers)
            prompt, problem_id = prompt_text(numbers, target), prompt_text(sorted(numbers), target)
            if is_heldout(numbers, target) == heldout and problem_id not in problems:
                problems[problem_id] = dict(prompt=prompt, problem_id=problem_id, numbers=numbers, target=target)
            if len(problems) == size:
                return list(problems.values())
        raise ConfigError(
            f"{'heldout' if heldout else 'train'}_size is {size}, but countdown with {self.numbers} numbers has only "
            f"about {len(problems)} such problems; ask for fewer, or for more numbers."
        )
