r"""Expressions that would explode if they were evaluated: an upper bound on an answer's size, from one pass over it.

The text is read as sums of products of powers; whatever does not look like them is skipped. Nothing is evaluated: a
number is known by the logarithm of its size, a polynomial by its largest possible number of terms. Letters count as 1
(and e as itself): ``2^n`` is small, ``2^{n+10^9}`` is not.
"""

import math
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial, reduce

LONGEST_DIGITS = 300
MOST_MEMBERS = 200
LARGEST_DETERMINANT = 4
MOST_DIGITS = 5_000  # of a number that is computed
MOST_TERMS = 500  # when an expression is multiplied out
MOST_CHOSEN_FROM = 2_000  # in a binomial coefficient
DEEPEST = 30
BIG_OPERATOR = re.compile(r"\\(?:sum|prod|int|iint|oint|lim|bigcup|bigcap)(?![A-Za-z])")
_DETERMINANT = re.compile(r"\\begin\{vmatrix\}(.*?)\\end\{vmatrix\}|\\det(?![A-Za-z])(.*)")


class TooLargeError(Exception):
    """An expression, or a part of it, is too large to be evaluated; the error's text is the reason."""


def explosion(normalised: str) -> str:
    r"""Why an expression is too large to be evaluated; empty if it looks harmless.

    The worker's deadline stops what this overlooks.

    >>> explosion("9^9^9^9"), explosion("2^{2016}"), explosion("100!")
    ('the answer has a number of more than 5000 digits', '', '')
    """
    if re.search(rf"\d{{{LONGEST_DIGITS},}}", normalised):
        return f"the answer has a number of more than {LONGEST_DIGITS} digits"
    if max(normalised.count(","), normalised.count("&"), normalised.count(r"\pm") ** 2) > MOST_MEMBERS:
        return f"the answer lists more than {MOST_MEMBERS} things"
    if len(BIG_OPERATOR.findall(normalised)) > 2:
        return "the answer has more than 2 sums, products, integrals or limits"
    if any(rows.count(r"\\") >= LARGEST_DETERMINANT for rows in map("".join, _DETERMINANT.findall(normalised))):
        return f"the answer has a determinant of more than {LARGEST_DETERMINANT} rows"
    try:
        size(normalised)
    except TooLargeError as error:
        return str(error)
    return ""


@dataclass(frozen=True, slots=True)
class Size:
    """A bound on an expression: the logarithm of its largest number, and how many terms it has when multiplied out.

    Only an expression with letters is multiplied out.
    """

    log10: float = 0.0
    terms: float = 1.0
    has_letters: bool = False

    @property
    def number(self) -> float:
        """The largest number, capped so that a float can hold it."""
        return 10 ** min(self.log10, 300.0)


def size(normalised: str) -> Size:
    """The bound on an expression; a TooLargeError if it, or a part of it, is too large or nested too deep."""
    reader, parts = _Reader(normalised), list[Size]()
    while reader.tokens:  # there may be too many closing brackets
        parts.append(reader.read_sum())
    return _add(parts)


def _checked(result: Size) -> Size:
    if result.log10 > MOST_DIGITS:
        raise TooLargeError(f"the answer has a number of more than {MOST_DIGITS} digits")
    if result.has_letters and result.terms > MOST_TERMS:
        raise TooLargeError(f"the answer has more than {MOST_TERMS} terms when it is multiplied out")
    return result


def _add(terms: Sequence[Size]) -> Size:
    if not terms:
        return Size()
    largest = max(term.log10 for term in terms)
    log10 = largest + math.log10(sum(10 ** (term.log10 - largest) for term in terms))
    return Size(log10, sum(term.terms for term in terms), any(term.has_letters for term in terms))


def _multiply(first: Size, second: Size) -> Size:
    has_letters = first.has_letters or second.has_letters
    return _checked(Size(first.log10 + second.log10, first.terms * second.terms, has_letters))


def _raise(base: Size, exponent: Size) -> Size:
    power, terms = exponent.number, 1.0
    if base.has_letters and base.terms > 1:  # n-th powers of k terms have C(n + k - 1, k - 1) terms
        is_small = max(power, base.terms) <= MOST_TERMS
        terms = math.comb(round(power + base.terms) - 1, round(base.terms) - 1) if is_small else math.inf
    log10 = base.log10 * power if base.log10 else 0.0
    return _checked(Size(log10, terms, base.has_letters or exponent.has_letters))


def _factorial(argument: Size) -> Size:
    log10 = math.lgamma(argument.number + 1) / math.log(10) if argument.number < 10**6 else math.inf
    return _checked(Size(log10, argument.terms, argument.has_letters))


def _choose(chosen_from: Size) -> Size:
    if chosen_from.number > MOST_CHOSEN_FROM + 0.5:  # a logarithm does not give the number exactly
        raise TooLargeError(f"the answer has a binomial coefficient of a number above {MOST_CHOSEN_FROM}")
    return Size(chosen_from.number * math.log10(2), 1.0, chosen_from.has_letters)


_TOKEN = re.compile(
    r"\\(?:left|right)(?![A-Za-z])|(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<name>\\(?:[A-Za-z]+|.)|[A-Za-z])|(?P<sign>\S)",
    re.ASCII,
)
_OPEN, _CLOSE = {"{", "(", "[", r"\{", r"\lfloor"}, {"}", ")", "]", r"\}", r"\rfloor"}
_BETWEEN_TERMS = {"+", "-", ",", "=", "<", ">", "&", ";", r"\\", r"\pm", r"\mp", r"\le", r"\ge", r"\cup", r"\choose"}
_ENDS = _BETWEEN_TERMS | _CLOSE
_SIGNS = {r"\infty", r"\cdot", r"\times"}
_E = Size(math.log10(math.e))
_CONSTANTS = {r"\pi": math.log10(math.pi), "e": _E.log10}
_FUNCTIONS: dict[str, Callable[[Size], Size]] = {
    r"\Gamma": _factorial,
    **dict.fromkeys((r"\exp", r"\sinh", r"\cosh", r"\tanh", r"\coth"), partial(_raise, _E)),
    **dict.fromkeys((r"\sqrt", r"\overline", r"\sin", r"\cos", r"\tan", r"\ln", r"\log"), lambda argument: argument),
}
_FUNCTIONS_OF_TWO = {r"\frac": _multiply, r"\binom": lambda chosen_from, number: _choose(chosen_from)}


class _Reader:
    """Recursive descent over the tokens: a sum of products of powers of atoms."""

    def __init__(self, text: str) -> None:
        self.tokens = [(match.lastgroup, match[0]) for match in _TOKEN.finditer(text) if match.lastgroup][::-1]
        self._depth = 0

    def _peek(self) -> str:
        return self.tokens[-1][1] if self.tokens else ""

    def _take(self, tokens: Container[str]) -> str:
        """Remove and return the next token if it is one of these; otherwise an empty text."""
        return self.tokens.pop()[1] if self._peek() in tokens else ""

    def read_sum(self) -> Size:
        """A sum, up to and including the bracket that closes it."""
        terms: list[Size] = []
        while True:
            if self._peek() not in _ENDS:  # a sign before the first term separates nothing
                terms.append(self._product())
            sign = self._take(_ENDS)
            if sign not in _BETWEEN_TERMS:
                return _add(terms)
            if sign == r"\choose" and terms:
                terms.append(_choose(terms.pop()))

    def _product(self) -> Size:
        result = Size()
        while self.tokens and self._peek() not in _ENDS:
            result = _multiply(result, self._power())
        return result

    def _power(self) -> Size:
        """``a!^b_c^d``: atoms with their marks, and exponents, which are applied from the last to the first."""
        tower: list[Size] = []
        while not tower or self._take(("^",)):
            atom = self._atom()
            while mark := self._take(("!", "'", "_")):
                if mark == "!":
                    atom = _factorial(atom)
                elif mark == "_":
                    self._atom()
            tower.append(atom)
        return reduce(lambda exponent, base: _raise(base, exponent), reversed(tower))

    def _atom(self) -> Size:
        while self._take(("+", "-")):  # the sign of an exponent
            pass
        kind, token = self.tokens.pop() if self.tokens else ("end", "")
        if kind == "number":
            value = float(token)
            return Size(abs(math.log10(value)) if value else 0.0)
        if token in _OPEN:
            return self._deeper(self.read_sum)
        if token in _FUNCTIONS_OF_TWO:
            return _FUNCTIONS_OF_TWO[token](self._argument(), self._argument())
        if token in _FUNCTIONS:
            if self._peek() == "[":  # \sqrt[3]{2}
                self._atom()
            return _FUNCTIONS[token](self._argument())
        if kind == "name":
            return Size(_CONSTANTS.get(token, 0.0), has_letters=token not in _SIGNS)
        return Size(1.0 if token == "|" else 0.0)  # an expression between bars may be the base of a power

    def _argument(self) -> Size:
        """The argument of a command. An argument in brackets is only as deep as the brackets."""
        return self._atom() if self._peek() in _OPEN else self._deeper(self._atom)

    def _deeper(self, read: Callable[[], Size]) -> Size:
        self._depth += 1
        if self._depth > DEEPEST:
            raise TooLargeError(f"the answer is nested more than {DEEPEST} deep")
        result = read()
        self._depth -= 1
        return result
