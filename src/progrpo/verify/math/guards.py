r"""What math-verify would overlook: why an answer is not the gold although math-verify would say so."""

import re

from progrpo.verify.math.parts import brackets, intervals, members, sides
from progrpo.verify.math.reading import NO_SET, Reading, are_equations
from progrpo.verify.math.size import BIG_OPERATOR
from progrpo.verify.math.text import STYLED

_APART = re.compile(
    r"(?:(?<![\d.^_])(?<!binom )(?:\d+(?:\.\d+)?|\.\d+)|(?<![A-Za-z\\^_])[A-Za-z]) \d+(?![\d/])", re.ASCII
)
"""A number after a number or a letter, with only a blank between them; but no mixed number and no power."""
_PRIMED = re.compile(r"(\w?)('+)")
_FEET_OR_MINUTES = re.compile(r"(?<![\w.])[\d.]+'")
_CLOSED_AT_INFINITY = re.compile(r"\\infty ?\]|\[[-+]?\\infty")
_IN_NO_SET = re.compile(rf"\\in(?![a-z]) ?(?:{NO_SET})")
_UNFINISHED = re.compile(r"\\(?:i+nt|oint)(?![A-Za-z])|\\(?:sum|prod)(?![A-Za-z])[^a-z]*(?:[a-z][^a-z]*)?\\infty")


def conflict(answer: Reading, gold: Reading) -> str:
    r"""Why an answer is not the gold although math-verify would say so; empty if there is no such reason.

    A unit or a per-cent sign that only one of them has is no conflict, nor is a base that only the gold has: the
    question has often asked "in base 8" or "what percent".

    >>> conflict(Reading("5", unit="cm"), Reading("5", unit="m")), conflict(Reading("5"), Reading("5", unit="m"))
    ("the unit is 'cm', not 'm'", '')
    """
    if answer.unit and gold.unit and answer.unit != gold.unit:
        return f"the unit is {answer.unit!r}, not {gold.unit!r}"
    if answer.is_percent != gold.is_percent and (answer.unit or gold.unit):
        return "one is in per cent, the other has a unit"
    if answer.base not in ("", gold.base):
        return f"the base is {answer.base or 10}, not {gold.base or 10}"
    return _conflict_of_names(answer, gold) or _conflict_of_form(answer, gold)


def _conflict_of_names(answer: Reading, gold: Reading) -> str:
    symbol = "" if are_equations(answer, gold) else answer.symbol
    if symbol and gold.symbol and symbol.lower() != gold.symbol.lower():
        return f"the answer is about {symbol!r}, not {gold.symbol!r}"
    if symbol and re.search(rf"(?<![\\A-Za-z]){re.escape(symbol)}(?![A-Za-z])", answer.body):
        return f"the answer defines {symbol!r} by itself"
    solutions, gold_solutions = intervals(answer.body), intervals(gold.body)
    if solutions and gold_solutions and solutions[0] != gold_solutions[0]:
        return f"the answer is about {solutions[0]!r}, not {gold_solutions[0]!r}"
    return ""


def _conflict_of_form(answer: Reading, gold: Reading) -> str:
    if _IN_NO_SET.search(answer.body):
        return "the answer is an element of something that is not a set"
    if _APART.search(answer.body) and not _APART.search(gold.body):
        return "the answer has a number after another without a sign between them"
    if _differ_in_primes(answer, gold):
        return "the primes of the answer are not the gold's"
    if {brackets(answer.body), brackets(gold.body)} == {"set", "ordered"}:
        return "one is a set, the other an ordered pair or an interval"
    if _CLOSED_AT_INFINITY.search(answer.body) and not _CLOSED_AT_INFINITY.search(gold.body):
        return "the answer has an interval that is closed at infinity"
    if _UNFINISHED.search(answer.body) and not BIG_OPERATOR.search(gold.body):
        return "the answer leaves an integral or an infinite sum to be worked out"
    answers, golds = members(answer.body), members(gold.body)
    if len(golds) > len(set(golds)) and len(answers) > 1 and len(answers) != len(golds):
        return f"the answer lists {len(answers)} things, not {len(golds)}"
    return ""


def _differ_in_primes(answer: Reading, gold: Reading) -> bool:
    """Whether f' is in one and not in the other. ``5'`` is 5 feet, or minutes, if the gold says so."""
    if _FEET_OR_MINUTES.search(gold.body) or gold.unit in ("ft", "min"):
        return False
    if len(sides(answer.body)) != len(sides(gold.body)):  # f'(3) = 6, whose sides are compared later
        return False
    primes, gold_primes = (set(_PRIMED.findall(STYLED.sub(" ", reading.body))) for reading in (answer, gold))
    return primes != gold_primes
