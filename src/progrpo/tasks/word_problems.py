"""Word problems of one to three arithmetic steps, made here: rows in GSM8K's schema, with nothing to download.

A row is ``{"question": ..., "answer": ...}``; the answer works the steps out and ends in ``#### 42``, as GSM8K's do.
Every quantity is a whole number from 1 to 200.
"""

import random
from collections.abc import Callable, Iterator

from progrpo.tasks.rows import Row

NAMES = ("Ada", "Ben", "Chloe", "Dev", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Liam", "Mei", "Nora")
THINGS = ("apples", "books", "marbles", "stickers", "pencils", "shells", "coins", "cookies", "stamps", "cards")
PLACES = ("box", "bag", "basket", "shelf", "drawer", "tray")
PLURALS = {"box": "boxes", "shelf": "shelves"}

Story = Callable[[random.Random], tuple[str, list[str], int]]
"""Draws a question, its steps (``"3 * 4 = 12"``) and its answer."""


def _gain_and_loss(rng: random.Random) -> tuple[str, list[str], int]:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    start, found = rng.randint(5, 40), rng.randint(2, 30)
    lost = rng.randint(1, start + found - 1)
    text = f"{name} has {start} {thing}, gets {found} more and then gives {lost} away. How many {thing} are left?"
    return (
        text,
        [f"{start} + {found} = {start + found}", f"{start + found} - {lost} = {start + found - lost}"],
        (start + found - lost),
    )


def _sum(rng: random.Random) -> tuple[str, list[str], int]:
    name, other = rng.sample(NAMES, 2)
    thing, a, b = rng.choice(THINGS), rng.randint(2, 60), rng.randint(2, 60)
    return (
        f"{name} has {a} {thing} and {other} has {b} {thing}. How many {thing} do they have together?",
        [f"{a} + {b} = {a + b}"],
        a + b,
    )


def _packed(rng: random.Random) -> tuple[str, list[str], int]:
    place, thing = rng.choice(PLACES), rng.choice(THINGS)
    places, each = rng.randint(2, 9), rng.randint(2, 12)
    plural = PLURALS.get(place, place + "s")
    return (
        f"There are {places} {plural} with {each} {thing} in each {place}. How many {thing} are there in all?",
        [f"{places} * {each} = {places * each}"],
        places * each,
    )


def _packed_and_loose(rng: random.Random) -> tuple[str, list[str], int]:
    name, place, thing = rng.choice(NAMES), rng.choice(PLACES), rng.choice(THINGS)
    places, each, loose = rng.randint(2, 9), rng.randint(2, 12), rng.randint(1, 20)
    plural, packed = PLURALS.get(place, place + "s"), places * each
    return (
        f"{name} has {places} {plural} of {each} {thing} each, and {loose} more {thing} on the table. "
        f"How many {thing} does {name} have in total?",
        [f"{places} * {each} = {packed}", f"{packed} + {loose} = {packed + loose}"],
        packed + loose,
    )


def _shared(rng: random.Random) -> tuple[str, list[str], int]:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    friends, each = rng.randint(2, 9), rng.randint(2, 12)
    total = friends * each
    return (
        f"{name} shares {total} {thing} equally among {friends} friends. How many {thing} does each friend get?",
        [f"{total} / {friends} = {each}"],
        each,
    )


def _change(rng: random.Random) -> tuple[str, list[str], int]:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    count, price = rng.randint(2, 9), rng.randint(2, 9)
    cost = count * price
    paid = cost + rng.randint(1, 30)
    return (
        f"{name} buys {count} {thing} at {price} dollars each and pays with {paid} dollars. "
        f"How many dollars does {name} get back?",
        [f"{count} * {price} = {cost}", f"{paid} - {cost} = {paid - cost}"],
        paid - cost,
    )


def _times_as_many(rng: random.Random) -> tuple[str, list[str], int]:
    name, other = rng.sample(NAMES, 2)
    thing, few, times = rng.choice(THINGS), rng.randint(2, 15), rng.randint(2, 5)
    many = few * times
    return (
        f"{name} has {few} {thing}. {other} has {times} times as many. How many {thing} do they have together?",
        [f"{few} * {times} = {many}", f"{few} + {many} = {few + many}"],
        few + many,
    )


def _week(rng: random.Random) -> tuple[str, list[str], int]:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    daily, days, used = rng.randint(2, 12), rng.randint(2, 7), rng.randint(1, 9)
    made = daily * days
    used = min(used, made - 2)
    half = (made - used) // 2
    made_even = half * 2 + used  # so that the last step comes out whole
    return (
        f"{name} had {made_even} {thing}, gave {used} to a neighbour and put half of the rest in a jar. "
        f"How many {thing} are in the jar?",
        [f"{made_even} - {used} = {half * 2}", f"{half * 2} / 2 = {half}"],
        half,
    )


STORIES: tuple[Story, ...] = (
    _sum,
    _packed,
    _shared,
    _gain_and_loss,
    _packed_and_loose,
    _change,
    _times_as_many,
    _week,
)


def word_problems(seed: int = 0) -> Iterator[Row]:
    """An endless stream of rows, all different, the same for the same seed.

    >>> row = next(word_problems())
    >>> sorted(row)
    ['answer', 'question']
    >>> row["answer"].splitlines()[-1].startswith("#### ")
    True
    """
    rng = random.Random(f"word problems {seed}")
    seen = set()
    while True:
        question, steps, answer = rng.choice(STORIES)(rng)
        if question not in seen:
            seen.add(question)
            yield {"question": question, "answer": "\n".join([*steps, f"#### {answer}"])}
