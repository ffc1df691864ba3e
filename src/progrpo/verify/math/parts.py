r"""The parts of an answer's text: members of a list, sides of an equation, outer brackets, inequalities, numbers."""

import re
from fractions import Fraction

_EQUALS = re.compile(r"(?<![<>:=])(?<![^\d)}\]]!)=")
_NO_PART_OF_A_NAME = re.compile(r"[0-9^]|^-|\\(?:sqrt|ln|log|exp)(?![a-z])")
_SUBSCRIPTS_AND_ARGUMENTS = re.compile(r"_(?:\{[^{}]*\}|\w)|(?<=[A-Za-z'])\([^()]*\)|\[[^\[\]]*\]")
_COMPARISON = r"\s*(<=|>=|<|>|\\[lg]e(?![A-Za-z]))\s*"
_BOUND = r"((?:[^<>=,A-Za-z\\]|\\(?:frac|sqrt|pi|infty)(?![A-Za-z]))+?)"
_INEQUALITY = re.compile(rf"(?:{_BOUND}{_COMPARISON})?([A-Za-z])(?:{_COMPARISON}{_BOUND})?")
_CLOSED = {"<=", ">=", r"\le", r"\ge"}
_DECIMAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)", re.ASCII)
_QUOTIENT = re.compile(r"([-+]?)(?:(\d+) )?(\d+)/(\d+)", re.ASCII)
_LATEX_QUOTIENT = re.compile(r"([-+]?)(\d*)\\frac\{(-?\d+)\}\{(\d+)\}", re.ASCII)
_POWER_OF_TEN = re.compile(
    rf"(?:({_DECIMAL.pattern})(?:\\times|\\cdot|\*) ?)?10\^(?:\{{([-+]?\d{{1,3}})\}}|(\d))", re.ASCII
)
_REPEATING = re.compile(r"([-+]?)(\d*)\.(\d*)\\overline\{(\d+)\}", re.ASCII)
_MOST_DIGITS = 400


def connective(words: str) -> str:
    r"""A pattern for words such as ``or|and``, as ``or``, ``\lor`` or ``\text{or}``."""
    return rf"(?:\\(?:text|mathrm)\s*\{{\s*(?:{words})\s*\}}|(?<![A-Za-z])(?:\\l)?(?:{words})(?![A-Za-z]))"


_OR = re.compile(rf"\s*{connective('or')}\s*")


def members(body: str, separator: re.Pattern[str] = re.compile(",")) -> list[str]:
    """The parts between the commas, or other separators, outside of brackets.

    >>> members("(1,2), 3")
    ['(1,2)', '3']
    """
    parts, depth, start = [], 0, 0
    separators = {match.start(): match.end() for match in separator.finditer(body)}
    for i, character in enumerate(body):
        if i in separators and depth <= 0:
            parts.append(body[start:i].strip())
            start = separators[i]
        depth += (character in "{([") - (character in "})]")
    return [*parts, body[start:].strip()]


def sides(body: str) -> list[str]:
    """The sides of an equation, or of a chain of equations: ``x^2=2+2=4`` has three, ``1<x`` has one."""
    return members(body, _EQUALS)


def values(parts: list[str]) -> list[str]:
    r"""The sides of an equation that claim to be the answer: all sides except a name on the left.

    A name has letters, with subscripts and arguments: ``m+n``, ``[ABC]``, ``\sin\theta``. A side with numbers or powers
    is not a name: ``x^2=5`` does not say what x is, and ``3=5`` is not 5.

    >>> values(["m+n", "5"]), values(["2x", "5"])
    (['5'], ['2x', '5'])
    """
    name = _SUBSCRIPTS_AND_ARGUMENTS.sub("", parts[0])
    is_name = re.search("[A-Za-z]", parts[0]) and not _NO_PART_OF_A_NAME.search(name)
    return parts[1:] if is_name else parts


def brackets(body: str) -> str:
    r"""``set`` for ``\{1,2\}``, ``ordered`` for a pair, a longer tuple or an interval, empty for anything else."""
    if body.startswith(r"\{") and body.endswith(r"\}"):
        return "set"
    is_whole = body[:1] in ("(", "[") and body[-1:] in (")", "]") and len(members(body)) == 1
    return "ordered" if is_whole and "," in body else ""


def intervals(body: str) -> tuple[str, str] | None:
    r"""The variable of inequalities, and their solutions as a union of intervals; None for anything else.

    >>> intervals("x<1 or x\\ge 2")
    ('x', '(-\\infty,1)\\cup[2,\\infty)')
    """
    variables, unions = zip(*(_interval(text.strip()) for text in _OR.split(body)), strict=True)
    is_known = variables[0] and len(set(variables)) == 1
    return (variables[0], r"\cup".join(unions)) if is_known else None


def _interval(text: str) -> tuple[str, str]:
    """The variable of an inequality with one bound or two, and its interval; two empty texts for anything else."""
    match = _INEQUALITY.fullmatch(text)
    low, low_sign, variable, high_sign, high = match.groups() if match else ("",) * 5
    are_less = {sign.startswith(("<", r"\l")) for sign in (low_sign, high_sign) if sign}
    if len(are_less) != 1:
        return "", ""
    if are_less == {False}:
        low, low_sign, high_sign, high = high, high_sign, low_sign, low
    left = f"{'[' if low_sign in _CLOSED else '('}{low}" if low else r"(-\infty"
    right = f"{high}{']' if high_sign in _CLOSED else ')'}" if high else r"\infty)"
    return variable, f"{left},{right}"


def number(body: str) -> Fraction | None:
    r"""The exact value of a plain number; None for anything else.

    A plain number is an integer, a decimal, ``a/b``, ``\frac{a}{b}``, a mixed number, a repeating decimal, or a decimal
    times a power of ten.
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

    A list, or a single number, has no brackets. The numbers of a list are sorted."""
    is_ordered = brackets(body) == "ordered"
    parts = members(body[1:-1] if is_ordered else body)
    known = [value for value in map(number, parts) if value is not None]
    if len(known) < len(parts):
        return None
    return (body[0] + body[-1], known) if is_ordered else ("", sorted(known))
