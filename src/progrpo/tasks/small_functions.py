"""Tasks to write small functions, generated here: rows in MBPP's schema, with nothing to download.

A row is ``{"text", "code", "test_list"}``: what to write, a solution, and three asserts.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

from progrpo.tasks.rows import Row

WORDS = ("apple", "banana", "cherry", "garden", "letter", "mirror", "pepper", "river", "summer", "window", "yellow")
LETTERS = "aeinrt"

ARGUMENTS: dict[str, Callable[[random.Random], tuple[Any, ...]]] = {
    "a, b": lambda rng: (rng.randint(1, 50), rng.randint(1, 50)),
    "items": lambda rng: ([rng.randint(0, 30) for _ in range(rng.randint(3, 6))],),
    "word": lambda rng: (rng.choice(WORDS),),
    "words": lambda rng: (rng.sample(WORDS, rng.randint(2, 4)),),
}
"""What draws the arguments of a test, by the function's parameters. A single number has bounds of its own."""
# The name, task, expression and parameters of each, and the bounds of an x. N stands for a number, L for a letter.
FUNCTIONS: tuple[tuple[str, str, str, str, tuple[int, int] | None], ...] = (
    ("add_N", "that adds N to a number", "x + N", "x", (0, 90)),
    ("subtract_N", "that subtracts N from a number", "x - N", "x", (20, 90)),
    ("times_N", "that multiplies a number by N", "x * N", "x", (0, 20)),
    ("square_plus_N", "that squares a number and adds N", "x * x + N", "x", (0, 12)),
    ("remainder_by_N", "that returns the remainder of a number divided by N", "x % N", "x", (5, 90)),
    ("is_multiple_of_N", "that tells if a number is a multiple of N", "x % N == 0", "x", (1, 40)),
    ("is_above_N", "that tells if a number is greater than N", "x > N", "x", (0, 20)),
    ("sum_plus_N", "that returns the sum of two numbers plus N", "a + b + N", "a, b", None),
    ("product_minus_N", "that returns the product of two numbers minus N", "a * b - N", "a, b", None),
    ("larger_plus_N", "that returns the larger of two numbers plus N", "max(a, b) + N", "a, b", None),
    ("sum_times_N", "that returns the sum of a list of numbers times N", "sum(items) * N", "items", None),
    ("largest_plus_N", "that returns the largest number of a list plus N", "max(items) + N", "items", None),
    (
        "count_above_N",
        "that counts the numbers of a list that are greater than N",
        "sum(1 for item in items if item > N)",
        "items",
        None,
    ),
    ("add_N_to_all", "that adds N to every number of a list", "[item + N for item in items]", "items", None),
    ("first_N", "that returns the first N letters of a word", "word[:N]", "word", None),
    ("repeat_N_times", "that repeats a word N times", "word * N", "word", None),
    ("count_letter_L", "that counts the letter 'L' in a word", "word.count('L')", "word", None),
    ("remove_letter_L", "that removes every letter 'L' from a word", "word.replace('L', '')", "word", None),
    ("join_with_L", "that joins a list of words with the letter 'L' between them", "'L'.join(words)", "words", None),
)


def small_functions(seed: int = 0) -> Iterator[Row]:
    """All rows, some 180, in an order that depends on the seed: two seeds give the same rows in different orders.

    >>> row = next(small_functions())
    >>> sorted(row)
    ['code', 'test_list', 'text']
    """
    rows = []
    for *templates, parameters, bounds in FUNCTIONS:
        mark, values = ("L", LETTERS) if "_L" in templates[0] else ("N", map(str, range(2, 12)))
        for value in values:
            name, text, expression = (template.replace(mark, value) for template in templates)
            row = {
                "text": f"Write a function {name}({parameters}) {text}.",
                "code": f"def {name}({parameters}):\n    return {expression}\n",
                "test_list": _asserts(name, expression, parameters, bounds),
            }
            rows.append(row)
    random.Random(f"small functions {seed}").shuffle(rows)
    yield from rows


def _asserts(name: str, expression: str, parameters: str, bounds: tuple[int, int] | None) -> list[str]:
    """Three asserts with different arguments and at least two different results: a constant must not pass."""
    rng = random.Random(name)
    drawn: dict[str, str] = {}
    function = eval(f"lambda {parameters}: {expression}")  # the text is from the table above, never from a model
    while len(drawn) < 3:
        arguments = (rng.randint(*bounds),) if bounds else ARGUMENTS[parameters](rng)
        result = repr(function(*arguments))
        if len(drawn) < 2 or set(drawn.values()) != {result}:
            drawn[", ".join(map(repr, arguments))] = result
    return [f"assert {name}({arguments}) == {result}" for arguments, result in drawn.items()]
