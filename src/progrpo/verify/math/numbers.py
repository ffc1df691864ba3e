r"""Exact arithmetic on what is plainly a number, or a list or a pair of numbers."""

import re
from fractions import Fraction
from itertools import repeat

from progrpo.verify.math.parts import brackets, members
from progrpo.verify.math.reading import Reading

RELATIVE = Fraction(1, 1_000_000)
"""A decimal counts as a number that is not known exactly, if it differs by no more than this share."""
_INTEGER = re.compile(r"[-+]?\d+", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+)", re.ASCII)
_QUOTIENT = re.compile(r"([-+]?)(?:(\d+) )?(\d+)/(\d+)", re.ASCII)
_LATEX_QUOTIENT = re.compile(r"([-+]?)(\d*)\\frac\{(-?\d+)\}\{(\d+)\}", re.ASCII)
_POWER_OF_TEN = re.compile(
    r"(?:([-+]?(?:\d+\.?\d*|\.\d+))(?:\\times|\\cdot|\*) ?)?10\^(?:\{([-+]?\d{1,3})\}|(\d))", re.ASCII
)
_REPEATING = re.compile(r"([-+]?)(\d*)\.(\d*)\\overline\{(\d+)\}", re.ASCII)
_MOST_DIGITS = 400


def number(body: str) -> Fraction | None:
    r"""The exact value of a plain number, else None: an integer, a decimal, ``a/b``, ``\frac{a}{b}``, a mixed number,
    or a decimal times a power of ten.

    >>> number("0.50"), number(r"-1\frac{1}{2}"), number("7/0"), number("2x")
    (Fraction(1, 2), Fraction(-3, 2), None, None)
    """
    if len(body) > _MOST_DIGITS:
        return None
    if match := _REPEATING.fullmatch(body):
        sign, whole, first, again = match[1], match[2] or "0", match[3], match[4]
        fraction = Fraction(int(again), 10 ** len(again) - 1) / 10 ** len(first)
        value = Fraction(f"{whole}.{first}0") + fraction
        return -value if sign == "-" else value
    if _INTEGER.fullmatch(body) or _DECIMAL.fullmatch(body):
        return Fraction(body)
    if match := _QUOTIENT.fullmatch(body) or _LATEX_QUOTIENT.fullmatch(body):
        sign, whole, numerator, denominator = match[1], match[2], int(match[3]), int(match[4])
        if denominator == 0 or (whole and numerator < 0):
            return None
        value = int(whole or 0) + Fraction(numerator, denominator)
        return -value if sign == "-" else value
    if match := _POWER_OF_TEN.fullmatch(body):
        return Fraction(match[1] or 1) * Fraction(10) ** int(match[2] or match[3])
    return None


def ordered_numbers(body: str) -> list[Fraction]:
    """The members of an ordered pair, a longer tuple or an interval, if all are plain numbers; else none.

    >>> ordered_numbers("(1,0.5]"), ordered_numbers("(1,x)")
    ([Fraction(1, 1), Fraction(1, 2)], [])
    """
    if brackets(body) != "ordered":
        return []
    found = [number(member) for member in members(body[1:-1])]
    return [] if None in found else [value for value in found if value is not None]


def listed_numbers(body: str) -> list[Fraction]:
    """The members of a list that is in no brackets, in order, if all are plain numbers; else none.

    >>> listed_numbers("2, 0.5"), listed_numbers("2,x"), listed_numbers("2")
    ([Fraction(1, 2), Fraction(2, 1)], [], [])
    """
    listed = members(body)
    found = [number(member) for member in listed] if len(listed) > 1 else []
    return [] if None in found else sorted(value for value in found if value is not None)


def same_numbers(said: Reading, right: Reading) -> bool | None:
    r"""Whether an answer and a gold are the same number, list, or pair of numbers; None for what is neither.

    Per cent are compared as shares or without the sign, see below; a list without repetition is a set.

    >>> from progrpo.verify.math.reading import read
    >>> same_numbers(read(r"25\%"), read("25")), same_numbers(read(r"0.25\%"), read("0.25"))
    (True, False)
    >>> same_numbers(read("256, 81"), read("81, 256")), same_numbers(read("81256"), read("x"))
    (True, None)
    """
    is_exact = "." not in said.body + right.body
    numbers, gold_numbers = ordered_numbers(said.body), ordered_numbers(right.body)
    if numbers and gold_numbers:
        is_right = _same_form(said.body, right.body)
        return is_right and all(map(_same_number, numbers, gold_numbers, repeat(is_exact)))
    numbers, gold_numbers = listed_numbers(said.body), listed_numbers(right.body)
    if numbers and gold_numbers and said.is_percent == right.is_percent:
        if len(set(gold_numbers)) == len(gold_numbers):  # without repetition as in a set
            numbers = sorted(set(numbers))
        is_as_long = len(numbers) == len(gold_numbers)
        return is_as_long and all(map(_same_number, numbers, gold_numbers, repeat(is_exact)))
    value, gold = number(said.body), number(right.body)
    if value is None or gold is None:
        return None
    # In per cent or as a share. Where the gold has no sign, it may have left that to the question, but not if it is
    # below one: that is a share, and 0.25 % is not 0.25.
    pairs = [(value, gold)]
    if right.is_percent and not said.is_percent:
        pairs.append((value, gold / 100))
    elif said.is_percent and not right.is_percent:
        pairs = [(value / 100, gold), *(pairs if abs(gold) >= 1 else [])]
    return any(_same_number(a, b, is_exact) for a, b in pairs)


def _same_form(body: str, gold_body: str) -> bool:
    """Whether two pairs or intervals have the same brackets, and as many members."""
    return (body[0], body[-1], body.count(",")) == (gold_body[0], gold_body[-1], gold_body.count(","))


def _same_number(value: Fraction, gold: Fraction, is_exact: bool) -> bool:
    """Whole numbers and quotients exactly; others may be met by decimals that were cut off."""
    if is_exact or gold.denominator == 1:
        return value == gold
    return abs(value - gold) <= RELATIVE * max(abs(value), abs(gold))
