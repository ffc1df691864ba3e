"""Countdown: reach a target from given numbers, using each exactly once.

A prompt is ``5 3 7 2 : 24 ;`` (the numbers, then the target); a response lists one step per pair of numbers::

    7 - 5 = 2 , 2 * 3 = 6 , ...

Each step takes two numbers that are still there and puts its result in their place; the last result is the target.
Operators are ``+``, ``-`` and ``*``; every result is a whole number from 0 to :data:`MAX_VALUE`. The verifier reads
the text with a regular expression and does the sums itself: nothing of a response is ever evaluated.

Two responses are the same solution if they compute the same intermediate results from the same numbers: the order of
the steps, and of the operands of ``+`` and ``*``, does not count; a different grouping does, for
``1 + 2 = 3 , 3 + 3 = 6`` and ``2 + 3 = 5 , 1 + 5 = 6`` are different steps. So a solution is a set of steps (with
repeats), not an expression tree: where two numbers at hand are equal, a step does not say which of them it takes. All
solutions of a problem can be listed, so coverage is exact.
"""

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product
from typing import ClassVar, NamedTuple

from progrpo.common.errors import ConfigError
from progrpo.tasks.base import Problem
from progrpo.verify import Verdict
from progrpo.verify.thinking import after_thinking

OPERATORS = ("+", "-", "*")
MAX_NUMBER = 12
MAX_VALUE = 119
PROBLEMS = {3: (3_919, 434), 4: (56_021, 6_411), 5: (374_213, 42_562), 6: (1_257_069, 142_359)}
"""How many problems with a solution there are, by how many numbers they have: to train on, and held out."""
SIZES = tuple(PROBLEMS)

# ASCII digits only: \d also matches other scripts' digits. Three digits hold every number up to MAX_VALUE.
_STEP = re.compile(r"\s*([0-9]{1,3})\s*([+*-])\s*([0-9]{1,3})\s*=\s*([0-9]{1,3})\s*")

Steps = list[tuple[int, str, int, int]]
"""Steps as (left, operator, right, result)."""


class Expression(NamedTuple):
    """A number at hand: its value, and the steps that led to it in a fixed order, which are its identity."""

    value: int
    steps: tuple[str, ...] = ()

    def combine(self, operator: str, other: "Expression", value: int) -> "Expression":
        """``self operator other``, which has this value."""
        left, right = (self.value, other.value) if operator == "-" else sorted((self.value, other.value))
        step = f"{left}{operator}{right}={value}"
        return Expression(value, tuple(sorted((*self.steps, *other.steps, step))))

    @property
    def text(self) -> str:
        """The canonical form of a solution."""
        return ",".join(self.steps)


def apply(left: int, operator: str, right: int) -> int | None:
    """The result of one step, or None if it is not a whole number from 0 to MAX_VALUE.

    >>> apply(3, "*", 5), apply(3, "-", 5), apply(100, "+", 100)
    (15, None, None)
    """
    value = left + right if operator == "+" else left - right if operator == "-" else left * right
    return value if 0 <= value <= MAX_VALUE else None


def check_steps(numbers: Sequence[int], target: int, response: str) -> Verdict:
    """Whether the response's steps lead from the numbers to the target.

    >>> check_steps([5, 3, 2], 16, "5 + 3 = 8 , 8 * 2 = 16")
    Verdict(status='correct', reason='', canonical='2*8=16,3+5=8')
    >>> check_steps([5, 3, 2], 16, "5 + 3 = 8 , 8 + 8 = 16").reason
    'step 2 uses 8 + 8, which are not both left'
    """
    wanted = len(numbers) - 1
    answer = after_thinking(response)
    if answer is None:
        return Verdict("incorrect", "the response was still thinking when it ended")
    response = answer
    # A full response has under 24 characters a step; a longer text is not worth reading.
    if len(response) > 64 * wanted:
        return Verdict("incorrect", f"the response has {len(response)} characters, more than {64 * wanted}")
    texts = response.split(",")
    if len(texts) != wanted:
        return Verdict("incorrect", f"{len(texts)} steps, where {len(numbers)} numbers need {wanted}")
    left_over = [Expression(n) for n in numbers]
    for index, text in enumerate(texts, start=1):
        match = _STEP.fullmatch(text)
        if match is None:
            return Verdict("incorrect", f"step {index} is not of the form 'a + b = c'")
        left, operator, right, result = int(match[1]), match[2], int(match[3]), int(match[4])
        first = _take(left_over, left)
        second = _take(left_over, right)
        if first is None or second is None:
            return Verdict("incorrect", f"step {index} uses {left} {operator} {right}, which are not both left")
        value = apply(left, operator, right)
        if value is None:
            return Verdict("incorrect", f"the result of step {index} is not a whole number from 0 to {MAX_VALUE}")
        if value != result:
            return Verdict("incorrect", f"step {index} says {left} {operator} {right} = {result}")
        left_over.append(first.combine(operator, second, value))
    if left_over[0].value != target:
        return Verdict("incorrect", f"the last result is {left_over[0].value}, not {target}")
    return Verdict("correct", canonical=left_over[0].text)


def _take(expressions: list[Expression], value: int) -> Expression | None:
    """Remove and return an expression of this value, the first one there."""
    for index, expression in enumerate(expressions):
        if expression.value == value:
            return expressions.pop(index)
    return None


def solutions(numbers: Sequence[int], target: int) -> frozenset[str]:
    """Every solution of a problem, in canonical form, by exhaustive search.

    >>> sorted(solutions([2, 3, 5], 16))
    ['2*8=16,3+5=8']
    """
    return frozenset(e.text for e in _expressions(tuple(sorted(numbers)), target))


# 6 numbers have 6 parts of 5, of some 20 MB each: the cache serves one problem at a time, not all of them.
@lru_cache(maxsize=128)
def _expressions(numbers: tuple[int, ...], target: int | None = None) -> tuple[Expression, ...]:
    """All expressions over exactly these numbers, once each; only those of value ``target`` if given."""
    if len(numbers) == 1:
        return tuple(e for e in (Expression(numbers[0]),) if target in (None, e.value))
    found: dict[tuple[str, ...], Expression] = {}
    for part, rest in _splits(numbers):
        for left, right in product(_expressions(part), _expressions(rest)):
            for a, operator, b in ((left, "+", right), (left, "*", right), (left, "-", right), (right, "-", left)):
                value = apply(a.value, operator, b.value)
                if value is not None and target in (None, value):
                    expression = a.combine(operator, b, value)
                    found[expression.steps] = expression
    return tuple(found.values())


def _splits(numbers: tuple[int, ...]) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The ways to part the numbers in two, each pair of parts once."""
    first, others = numbers[0], range(1, len(numbers))
    splits = set()
    for size in range(len(numbers) - 1):
        for chosen in combinations(others, size):
            part = (first, *(numbers[i] for i in chosen))
            rest = tuple(numbers[i] for i in others if i not in chosen)
            splits.add((part, rest))
    return splits


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
    """Whether a problem, whatever the order of its numbers, belongs to the held-out tenth of all problems.

    The split is a property of the problem (a digest of it), so training and held-out sets of any size and seed, and
    the data that the starting model was made from, share no problem.
    """
    key = prompt_text(sorted(numbers), target).encode()
    return hashlib.blake2b(key, digest_size=4).digest()[0] % 10 == 0


@dataclass(frozen=True)
class Countdown:
    """The task: seeded problems of one size, training and held-out sets disjoint.

    Args:
        numbers: how many numbers a problem has, 3 to 6.
        train_size, heldout_size: how many problems each set has, all different.
        seed: of the training problems. The held-out problems are the same for every seed, so that runs compare.

    Raises:
        ConfigError: a size outside 3..6, or a set of no problem; and when problems are asked for, a set of more than
            there are (:data:`PROBLEMS`).

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
        """Five tokens a step, a comma between steps, and the end, with the shipped model's tokenizer."""
        return 6 * (self.numbers - 1)

    def train_problems(self) -> list[Problem]:
        return self._problems(random.Random(f"train {self.numbers} {self.seed}"), self.train_size, heldout=False)

    def heldout_problems(self) -> list[Problem]:
        return self._problems(random.Random(f"held-out {self.numbers}"), self.heldout_size, heldout=True)

    def verify(self, problem: Problem, response: str) -> Verdict:
        return check_steps(problem["numbers"], problem["target"], response)

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        return [self.verify(problem, response) for problem, response in zip(problems, responses, strict=True)]

    def gold(self, problem: Problem) -> str:
        return json.dumps({"numbers": problem["numbers"], "target": problem["target"]})

    def count_votes(self, problem: Problem, responses: Sequence[str]) -> None:
        return None

    def count_solutions(self, problem: Problem) -> int:
        return len(solutions(problem["numbers"], problem["target"]))

    def check_size(self, *, heldout: bool) -> None:
        """See that there are as many problems as are asked for.

        Raises:
            ConfigError: there are fewer.
        """
        name, most = ("train_size", "heldout_size")[heldout], PROBLEMS[self.numbers][heldout]
        if getattr(self, name) > most:
            raise ConfigError(
                f"task.{name} is {getattr(self, name)}, and there are only {most} such problems with {self.numbers} "
                "numbers; ask for fewer, or for more numbers."
            )

    def _problems(self, rng: random.Random, size: int, *, heldout: bool) -> list[Problem]:
        self.check_size(heldout=heldout)
        found: dict[str, Problem] = {}
        misses = 0
        while len(found) < size:
            numbers, target, _ = random_problem(rng, self.numbers)
            problem_id = prompt_text(sorted(numbers), target)
            if is_heldout(numbers, target) != heldout or problem_id in found:
                misses += 1
                if misses > 100 * size + 10_000:
                    raise ConfigError(
                        f"{'heldout' if heldout else 'train'}_size is {size}, but countdown with {self.numbers} "
                        f"numbers has only about {len(found)} such problems; ask for fewer, or for more numbers."
                    )
                continue
            prompt = prompt_text(numbers, target)
            found[problem_id] = {"prompt": prompt, "problem_id": problem_id, "numbers": numbers, "target": target}
        return list(found.values())
