r"""What math-verify would overlook, and what it could not survive: two cheap looks at an answer's text."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from progrpo.verify.math_text import STYLED, normalise

# -- What it would overlook --------------------------------------------------------------------------------------------

_UNITS = (
    "m meter metre; cm centimeter centimetre; mm millimeter millimetre; km kilometer kilometre; nm nanometer; "
    "in inch inches; ft foot feet; yd yard; mi mile; s sec second; ms millisecond; min minute; h hr hour; day; week; "
    "month; year yr; g gram; kg kilogram; mg milligram; lb lbs pound; oz ounce; l liter litre; ml milliliter "
    "millilitre; gallon gal; quart; cup; acre; dollar; cent; euro; n newton; j joule; kj kilojoule; w watt; kw "
    "kilowatt; v volt; k kelvin; hz hertz; khz; mhz; ghz; pa pascal; mol mole; ev; kev; mev; gev; erg; degree deg; "
    "radian rad; am; pm; north; south; east; west; up; down; left; right; clockwise; counterclockwise"
)
_UNIT_NAMES = {name: names.split()[0] for names in _UNITS.split(";") for name in names.split()} | {"mph": "mi/h"}
_POWERS = {"square": "^2", "squared": "^2", "sq": "^2", "cubic": "^3", "cubed": "^3", "cu": "^3"}
_BARE_UNITS = {"cm", "mm", "km", "kg", "ft", "lb", "lbs", "ml", "mph", "min", "sec", "inches", "mile", "miles", "yards"}
"""Known as units without ``\\text{}``: 5m may also be a product, 5cm hardly."""
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_NOT_A_UNIT = {
    "or",
    "and",
    "not",
    "no",
    "if",
    "where",
    "with",
    "dozen",
    "half",
    "to",
    "is",
    "but",
    "for",
    "when",
    "than",
}
_AFTER_NUMBER = r"(?<=[\d.)}\]!])"
_STYLED_UNIT = re.compile(rf"(?:{STYLED.pattern.replace('([^{}]*)', '([A-Za-z ./-]+)')})(?:\^(\d))?$")
_BARE_UNIT = re.compile(rf"{_AFTER_NUMBER}([A-Za-z]{{2,}}(?:[ /][A-Za-z]+)*)\.?(?:\^(\d))?$")
_CURRENCY = re.compile(r"^(-?)(\\\$|£|€|\\pounds(?![A-Za-z])|\\euro(?![A-Za-z]))")
_DEGREES = re.compile(rf"{_AFTER_NUMBER}\^\{{\\circ\}}$")
_PERCENT = re.compile(rf"{_AFTER_NUMBER}\s*(?:%|per ?cent|pct)$")
_BASE = re.compile(
    r"^(-?[0-9A-Z.]+)_(?:(\w)|\{\s*(\w+)\s*\}|\{\s*\\(?:text|mathrm)\{\s*(\w+)\s*\}\s*\}|\\text\{\s*(\w+)\s*\})$"
)
_BASES = "two three four five six seven eight nine ten eleven twelve".split()
_BASE_WORDS = {word: str(base) for base, word in enumerate(_BASES, start=2)}
_SYMBOL = r"[A-Za-z](?:_\w|_\{[^{}=]*\})?'*"
_GREEK = r"\\(?:alpha|beta|gamma|theta|phi|lambda|mu|omega|sigma|rho|tau|angle|triangle)(?![a-z])"
_NAMED = re.compile(
    rf"^(?P<name>(?P<symbol>{_SYMBOL}|{_GREEK})|"
    rf"{_SYMBOL}\([^()=]*\)|{_GREEK} ?[A-Z]+|[A-Z]{{2,3}}|[A-Za-z ]{{4,}}|{STYLED.pattern})"
    r"(?:=|\\approx(?![a-z]) ?|\\in(?![a-z]) ?)(?P<said>[^=]+)$"
)


@dataclass(frozen=True, slots=True)
class Reading:
    r"""An answer in parts.

    Attributes:
        body: the mathematics, in one spelling.
        symbol: of ``x = 5``, the x; empty for other names, such as ``f(x)`` and ``\text{Area}``.
        unit: by one name for its many, only if it is known.
        base: that the number is written in.
        is_percent: whether a per cent sign follows.
    """

    body: str
    symbol: str = ""
    unit: str = ""
    base: str = ""
    is_percent: bool = False


def read(text: str) -> Reading:
    r"""Take an answer apart.

    >>> read(r"x = 5 \text{ meters}")
    Reading(body='5', symbol='x', unit='m', base='', is_percent=False)
    >>> read(r"2516_{\text{nine}}").base, read("$5 million$").body
    ('9', '5\\times 10^6')
    """
    body, symbol, unit, base, is_percent = normalise(text), "", "", "", False
    if match := _NAMED.match(body):
        body, symbol = match["said"].strip(), (match["symbol"] or "").lower()
    if match := _CURRENCY.match(body):
        body, unit = match[1] + body[match.end() :], {"£": "lb", r"\pounds": "lb"}.get(match[2], "dollar")
        unit = "euro" if "euro" in match[2] or match[2] == "€" else unit
    if match := _STYLED_UNIT.search(body) or _BARE_UNIT.search(body):
        body, unit, is_percent = _without_words(body, match, unit)
    if match := _DEGREES.search(body):
        body, unit = body[: match.start()], unit or "degree"
    if match := _PERCENT.search(body):
        body, is_percent = body[: match.start()], True
    if match := _BASE.match(body):
        body, base = match[1], next(group for group in match.groups()[1:] if group)
    return Reading(body.strip(), symbol, unit, _BASE_WORDS.get(base.lower(), base), is_percent)


def _without_words(body: str, match: re.Match[str], unit: str) -> tuple[str, str, bool]:
    """The body without the words after it, their unit, and whether they say per cent."""
    bare = match.re is _BARE_UNIT
    found = re.findall("[a-z]+", match[1].lower().replace("a.m", "am").replace("p.m", "pm"))
    start = body[: match.start()].rstrip()
    if not found or not start or _NOT_A_UNIT & set(found):
        return body, unit, False
    if found[0] in _SCALES and re.search(r"\d$", start):
        rest = " ".join(found[1:])
        return rf"{start}\times 10^{_SCALES[found[0]]}", _unit(rest.split(), None) or unit, False
    if found in (["percent"], ["per", "cent"], ["pct"]):
        return start, unit, True
    if bare and found[0] not in _BARE_UNITS and len(found[0]) < 4:
        return body, unit, False
    return start, _unit(found, match[2]) or unit, False


def _unit(found: list[str], power: str | None) -> str:
    """``mi/h`` for miles per hour: the units among the words, and their power."""
    names = [_UNIT_NAMES.get(word) or _UNIT_NAMES.get(word.removesuffix("s")) for word in found]
    raised = f"^{power}" if power else next((_POWERS[word] for word in found if word in _POWERS), "")
    known = "/".join(name for name in names if name)
    return known + raised if known else ""


def conflict(answer: Reading, gold: Reading) -> str:
    r"""Why an answer is not the gold although math-verify would say so; empty if there is no such reason.

    A unit that only one of them has is no conflict, nor is a base or a per cent sign that only the gold has: the
    question has often asked "in base 8" or "what percent".

    >>> conflict(read(r"5 \text{ cm}"), read(r"5 \text{ m}"))
    "the unit is 'cm', not 'm'"
    >>> conflict(read("5"), read(r"5 \text{ m}")), conflict(read("2516"), read("2516_8"))
    ('', '')
    >>> conflict(read("2516_8"), read("2516"))
    'the base is 8, not 10'
    """
    if answer.unit and gold.unit and answer.unit != gold.unit:
        return f"the unit is {answer.unit!r}, not {gold.unit!r}"
    if answer.base not in ("", gold.base):
        return f"the base is {answer.base or 10}, not {gold.base or 10}"
    if answer.symbol and gold.symbol and answer.symbol != gold.symbol:
        return f"the answer is about {answer.symbol!r}, not {gold.symbol!r}"
    if {_brackets(answer.body), _brackets(gold.body)} == {"set", "ordered"}:
        return "one is a set, the other an ordered pair or an interval"
    return ""


def _brackets(body: str) -> str:
    if body.startswith(r"\{") and body.endswith(r"\}"):
        return "set"
    return "ordered" if re.fullmatch(r"[(\[].*,.*[)\]]", body) else ""


# -- Plain numbers -----------------------------------------------------------------------------------------------------

_INTEGER = re.compile(r"[-+]?\d+", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+)", re.ASCII)
_QUOTIENT = re.compile(r"([-+]?)(?:(\d+) )?(\d+)/(\d+)", re.ASCII)
_LATEX_QUOTIENT = re.compile(r"([-+]?)(\d*)\\frac\{(-?\d+)\}\{(\d+)\}", re.ASCII)
_POWER_OF_TEN = re.compile(
    r"(?:([-+]?(?:\d+\.?\d*|\.\d+))(?:\\times|\\cdot|\*) ?)?10\^(?:\{([-+]?\d{1,3})\}|(\d))", re.ASCII
)
_MOST_DIGITS = 400


def number(body: str) -> Fraction | None:
    r"""The exact value of a plain number, else None: an integer, a decimal, ``a/b``, ``\frac{a}{b}``, a mixed number,
    or a decimal times a power of ten.

    >>> number("0.50"), number(r"-1\frac{1}{2}"), number("7/0"), number("2x")
    (Fraction(1, 2), Fraction(-3, 2), None, None)
    """
    if len(body) > _MOST_DIGITS:
        return None
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


# -- What it could not survive -----------------------------------------------------------------------------------------

MOST_DIGITS = 5_000
"""A number with more digits is not worked out."""
MOST_TERMS = 1_000
"""Nor is a power of a sum with more terms, or a list with more members."""
DEEPEST = 30
_FACTORIAL = re.compile(r"(\d+|[)}\]!])\s*!")
_SUM_TO_POWER = re.compile(r"\(([^()]*)\)\^(?:\{(\d+)\}|(\d+))")
_BIG_OPERATOR = re.compile(r"\\(?:sum|prod|int|iint|oint|lim|bigcup|bigcap)(?![A-Za-z])")
_BINOMIAL = re.compile(r"\\[dt]?binom\{(\d+)\}\{(\d+)\}|(?<![A-Za-z])[CP]\((\d+),(\d+)\)")


def explosion(normalised: str) -> str:
    r"""Why an expression is not worth working out; empty if it is harmless as far as can be seen.

    Looked for: digits without end, long lists, deep nesting, powers and factorials with more than
    :data:`MOST_DIGITS` digits, powers of sums with more than :data:`MOST_TERMS` terms, large binomials, and several
    nested sums or products. What is not seen here meets the worker's deadline.

    >>> explosion("9^9^9^9"), explosion("2^{2016}"), explosion("100!")
    ('the answer is a number of more than 5000 digits', '', '')
    """
    too_many = f"the answer is a number of more than {MOST_DIGITS} digits"
    if re.search(rf"\d{{{LONGEST_DIGITS},}}", normalised):
        return f"the answer has a number of more than {LONGEST_DIGITS} digits"
    if max(normalised.count(","), normalised.count("&"), normalised.count(r"\pm") ** 2) > MOST_MEMBERS:
        return f"the answer lists more than {MOST_MEMBERS} things"
    if _depth(normalised) > DEEPEST:
        return f"the answer is nested more than {DEEPEST} deep"
    if len(_BIG_OPERATOR.findall(normalised)) > 2:
        return "the answer has more than 2 sums, products, integrals or limits"
    if any(int(n) > 2000 for pair in _BINOMIAL.findall(normalised) for n in pair if n):
        return too_many
    if any(not part.isdigit() or int(part) > 1500 for part in _FACTORIAL.findall(normalised)) or "!!" in normalised:
        return too_many
    return too_many if _digits_of_powers(normalised) > MOST_DIGITS else _expansion(normalised)


LONGEST_DIGITS = 300
MOST_MEMBERS = 200


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "})]":
            depth -= 1
    return deepest


def _digits_of_powers(text: str) -> float:
    """At most how many digits a power in the text has, each nested exponent counted in full; infinite if unknown."""
    most = 0.0
    for start, end in _power_chains(text):
        most = max(most, _chain_digits(text[start:end]))
    return most


def _power_chains(text: str) -> list[tuple[int, int]]:
    """Where ``a^b^c...`` stands: each with its exponents, groups included."""
    chains = []
    for match in re.finditer(r"\d+(?:\.\d+)?(?=\^)|[)}\]](?=\^)", text):
        i = match.end()
        while i < len(text) and text[i] == "^":
            i = _end_of_exponent(text, i + 1)
            if i < len(text) and text[i] == "!":
                i += 1
        chains.append((match.start(), i))
    return chains


def _end_of_exponent(text: str, i: int) -> int:
    """Where an exponent that begins at i ends."""
    if i < len(text) and text[i] in "{(":
        depth = 0
        for j in range(i, len(text)):
            depth += (text[j] in "{(") - (text[j] in "})")
            if depth == 0:
                return j + 1
        return len(text)
    match = re.match(r"-?(?:\d+(?:\.\d+)?|\\?[A-Za-z]+)", text[i:])
    return i + (match.end() if match else 1)


def _chain_digits(chain: str) -> float:
    head, *exponents = _split_powers(chain)
    value = 1.0
    for exponent in reversed(exponents):
        inner = _value(exponent)
        if inner is None:
            return 0.0  # with a letter in it: a matter of algebra, not of digits
        try:
            value = inner**value
        except OverflowError:
            return math.inf
    number = _value(head) or 10.0  # a group to a power: taken for ten, a digit a power
    return abs(value) * math.log10(max(abs(number), 2.0))


def _split_powers(chain: str) -> list[str]:
    parts, depth, last = [], 0, 0
    for i, character in enumerate(chain):
        depth += (character in "{(") - (character in "})")
        if character == "^" and depth <= 0:
            parts.append(chain[last:i])
            last = i + 1
    return [*parts, chain[last:]]


def _value(text: str) -> float | None:
    """The size of an exponent: a number, a power or a factorial of numbers; None where letters stand in it."""
    text = text.strip("{}() ")
    if "^" in text:
        digits = _chain_digits(text)
        return math.inf if digits > 300 else 10.0**digits
    if text.endswith("!"):
        return math.inf if not text[:-1].isdigit() or int(text[:-1]) > 20 else float(math.factorial(int(text[:-1])))
    numbers = re.findall(r"\d+(?:\.\d+)?", text)
    if re.search(r"(?<!\\)[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", text)) or not numbers:
        return None
    # A product at most, whatever the signs between the numbers: larger than any sum of them.
    return math.prod(max(float(number), 1.0) for number in numbers)


def _expansion(text: str) -> str:
    """A power of a sum has C(n + k - 1, k - 1) terms, for the n-th power of k summands."""
    for content, braced, digit in _SUM_TO_POWER.findall(text):
        summands = len([term for term in re.split(r"(?<=[^\^{(])[+-]", content) if term])
        power = int(braced or digit)
        if (
            summands > 1
            and re.search(r"[A-Za-z]", content)
            and (power > 2000 or math.comb(power + summands - 1, summands - 1) > MOST_TERMS)
        ):
            return f"the answer has a power of a sum with more than {MOST_TERMS} terms"
    return ""
