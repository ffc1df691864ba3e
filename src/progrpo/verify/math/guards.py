r"""What math-verify would overlook, and what it could not survive: two cheap looks at an answer's text."""

import re

from progrpo.verify.math.parts import brackets, members, sides
from progrpo.verify.math.reading import NO_SET, Reading, are_equations
from progrpo.verify.math.size import TooLargeError, size
from progrpo.verify.math.text import STYLED, inequality_variable

# -- What it would overlook --------------------------------------------------------------------------------------------

_APART = re.compile(
    r"(?:(?<![\d.^_])(?<!binom )(?:\d+(?:\.\d+)?|\.\d+)|(?<![A-Za-z\\^_])[A-Za-z]) \d+(?![\d/])", re.ASCII
)
"""A number after another, or after a letter, with only a blank between: a mixed number or a power is none."""
_PRIMED = re.compile(r"(\w?)('+)")
_FEET_OR_MINUTES = re.compile(r"(?<![\w.])[\d.]+'")
_CLOSED_AT_INFINITY = re.compile(r"\\infty ?\]|\[[-+]?\\infty")


def conflict(answer: Reading, gold: Reading) -> str:
    r"""Why an answer is not the gold although math-verify would say so; empty if there is no such reason.

    A unit or a per cent sign that only one of them has is no conflict, nor is a base that only the gold has: the
    question has often asked "in base 8" or "what percent".

    >>> from progrpo.verify.math.reading import read
    >>> conflict(read(r"5 \text{ cm}"), read(r"5 \text{ m}"))
    "the unit is 'cm', not 'm'"
    >>> conflict(read("5"), read(r"5 \text{ m}")), conflict(read("2516"), read("2516_8"))
    ('', '')
    >>> conflict(read("2516_8"), read("2516"))
    'the base is 8, not 10'
    """
    if answer.unit and gold.unit and answer.unit != gold.unit:
        return f"the unit is {answer.unit!r}, not {gold.unit!r}"
    if answer.is_percent != gold.is_percent and (answer.unit or gold.unit):
        return "one is in per cent, the other has a unit"
    if answer.base not in ("", gold.base):
        return f"the base is {answer.base or 10}, not {gold.base or 10}"
    is_named = answer.symbol != "" and not are_equations(answer, gold)
    if is_named and gold.symbol and answer.symbol.lower() != gold.symbol.lower():
        return f"the answer is about {answer.symbol!r}, not {gold.symbol!r}"
    if re.search(rf"\\in(?![a-z]) ?(?:{NO_SET})", answer.body):
        return "the answer is in what is no set"
    if is_named and re.search(rf"(?<![\\A-Za-z]){re.escape(answer.symbol)}(?![A-Za-z])", answer.body):
        return f"the answer says {answer.symbol!r} by means of itself"
    variables = [inequality_variable(reading.body) for reading in (answer, gold)]
    if None not in variables and variables[0] != variables[1]:
        return f"the answer is about {variables[0]!r}, not {variables[1]!r}"
    if _APART.search(answer.body) and not _APART.search(gold.body):
        return "the answer has a number after another without a sign between them"
    if _differ_in_primes(answer, gold):
        return "the primes of the answer are not the gold's"
    if {brackets(answer.body), brackets(gold.body)} == {"set", "ordered"}:
        return "one is a set, the other an ordered pair or an interval"
    if _CLOSED_AT_INFINITY.search(answer.body) and not _CLOSED_AT_INFINITY.search(gold.body):
        return "the answer has an interval that is closed at infinity"
    answers, golds = members(answer.body), members(gold.body)
    if len(golds) > len(set(golds)) and len(answers) > 1 and len(answers) != len(golds):
        return f"the answer lists {len(answers)} things, not {len(golds)}"
    return ""


def _differ_in_primes(answer: Reading, gold: Reading) -> bool:
    """Whether f' is in one and not in the other. ``5'`` is 5 feet, or minutes, if the gold says so."""
    if _FEET_OR_MINUTES.search(gold.body) or gold.unit in ("ft", "min"):
        return False
    if len(sides(answer.body)) != len(sides(gold.body)):  # f'(3) = 6, where the sides are compared later
        return False
    said, right = (set(_PRIMED.findall(STYLED.sub(" ", reading.body))) for reading in (answer, gold))
    return said != right


# -- What it could not survive -----------------------------------------------------------------------------------------

LONGEST_DIGITS = 300
MOST_MEMBERS = 200
DEEPEST = 30
LARGEST_DETERMINANT = 4
_BIG_OPERATOR = re.compile(r"\\(?:sum|prod|int|iint|oint|lim|bigcup|bigcap)(?![A-Za-z])")
_UNFINISHED = re.compile(r"\\(?:i+nt|oint)(?![A-Za-z])|\\(?:sum|prod)(?![A-Za-z])[^a-z]*(?:[a-z][^a-z]*)?\\infty")
_DETERMINANT = re.compile(r"\\begin\{vmatrix\}(.*?)\\end\{vmatrix\}|\\det(?![A-Za-z])(.*)")


def explosion(normalised: str) -> str:
    r"""Why an expression is not worth working out; empty if it is harmless as far as can be seen.

    Looked for: digits without end, long lists, deep nesting, large determinants, several nested sums or products, and
    what :mod:`progrpo.verify.math.size` finds too large. What is not seen here meets the worker's deadline.

    >>> explosion("9^9^9^9"), explosion("2^{2016}"), explosion("100!")
    ('the answer has a number of more than 5000 digits', '', '')
    """
    if re.search(rf"\d{{{LONGEST_DIGITS},}}", normalised):
        return f"the answer has a number of more than {LONGEST_DIGITS} digits"
    if max(normalised.count(","), normalised.count("&"), normalised.count(r"\pm") ** 2) > MOST_MEMBERS:
        return f"the answer lists more than {MOST_MEMBERS} things"
    if _depth(normalised) > DEEPEST:
        return f"the answer is nested more than {DEEPEST} deep"
    if len(_BIG_OPERATOR.findall(normalised)) > 2:
        return "the answer has more than 2 sums, products, integrals or limits"
    for groups in _DETERMINANT.findall(normalised):
        if any(group.count(r"\\") >= LARGEST_DETERMINANT for group in groups):
            return f"the answer has a determinant of more than {LARGEST_DETERMINANT} rows"
    try:
        size(normalised)
    except TooLargeError as error:
        return str(error)
    return ""


def unfinished(answer: str, gold: str) -> str:
    r"""Why an answer still has to be worked out where the gold is not; empty if it has not.

    >>> unfinished(r"\int_0^1 x^x dx", "0.78"), unfinished(r"\int_0^1 f(x) dx", r"\int_0^1 f(t) dt")
    ('the answer leaves an integral or an infinite sum to be worked out', '')
    """
    if _UNFINISHED.search(answer) and not _BIG_OPERATOR.search(gold):
        return "the answer leaves an integral or an infinite sum to be worked out"
    return ""


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "})]":
            depth -= 1
    return deepest
