r"""Exact arithmetic on plain numbers, and on lists and pairs of them; and the meaning of a per-cent sign."""

import re
from fractions import Fraction

from progrpo.verify.math.parts import brackets, members
from progrpo.verify.math.reading import Reading

RELATIVE = Fraction(1, 1_000_000)
"""A decimal equals a number that is not known exactly if their relative difference is at most this."""
_DECIMAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)", re.ASCII)
_QUOTIENT = re.compile(r"([-+]?)(?:(\d+) )?(\d+)/(\d+)", re.ASCII)
_LATEX_QUOTIENT = re.compile(r"([-+]?)(\d*)\\frac\{(-?\d+)\}\{(\d+)\}", re.ASCII)
_POWER_OF_TEN = re.compile(
    rf"(?:({_DECIMAL.pattern})(?:\\times|\\cdot|\*) ?)?10\^(?:\{{([-+]?\d{{1,3}})\}}|(\d))", re.ASCII
)
_REPEATING = re.compile(r"([-+]?)(\d*)\.(\d*)\\overline\{(\d+)\}", re.ASCII)
_MOST_DIGITS = 400


def number(body: str) -> Fraction | None:
    r"""The exact value of a plain number; None for anything else.

    A plain number is an integer, a decimal, ``a/b``, ``\frac{a}{b}``, a mixed number, a repeating decimal, or a decimal
    times a power of ten.

    >>> number("0.50"), number(r"-1\frac{1}{2}"), number("7/0"), number("2x")
    (Fraction(1, 2), Fraction(-3, 2), None, None)
    """
    if len(body) > _MOST_DIGITS:
        return None
    if _DECIMAL.fullmatch(body):
        return Fraction(body)
    if match := _POWER_OF_TEN.fullmatch(body):
        return Fraction(match[1] or 1) * Fraction(10) ** int(match[2] or match[3])
    if match := _REPEATING.fullmatch(body):
        decimals, period = match[3], match[4]
        value = Fraction(f"{match[2]}.{decimals}0") + Fraction(int(period), 10 ** len(period) - 1) / 10 ** len(decimals)
    elif match := _QUOTIENT.fullmatch(body) or _LATEX_QUOTIENT.fullmatch(body):
        whole, numerator, denominator = match[2], int(match[3]), int(match[4])
        if denominator == 0 or (whole and numerator < 0):
            return None
        value = int(whole or 0) + Fraction(numerator, denominator)
    else:
        return None
    return -value if match[1] == "-" else value


def numbers(body: str) -> tuple[str, list[Fraction]] | None:
    """The outer brackets of a pair, a longer tuple or an interval, and its numbers; None if one is not a plain number.

    A list, or a single number, has no brackets. The numbers of a list are sorted.

    >>> numbers("(1,0.5]"), numbers("2, 1")
    (('(]', [Fraction(1, 1), Fraction(1, 2)]), ('', [Fraction(1, 1), Fraction(2, 1)]))
    """
    is_ordered = brackets(body) == "ordered"
    values = [number(member) for member in members(body[1:-1] if is_ordered else body)]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return (body[0] + body[-1], known) if is_ordered else ("", sorted(known))


def forms(answer: Reading, gold: Reading) -> list[tuple[int, int, bool]]:
    r"""The ways to compare an answer with a gold if only one of them may have a per-cent sign.

    An answer to a gold with the sign may leave the sign out, or give the share. An answer to a gold without the sign
    may give the value in per cent. The gold may also have left the sign to the question, but not if it is below one:
    0.25 % is not 0.25.

    Each way has the divisors of the answer and of the gold, and whether the gold has to be one or more.
    """
    if answer.is_percent == gold.is_percent:
        return [(1, 1, False)]
    return [(1, 1, False), (1, 100, False)] if gold.is_percent else [(100, 1, False), (1, 1, True)]


def same_numbers(answer: Reading, gold: Reading) -> bool | None:
    r"""Whether an answer and a gold are the same number, list, or pair of numbers; None for anything else.

    A list without repetition is a set.

    >>> same_numbers(Reading("256, 81"), Reading("81, 256")), same_numbers(Reading("81256"), Reading("x"))
    (True, None)
    """
    answer_numbers, gold_numbers = numbers(answer.body), numbers(gold.body)
    if answer_numbers is None or gold_numbers is None:
        return None
    (outer, values), (gold_outer, golds) = answer_numbers, gold_numbers
    if bool(outer) != bool(gold_outer) or (len(values) == 1) != (len(golds) == 1):
        return None
    if not outer and len(set(golds)) == len(golds):
        values = sorted(set(values))
    if outer != gold_outer or len(values) != len(golds):
        return False
    is_exact = "." not in answer.body + gold.body
    ways = [(1, 1, False)] if outer else forms(answer, gold)  # a sign after a pair says nothing
    for divisor, gold_divisor, needs_large_gold in ways:
        pairs = [(value / divisor, golden / gold_divisor) for value, golden in zip(values, golds, strict=True)]
        is_open = not needs_large_gold or all(abs(golden) >= 1 for golden in golds)
        if is_open and all(_is_same(value, golden, is_exact) for value, golden in pairs):
            return True
    return False


def _is_same(value: Fraction, gold: Fraction, is_exact: bool) -> bool:
    """Whole numbers and quotients are compared exactly; other golds also equal decimals that were cut off."""
    if is_exact or gold.denominator == 1:
        return value == gold
    return abs(value - gold) <= RELATIVE * max(abs(value), abs(gold))
