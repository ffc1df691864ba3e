"""Rows that are generated here, with nothing to download: word problems for maths, small functions for code.

A word problem has one or two arithmetic steps and is a row in GSM8K's schema: ``{"question": ..., "answer": ...}``. The
answer shows the steps and ends in ``#### 42``. Every quantity is a whole number from 1 to 200.

A small function is a row in MBPP's schema: ``{"text", "code", "test_list"}``, which are what to write, a solution, and
three asserts.
"""

import operator
import random
from collections.abc import Callable, Iterator
from typing import Any

from progrpo.tasks.rows import Row

NAMES = ("Ada", "Ben", "Chloe", "Dev", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Liam", "Mei", "Nora")
THINGS = ("apples", "books", "marbles", "stickers", "pencils", "shells", "coins", "cookies", "stamps", "cards")
PLACES = {
    "box": "boxes", "bag": "bags", "basket": "baskets", "shelf": "shelves", "drawer": "drawers", "tray": "trays",
}  # fmt: skip
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}

Step = tuple[int, str, int]
Draw = Callable[[int, int], int]
"""Draws a whole number between two bounds, which are included."""


def _sum(draw: Draw) -> list[Step]:
    return [(draw(2, 60), "+", draw(2, 60))]


def _packed(draw: Draw) -> list[Step]:
    return [(draw(2, 9), "*", draw(2, 12))]


def _packed_and_loose(draw: Draw) -> list[Step]:
    count, each = draw(2, 9), draw(2, 12)
    return [(count, "*", each), (count * each, "+", draw(1, 20))]


def _shared(draw: Draw) -> list[Step]:
    friends, each = draw(2, 9), draw(2, 12)
    return [(friends * each, "/", friends)]


def _gain_and_loss(draw: Draw) -> list[Step]:
    start, more = draw(5, 40), draw(2, 30)
    return [(start, "+", more), (start + more, "-", draw(1, start + more - 1))]


def _change(draw: Draw) -> list[Step]:
    count, price = draw(2, 9), draw(2, 9)
    return [(count, "*", price), (count * price + draw(1, 30), "-", count * price)]


def _times_as_many(draw: Draw) -> list[Step]:
    few, times = draw(2, 15), draw(2, 5)
    return [(few, "*", times), (few, "+", few * times)]


def _half_of_the_rest(draw: Draw) -> list[Step]:
    total = draw(2, 12) * draw(2, 7)
    used = min(draw(1, 9), total - 2)
    rest = (total - used) // 2 * 2  # even, so that half of it is a whole number
    return [(rest + used, "-", used), (rest, "/", 2)]


# Each story's text, and what draws the steps of its solution. In the text, {0}, {1}, ... are the numbers of the steps.
STORIES: dict[str, Callable[[Draw], list[Step]]] = {
    "{name} has {0} {thing} and {other} has {1} {thing}. How many {thing} do they have together?": _sum,
    "There are {0} {places} with {1} {thing} in each {place}. How many {thing} are there in all?": _packed,
    "{name} shares {0} {thing} equally among {1} friends. How many {thing} does each friend get?": _shared,
    "{name} has {0} {thing}, gets {1} more and then gives {3} away. How many {thing} are left?": _gain_and_loss,
    "{name} has {0} {places} of {1} {thing} each, and {3} more {thing} on the table. "
    "How many {thing} does {name} have in total?": _packed_and_loose,
    "{name} buys {0} {thing} at {1} dollars each and pays with {2} dollars. "
    "How many dollars does {name} get back?": _change,
    "{name} has {0} {thing}. {other} has {1} times as many. How many {thing} do they have together?": _times_as_many,
    "{name} had {0} {thing}, gave {1} to a neighbour and put half of the rest in a jar. "
    "How many {thing} are in the jar?": _half_of_the_rest,
}


def word_problems(seed: int = 0) -> Iterator[Row]:
    """An endless stream of rows, all different; the same seed gives the same rows.

    >>> row = next(word_problems())
    >>> sorted(row)
    ['answer', 'question']
    >>> row["answer"].splitlines()[-1].startswith("#### ")
    True
    """
    rng = random.Random(f"word problems {seed}")
    seen = set()
    while True:
        text, draw_steps = rng.choice(list(STORIES.items()))
        words = dict(zip(("name", "other"), rng.sample(NAMES, ("{name}" in text) + ("{other}" in text)), strict=False))
        if "{places}" in text:
            words["place"], words["places"] = rng.choice(list(PLACES.items()))
        words["thing"] = rng.choice(THINGS)
        steps = draw_steps(rng.randint)
        question = text.format(*(number for left, _, right in steps for number in (left, right)), **words)
        if question not in seen:
            seen.add(question)
            lines = [f"{left} {sign} {right} = {OPERATIONS[sign](left, right)}" for left, sign, right in steps]
            yield {"question": question, "answer": "\n".join([*lines, f"#### {lines[-1].rpartition(' ')[2]}"])}


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
