"""Word problems of one or two arithmetic steps, generated here: rows in GSM8K's schema, with nothing to download.

A row is ``{"question": ..., "answer": ...}``; the answer shows the steps and ends in ``#### 42``, as in GSM8K.
Every quantity is a whole number from 1 to 200.
"""

import operator
import random
from collections.abc import Callable, Iterator

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
