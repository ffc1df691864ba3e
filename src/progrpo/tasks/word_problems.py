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
PLACES = ("box", "bag", "basket", "shelf", "drawer", "tray")

Step = tuple[int, str, int]
# Draws a question and its steps; the last step's result is the answer.
Story = Callable[[random.Random], tuple[str, list[Step]]]


def _sum(rng: random.Random) -> tuple[str, list[Step]]:
    name, other = rng.sample(NAMES, 2)
    thing, a, b = rng.choice(THINGS), rng.randint(2, 60), rng.randint(2, 60)
    text = f"{name} has {a} {thing} and {other} has {b} {thing}. How many {thing} do they have together?"
    return text, [(a, "+", b)]


def _packed(rng: random.Random) -> tuple[str, list[Step]]:
    place, thing = rng.choice(PLACES), rng.choice(THINGS)
    count, each = rng.randint(2, 9), rng.randint(2, 12)
    text = f"There are {count} {_plural(place)} with {each} {thing} in each {place}. How many {thing} are there in all?"
    return text, [(count, "*", each)]


def _shared(rng: random.Random) -> tuple[str, list[Step]]:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    friends, each = rng.randint(2, 9), rng.randint(2, 12)
    total = friends * each
    text = f"{name} shares {total} {thing} equally among {friends} friends. How many {thing} does each friend get?"
    return text, [(total, "/", friends)]


def _gain_and_loss(rng: random.Random) -> tuple[str, list[Step]]:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    start, more = rng.randint(5, 40), rng.randint(2, 30)
    lost = rng.randint(1, start + more - 1)
    text = f"{name} has {start} {thing}, gets {more} more and then gives {lost} away. How many {thing} are left?"
    return text, [(start, "+", more), (start + more, "-", lost)]


def _packed_and_loose(rng: random.Random) -> tuple[str, list[Step]]:
    name, place, thing = rng.choice(NAMES), rng.choice(PLACES), rng.choice(THINGS)
    count, each, loose = rng.randint(2, 9), rng.randint(2, 12), rng.randint(1, 20)
    text = (
        f"{name} has {count} {_plural(place)} of {each} {thing} each, and {loose} more {thing} on the table. "
        f"How many {thing} does {name} have in total?"
    )
    return text, [(count, "*", each), (count * each, "+", loose)]


def _change(rng: random.Random) -> tuple[str, list[Step]]:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    count, price = rng.randint(2, 9), rng.randint(2, 9)
    cost = count * price
    paid = cost + rng.randint(1, 30)
    text = (
        f"{name} buys {count} {thing} at {price} dollars each and pays with {paid} dollars. "
        f"How many dollars does {name} get back?"
    )
    return text, [(count, "*", price), (paid, "-", cost)]


def _times_as_many(rng: random.Random) -> tuple[str, list[Step]]:
    name, other = rng.sample(NAMES, 2)
    thing, few, times = rng.choice(THINGS), rng.randint(2, 15), rng.randint(2, 5)
    text = f"{name} has {few} {thing}. {other} has {times} times as many. How many {thing} do they have together?"
    return text, [(few, "*", times), (few, "+", few * times)]


def _half_of_the_rest(rng: random.Random) -> tuple[str, list[Step]]:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    daily, days, used = rng.randint(2, 12), rng.randint(2, 7), rng.randint(1, 9)
    used = min(used, daily * days - 2)
    rest = (daily * days - used) // 2 * 2  # even, so that half of it is a whole number
    text = (
        f"{name} had {rest + used} {thing}, gave {used} to a neighbour and put half of the rest in a jar. "
        f"How many {thing} are in the jar?"
    )
    return text, [(rest + used, "-", used), (rest, "/", 2)]


def _plural(place: str) -> str:
    return {"box": "boxes", "shelf": "shelves"}.get(place, place + "s")


STORIES: tuple[Story, ...] = (
    _sum, _packed, _shared, _gain_and_loss, _packed_and_loose, _change, _times_as_many, _half_of_the_rest,
)  # fmt: skip
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}


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
        question, steps = rng.choice(STORIES)(rng)
        if question not in seen:
            seen.add(question)
            results = [OPERATIONS[sign](left, right) for left, sign, right in steps]
            lines = [
                f"{left} {sign} {right} = {result}" for (left, sign, right), result in zip(steps, results, strict=True)
            ]
            yield {"question": question, "answer": "\n".join([*lines, f"#### {results[-1]}"])}
