r"""An answer compared with a gold without algebra: differences that math-verify overlooks, and exact arithmetic."""

import re
from fractions import Fraction

from progrpo.verify.math.parts import brackets, intervals, members, numbers, sides
from progrpo.verify.math.reading import NO_SET, Reading, are_equations
from progrpo.verify.math.size import BIG_OPERATOR
from progrpo.verify.math.text import STYLED

RELATIVE = Fraction(1, 1_000_000)
"""A decimal equals a number that is not known exactly if their relative difference is at most this."""
_PRIMED = re.compile(r"(\w?)('+)")
_FEET_OR_MINUTES = re.compile(r"(?<![\w.])[\d.]+'")
_UNFINISHED = re.compile(r"\\(?:i+nt|oint)(?![A-Za-z])|\\(?:sum|prod)(?![A-Za-z])[^a-z]*(?:[a-z][^a-z]*)?\\infty")
_APART = r"(?:(?<![\d.^_])(?<!binom )(?:\d+(?:\.\d+)?|\.\d+)|(?<![A-Za-z\\^_])[A-Za-z]) \d+(?![\d/])"
"""A number after a number or a letter, with only a blank between them. Mixed numbers and powers do not match."""
_FLAWS = {
    "is an element of something that is not a set": re.compile(rf"\\in(?![a-z]) ?(?:{NO_SET})"),
    "has a number after another without a sign between them": re.compile(_APART, re.ASCII),
    "has an interval that is closed at infinity": re.compile(r"\\infty ?\]|\[[-+]?\\infty"),
}
"""Flaws that an answer may have only if the gold has them."""


def conflict(answer: Reading, gold: Reading) -> str:
    r"""Why an answer is not the gold although math-verify would accept it; empty if there is no such reason.

    It is not a conflict if only one of them has a unit or a per-cent sign, or if only the gold has a base: the question
    often says "in base 8" or "what percent".

    >>> conflict(Reading("5", unit="cm"), Reading("5", unit="m")), conflict(Reading("5"), Reading("5", unit="m"))
    ("the unit is 'cm', not 'm'", '')
    """
    if answer.unit and gold.unit and answer.unit != gold.unit:
        return f"the unit is {answer.unit!r}, not {gold.unit!r}"
    if answer.is_percent != gold.is_percent and (answer.unit or gold.unit):
        return "one is in per cent, the other has a unit"
    if answer.base not in ("", gold.base):
        return f"the base is {answer.base or 10}, not {gold.base or 10}"
    symbol = "" if are_equations(answer, gold) else answer.symbol
    if symbol and gold.symbol and symbol.lower() != gold.symbol.lower():
        return f"the answer is about {symbol!r}, not {gold.symbol!r}"
    if symbol and re.search(rf"(?<![\\A-Za-z]){re.escape(symbol)}(?![A-Za-z])", answer.body):
        return f"the answer defines {symbol!r} by itself"
    solutions, gold_solutions = intervals(answer.body), intervals(gold.body)
    if solutions and gold_solutions and solutions[0] != gold_solutions[0]:
        return f"the answer is about {solutions[0]!r}, not {gold_solutions[0]!r}"
    for flaw, pattern in _FLAWS.items():
        if pattern.search(answer.body) and not pattern.search(gold.body):
            return f"the answer {flaw}"
    if _UNFINISHED.search(answer.body) and not BIG_OPERATOR.search(gold.body):
        return "the answer leaves an integral or an infinite sum to be worked out"
    if _differ_in_primes(answer, gold):
        return "the primes of the answer are not the gold's"
    if {brackets(answer.body), brackets(gold.body)} == {"set", "ordered"}:
        return "one is a set, the other an ordered pair or an interval"
    answers, golds = members(answer.body), members(gold.body)
    if len(golds) > len(set(golds)) and len(answers) > 1 and len(answers) != len(golds):
        return f"the answer lists {len(answers)} things, not {len(golds)}"
    return ""


def _differ_in_primes(answer: Reading, gold: Reading) -> bool:
    """Whether f' is in only one of the two. ``5'`` is 5 feet or minutes if the gold has such a unit."""
    if _FEET_OR_MINUTES.search(gold.body) or gold.unit in ("ft", "min"):
        return False
    if len(sides(answer.body)) != len(sides(gold.body)):  # f'(3) = 6, whose sides are compared later
        return False
    primes, gold_primes = (set(_PRIMED.findall(STYLED.sub(" ", reading.body))) for reading in (answer, gold))
    return primes != gold_primes


def forms(answer: Reading, gold: Reading) -> list[tuple[int, int, bool]]:
    r"""The ways to compare an answer with a gold if only one of them may have a per-cent sign.

    Each way has the divisors of the answer and of the gold, and whether the gold has to be one or more. An answer to a
    gold with the sign may leave it out, or give the share. An answer to a gold without it may give the value in per
    cent. The gold may also have left the sign to the question, but not if it is below one: 0.25 % is not 0.25.
    """
    if answer.is_percent == gold.is_percent:
        return [(1, 1, False)]
    return [(1, 1, False), (1, 100, False)] if gold.is_percent else [(100, 1, False), (1, 1, True)]


def same_numbers(answer: Reading, gold: Reading) -> bool | None:
    """Whether an answer and a gold are the same number, list, or pair of numbers; None for anything else.

    A list without repetition is a set.
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
    return any(
        all(_is_same(a / divisor, b / gold_divisor, is_exact) for a, b in zip(values, golds, strict=True))
        for divisor, gold_divisor, needs_large_gold in ways
        if not needs_large_gold or all(abs(golden) >= 1 for golden in golds)
    )


def _is_same(value: Fraction, gold: Fraction, is_exact: bool) -> bool:
    """Whole numbers and quotients are compared exactly; other golds also equal decimals that were cut off."""
    if is_exact or gold.denominator == 1:
        return value == gold
    return abs(value - gold) <= RELATIVE * max(abs(value), abs(gold))
