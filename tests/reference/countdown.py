"""Countdown by brute force: every sequence of steps, one step at a time, with no sharing and no trees."""

from collections.abc import Iterator
from itertools import permutations

Step = tuple[int, str, int, int]

# The task's bounds.
LARGEST = 119


def step_sequences(numbers: list[int], target: int) -> Iterator[list[Step]]:
    """Every way to reach the target from the numbers: all ordered pairs and operators, then the same for the rest."""
    if len(numbers) == 1:
        if numbers[0] == target:
            yield []
        return
    for i, j in permutations(range(len(numbers)), 2):
        left, right = numbers[i], numbers[j]
        others = [number for place, number in enumerate(numbers) if place not in (i, j)]
        for operator, result in {"+": left + right, "-": left - right, "*": left * right}.items():
            if 0 <= result <= LARGEST:
                for rest in step_sequences([*others, result], target):
                    yield [(left, operator, right, result), *rest]


def identity(steps: list[Step]) -> tuple[Step, ...]:
    """A key that does not depend on the order of the steps, or of the operands of + and *."""
    return tuple(
        sorted((min(a, b), op, max(a, b), result) if op in "+*" else (a, op, b, result) for a, op, b, result in steps)
    )


def text(steps: list[Step]) -> str:
    """The steps as a model writes them."""
    return " , ".join(f"{left} {operator} {right} = {result}" for left, operator, right, result in steps)
