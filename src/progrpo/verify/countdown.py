"""Countdown: reach a target from given numbers, using each number exactly once.

A response lists one step for each pair of numbers::

    7 - 5 = 2 , 2 * 3 = 6 , ...

Each step takes two of the remaining numbers and replaces them by its result; the last result is the target.
Operators are ``+``, ``-`` and ``*``; every result is a whole number from 0 to :data:`MAX_VALUE`. The verifier reads
the text with a regular expression and does the arithmetic itself: it never evaluates any part of a response.

A solution is a set of steps (with repeats), not an expression tree. So the order of the steps, and of the operands of
``+`` and ``*``, does not count, but the grouping does: ``1 + 2 = 3 , 3 + 3 = 6`` and ``2 + 3 = 5 , 1 + 5 = 6`` are two
solutions. Where two equal numbers are left, a step does not say which of them it takes. All solutions of a problem can
be listed, so that coverage is exact.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, product
from typing import NamedTuple

from progrpo.verify.thinking import after_thinking
from progrpo.verify.verdict import Verdict

OPERATORS = ("+", "-", "*")
MAX_VALUE = 119

# ASCII digits only: \d also matches other scripts' digits. Three digits hold every number up to MAX_VALUE.
_STEP = re.compile(r"\s*([0-9]{1,3})\s*([+*-])\s*([0-9]{1,3})\s*=\s*([0-9]{1,3})\s*")

Steps = list[tuple[int, str, int, int]]
"""Steps as (left, operator, right, result)."""


class Expression(NamedTuple):
    """A number that is left, and the steps that led to it in a fixed order. The steps are its identity."""

    value: int
    steps: tuple[str, ...] = ()

    def combine(self, operator: str, other: "Expression", value: int) -> "Expression":
        """``self operator other``, which has this value."""
        left, right = (self.value, other.value) if operator == "-" else sorted((self.value, other.value))
        return Expression(value, tuple(sorted((*self.steps, *other.steps, f"{left}{operator}{right}={value}"))))


def apply(left: int, operator: str, right: int) -> int | None:
    """The result of one step; None if it is not a whole number from 0 to MAX_VALUE.

    >>> apply(3, "*", 5), apply(3, "-", 5), apply(100, "+", 100)
    (15, None, None)
    """
    value = left + right if operator == "+" else left - right if operator == "-" else left * right
    return value if 0 <= value <= MAX_VALUE else None


def read_problem(gold: str) -> tuple[list[int], int]:
    """The numbers and the target of ``{"numbers": [5, 3, 2], "target": 16}``; a ValueError if a gold lacks them."""
    try:
        problem = json.loads(gold)
        return [int(number) for number in problem["numbers"]], int(problem["target"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ValueError(f"the gold {gold[:80]!r} has no numbers and target") from None


def check_steps(numbers: Sequence[int], target: int, response: str) -> Verdict:
    """Whether the steps of a response lead from the numbers to the target.

    >>> check_steps([5, 3, 2], 16, "5 + 3 = 8 , 8 * 2 = 16")
    Verdict(status='correct', reason='', canonical='2*8=16,3+5=8')
    >>> check_steps([5, 3, 2], 16, "5 + 3 = 8 , 8 + 8 = 16").reason
    'step 2 uses 8 + 8, which are not both left'
    """
    answer = after_thinking(response)
    if answer is None:
        return Verdict("incorrect", "the response was still thinking when it ended")
    num_steps = len(numbers) - 1
    # A full response has fewer than 24 characters per step; a much longer text is not worth reading.
    if len(answer) > 64 * num_steps:
        return Verdict("incorrect", f"the response has {len(answer)} characters, more than {64 * num_steps}")
    texts = answer.split(",")
    if len(texts) != num_steps:
        return Verdict("incorrect", f"{len(texts)} steps, where {len(numbers)} numbers need {num_steps}")
    left_over = [Expression(number) for number in numbers]
    for index, text in enumerate(texts, start=1):
        if reason := _take_step(left_over, text, f"step {index}"):
            return Verdict("incorrect", reason)
    if left_over[0].value != target:
        return Verdict("incorrect", f"the last result is {left_over[0].value}, not {target}")
    return Verdict("correct", canonical=",".join(left_over[0].steps))


def _take_step(left_over: list[Expression], text: str, name: str) -> str:
    """Replace the numbers that a step uses by its result, in place. Returns why the step is wrong, or nothing."""
    match = _STEP.fullmatch(text)
    if match is None:
        return f"{name} is not of the form 'a + b = c'"
    left, operator, right, result = int(match[1]), match[2], int(match[3]), int(match[4])
    first = next((number for number in left_over if number.value == left), None)
    second = next((number for number in left_over if number.value == right and number is not first), None)
    if first is None or second is None:
        return f"{name} uses {left} {operator} {right}, which are not both left"
    value = apply(left, operator, right)
    if value is None:
        return f"the result of {name} is not a whole number from 0 to {MAX_VALUE}"
    if value != result:
        return f"{name} says {left} {operator} {right} = {result}"
    left_over.remove(first)
    left_over.remove(second)
    left_over.append(first.combine(operator, second, value))
    return ""


def solutions(numbers: Sequence[int], target: int) -> frozenset[str]:
    """Every solution of a problem, in canonical form, by exhaustive search.

    >>> sorted(solutions([2, 3, 5], 16))
    ['2*8=16,3+5=8']
    """
    return frozenset(",".join(expression.steps) for expression in _expressions(tuple(sorted(numbers)), target))


# The 6 subsets of 5 out of 6 numbers take about 20 MB each: the cache serves one problem at a time, not all of them.
@lru_cache(maxsize=128)
def _expressions(numbers: tuple[int, ...], target: int | None = None) -> tuple[Expression, ...]:
    """All different expressions that use exactly these numbers; with a target, only those of that value."""
    if len(numbers) == 1:
        return (Expression(numbers[0]),) if target in (None, numbers[0]) else ()
    expressions: dict[tuple[str, ...], Expression] = {}
    for part, rest in _splits(numbers):
        for left, right in product(_expressions(part), _expressions(rest)):
            for a, operator, b in ((left, "+", right), (left, "*", right), (left, "-", right), (right, "-", left)):
                value = apply(a.value, operator, b.value)
                if value is not None and target in (None, value):
                    expression = a.combine(operator, b, value)
                    expressions[expression.steps] = expression
    return tuple(expressions.values())


def _splits(numbers: tuple[int, ...]) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The ways to split the numbers into two parts, each pair of parts once."""
    first, *others = numbers
    return {
        ((first, *(others[i] for i in places)), tuple(others[i] for i in range(len(others)) if i not in places))
        for size in range(len(others))
        for places in combinations(range(len(others)), size)
    }
