r"""How large an answer would become if it were worked out: an upper bound, found in one pass over its text.

The text is read as sums of products of powers, as far as it looks like them; what does not is passed over. Nothing is
worked out: a number is known by the logarithm of its size, a polynomial by how many terms it would have at most.
Letters count as 1 (and e as itself): ``2^n`` is small, ``2^{n+10^9}`` is not.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MOST_DIGITS = 5_000
"""A number with more digits is not worked out."""
MOST_TERMS = 500
"""Nor is what would have more terms when it is multiplied out."""
MOST_CHOSEN_FROM = 2_000
"""Nor a binomial coefficient of a larger number."""
DEEPEST = 60

_TOKEN = re.compile(
    r"\\(?:left|right)(?![A-Za-z])|(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<command>\\(?:[A-Za-z]+|.))|(?P<letter>[A-Za-z])|"
    r"(?P<sign>[^\sA-Za-z])",
    re.ASCII,
)
_OPEN, _CLOSE = {"{": "}", "(": ")", "[": "]", r"\{": r"\}", r"\lfloor": r"\rfloor"}, {"}", ")", "]", r"\}", r"\rfloor"}
_BETWEEN_TERMS = {"+", "-", ",", "=", "<", ">", "&", ";", r"\\", r"\pm", r"\mp", r"\le", r"\ge", r"\cup", r"\choose"}
_FACTORIALS = {r"\Gamma"}
_EXPONENTIALS = {r"\exp", r"\sinh", r"\cosh", r"\tanh", r"\coth"}
_OF_ONE_ARGUMENT = {r"\sqrt", r"\overline", r"\sin", r"\cos", r"\tan", r"\ln", r"\log"}
_SIGNS = {r"\infty", r"\cdot", r"\times"}
_CONSTANTS = {r"\pi": math.log10(math.pi), "e": math.log10(math.e)}


@dataclass(frozen=True, slots=True)
class Size:
    """A bound on an expression.

    Attributes:
        log10: of its numbers.
        terms: when it is multiplied out.
        has_letters: so that it would be multiplied out at all.
    """

    log10: float = 0.0
    terms: float = 1.0
    has_letters: bool = False


class TooLargeError(Exception):
    """An expression, or a part of it, is not worth working out; its text is the reason."""


def size(normalised: str) -> Size:
    r"""The bound on an expression.

    Raises:
        TooLargeError: it, or a part of it, is too large or nested too deep.

    >>> round(size("2^{2016}").log10), size("(x+1)^3(y+2)").terms
    (607, 8.0)
    >>> size(r"\sin(9^{9^{9}})")
    Traceback (most recent call last):
    progrpo.verify.math.size.TooLargeError: the answer has a number of more than 5000 digits
    """
    return _Reader(normalised).whole()


class _Reader:
    """Recursive descent over the tokens: a sum of products of powers of atoms."""

    def __init__(self, text: str) -> None:
        self._tokens = [(match.lastgroup, match[0]) for match in _TOKEN.finditer(text) if match.lastgroup]
        self._next = 0
        self._depth = 0

    def whole(self) -> Size:
        found = self._sum()
        while self._next < len(self._tokens):  # a closing bracket too many
            self._next += 1
            found = _add([found, self._sum()])
        return found

    def _peek(self) -> str:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else ""

    def _sum(self) -> Size:
        """Up to the bracket that closes it."""
        terms: list[Size] = []
        while True:
            start = self._next
            term = self._product()
            if self._next > start:  # a sign before the first term parts nothing
                terms.append(term)
            if self._peek() not in _BETWEEN_TERMS:
                return _add(terms)
            if self._peek() == r"\choose" and terms:
                terms.append(_choose(terms.pop()))
            self._next += 1

    def _product(self) -> Size:
        result = Size()
        while (token := self._peek()) and token not in _CLOSE and token not in _BETWEEN_TERMS:
            result = _multiply(result, self._power())
        return result

    def _power(self) -> Size:
        """``a!^b^c``: the exponents are taken from the last to the first."""
        tower = [self._marked()]
        while self._peek() == "^":
            self._next += 1
            tower.append(self._marked())
        exponent = tower.pop()
        while tower:
            exponent = _raise(tower.pop(), exponent)
        return exponent

    def _marked(self) -> Size:
        """An atom with its factorials, dashes and subscripts."""
        result = self._atom()
        while (sign := self._peek()) in ("!", "'", "_"):
            self._next += 1
            if sign == "!":
                result = _factorial(result)
            elif sign == "_":
                self._atom()
        return result

    def _atom(self) -> Size:
        while self._peek() in ("+", "-"):  # the sign of an exponent
            self._next += 1
        if self._next == len(self._tokens):
            return Size()
        kind, token = self._tokens[self._next]
        self._next += 1
        if kind == "number":
            value = float(token)
            return Size(abs(math.log10(value)) if value else 0.0)
        if token in _OPEN:
            inside = self._deeper(self._sum)
            self._next += self._peek() in _CLOSE
            return inside
        if kind == "command":
            return self._command(token)
        if kind == "letter":
            return Size(_CONSTANTS.get(token, 0.0), has_letters=True)
        return Size(1.0 if token == "|" else 0.0)  # what stands between bars may be the base of a power

    def _command(self, name: str) -> Size:
        if name == r"\frac":
            return _multiply(self._deeper(self._atom), self._deeper(self._atom))
        if name == r"\binom":
            chosen_from = self._deeper(self._atom)
            self._deeper(self._atom)
            return _choose(chosen_from)
        if name in _FACTORIALS:
            return _factorial(self._deeper(self._atom))
        if name in _EXPONENTIALS:
            return _raise(Size(math.log10(math.e)), self._deeper(self._atom))
        if name in _OF_ONE_ARGUMENT:
            if self._peek() == "[":  # \sqrt[3]{2}
                self._atom()
            return self._deeper(self._atom)
        return Size(_CONSTANTS.get(name, 0.0), has_letters=name not in _SIGNS)

    def _deeper(self, read: Callable[[], Size]) -> Size:
        self._depth += 1
        if self._depth > DEEPEST:
            raise TooLargeError(f"the answer is nested more than {DEEPEST} deep")
        found = read()
        self._depth -= 1
        return found


def _number(log10: float) -> float:
    """The number of a logarithm, where it has one that can be counted with."""
    return 10.0**log10 if log10 < 300 else math.inf


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
    power, terms = _number(exponent.log10), 1.0
    if base.has_letters and base.terms > 1:  # of n-th powers of k terms: C(n + k - 1, k - 1)
        is_small = max(power, base.terms) <= MOST_TERMS
        terms = math.comb(round(power + base.terms) - 1, round(base.terms) - 1) if is_small else math.inf
    log10 = base.log10 * power if base.log10 else 0.0
    return _checked(Size(log10, terms, base.has_letters or exponent.has_letters))


def _factorial(of: Size) -> Size:
    number = _number(of.log10)
    log10 = math.lgamma(number + 1) / math.log(10) if number < 10**6 else math.inf
    return _checked(Size(log10, of.terms, of.has_letters))


def _choose(chosen_from: Size) -> Size:
    number = _number(chosen_from.log10)
    if number > MOST_CHOSEN_FROM + 0.5:  # it was a logarithm
        raise TooLargeError(f"the answer has a binomial coefficient of a number above {MOST_CHOSEN_FROM}")
    return Size(number * math.log10(2), 1.0, chosen_from.has_letters)
