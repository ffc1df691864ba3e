"""Tasks to write small functions, generated here: rows in MBPP's schema, with nothing to download.

A row is ``{"text", "code", "test_list"}``: what to write, a solution, and three asserts.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

from progrpo.tasks.rows import Row

WORDS = ("apple", "banana", "cherry", "garden", "letter", "mirror", "pepper", "river", "summer", "window", "yellow")
LETTERS = "aeinrt"

Draw = Callable[[random.Random], tuple[Any, ...]]
"""Draws the arguments of a test."""


def _integer(low: int, high: int) -> Draw:
    return lambda rng: (rng.randint(low, high),)


def _two_integers(rng: random.Random) -> tuple[int, int]:
    return rng.randint(1, 50), rng.randint(1, 50)


def _integers(rng: random.Random) -> tuple[list[int]]:
    return ([rng.randint(0, 30) for _ in range(rng.randint(3, 6))],)


def _word(rng: random.Random) -> tuple[str]:
    return (rng.choice(WORDS),)


def _words(rng: random.Random) -> tuple[list[str]]:
    return (rng.sample(WORDS, rng.randint(2, 4)),)


# The name, task, expression, parameters, and test arguments of each. N stands for a number, L for a letter.
FUNCTIONS: tuple[tuple[str, str, str, str, Draw], ...] = (
    ("add_N", "that adds N to a number", "x + N", "x", _integer(0, 90)),
    ("subtract_N", "that subtracts N from a number", "x - N", "x", _integer(20, 90)),
    ("times_N", "that multiplies a number by N", "x * N", "x", _integer(0, 20)),
    ("square_plus_N", "that squares a number and adds N", "x * x + N", "x", _integer(0, 12)),
    ("remainder_by_N", "that returns the remainder of a number divided by N", "x % N", "x", _integer(5, 90)),
    ("is_multiple_of_N", "that tells if a number is a multiple of N", "x % N == 0", "x", _integer(1, 40)),
    ("is_above_N", "that tells if a number is greater than N", "x > N", "x", _integer(0, 20)),
    ("sum_plus_N", "that returns the sum of two numbers plus N", "a + b + N", "a, b", _two_integers),
    ("product_minus_N", "that returns the product of two numbers minus N", "a * b - N", "a, b", _two_integers),
    ("larger_plus_N", "that returns the larger of two numbers plus N", "max(a, b) + N", "a, b", _two_integers),
    ("sum_times_N", "that returns the sum of a list of numbers times N", "sum(items) * N", "items", _integers),
    ("largest_plus_N", "that returns the largest number of a list plus N", "max(items) + N", "items", _integers),
    (
        "count_above_N",
        "that counts the numbers of a list that are greater than N",
        "sum(1 for item in items if item > N)",
        "items",
        _integers,
    ),
    ("add_N_to_all", "that adds N to every number of a list", "[item + N for item in items]", "items", _integers),
    ("first_N", "that returns the first N letters of a word", "word[:N]", "word", _word),
    ("repeat_N_times", "that repeats a word N times", "word * N", "word", _word),
    ("count_letter_L", "that counts the letter 'L' in a word", "word.count('L')", "word", _word),
    ("remove_letter_L", "that removes every letter 'L' from a word", "word.replace('L', '')", "word", _word),
    ("join_with_L", "that joins a list of words with the letter 'L' between them", "'L'.join(words)", "words", _words),
)


def small_functions(seed: int = 0) -> Iterator[Row]:
    """All rows, some 180, in an order that depends on the seed: two seeds give the same rows in different orders.

    >>> row = next(small_functions())
    >>> sorted(row)
    ['code', 'test_list', 'text']
    """
    rng = random.Random(f"small functions {seed}")
    variants: list[tuple[str, str, str, str, Draw]] = []
    for *texts, parameters, draw in FUNCTIONS:
        mark, values = ("L", LETTERS) if "_L" in texts[0] else ("N", map(str, range(2, 12)))
        for value in values:
            name, text, expression = (part.replace(mark, value) for part in texts)
            variants.append((name, text, expression, parameters, draw))
    rng.shuffle(variants)
    for name, text, expression, parameters, draw in variants:
        yield {
            "text": f"Write a function {name}({parameters}) {text}.",
            "code": f"def {name}({parameters}):\n    return {expression}\n",
            "test_list": _asserts(name, expression, parameters, draw),
        }


def _asserts(name: str, expression: str, parameters: str, draw: Draw) -> list[str]:
    """Three asserts with different arguments and at least two different results: a constant must not pass."""
    rng = random.Random(name)
    drawn: dict[str, str] = {}
    function = eval(f"lambda {parameters}: {expression}")  # the text is from the table above, never from a model
    while len(drawn) < 3:
        arguments = draw(rng)
        result = repr(function(*arguments))
        if len(drawn) < 2 or set(drawn.values()) != {result}:
            drawn[", ".join(map(repr, arguments))] = result
    return [f"assert {name}({arguments}) == {result}" for arguments, result in drawn.items()]
