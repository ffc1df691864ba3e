r"""Differences that math-verify overlooks: why an answer is not the gold although math-verify would accept it."""

import re

from progrpo.verify.math.parts import brackets, intervals, members, sides
from progrpo.verify.math.reading import NO_SET, Reading, are_equations
from progrpo.verify.math.size import BIG_OPERATOR
from progrpo.verify.math.text import STYLED

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
