r"""What math-verify would overlook, and what it could not survive: two cheap looks at an answer's text."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from progrpo.verify.math_size import TooLargeError, size
from progrpo.verify.math_text import STYLED, inequality_variable, normalise, separate

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
_DEGREES = re.compile(rf"{_AFTER_NUMBER}\^\{{\\circ\}} ?[CF]?$")
_WHOLE_NUMBERS = re.compile(r",?\(?[a-z]\\in ?\\mathbb\{[ZN]\}\)?$")
_MODULUS = re.compile(r"(?:\\pmod ?\{?([^{}]*)\}?|\(\\bmod ?([^()]*)\))$")
_PERCENT = re.compile(rf"{_AFTER_NUMBER}\s*(?:%|per ?cent|pct)$")
_BASE = re.compile(
    r"^\(?(-?[0-9A-Z.]+)\)?_(?:(\w)|\{\s*(\w+)\s*\}|\{\s*\\(?:text|mathrm)\{\s*(\w+)\s*\}\s*\}|\\text\{\s*(\w+)\s*\})$"
)
_BASES = "two three four five six seven eight nine ten eleven twelve".split()
_BASE_WORDS = {word: str(base) for base, word in enumerate(_BASES, start=2)}
_SYMBOL = r"[A-Za-z](?:_\w|_\{[^{}=]*\})?'*"
_GREEK = r"\\(?:alpha|beta|gamma|theta|phi|lambda|mu|omega|sigma|rho|tau|angle|triangle)(?![a-z])"
_CLOSED_AT_INFINITY = re.compile(r"\\infty ?\]|\[[-+]?\\infty")
_NO_SET = r"[-\da-z]|\\(?:frac|sqrt|pi|pm|infty|ln|log|exp|sin|cos|tan)(?![a-z])"
_NAMED = re.compile(
    rf"^(?P<name>(?P<symbol>{_SYMBOL}|{_GREEK})|"
    rf"{_SYMBOL}\([^()=]*\)|{_GREEK} ?[A-Z]+|[A-Z]{{2,3}}|[A-Za-z ]{{4,}}|{STYLED.pattern})"
    rf"(?:=|\\(?:approx|equiv)(?![a-z]) ?|\\in(?![a-z]) ?(?=[\[(\\])(?!{_NO_SET}))(?P<said>[^=]+)$"
)


@dataclass(frozen=True, slots=True)
class Reading:
    r"""An answer in parts.

    Attributes:
        body: the mathematics, in one spelling.
        symbol: of ``x = 5``, the x; empty for other names, such as ``f(x)`` and ``\text{Area}``.
        unit: by one name for its many, only if it is known; or the modulus, such as ``mod 7``.
        base: that the number is written in.
        is_percent: whether a per cent sign follows, or one follows each member of a list.
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
    body = _WHOLE_NUMBERS.sub("", body).removeprefix(r"\approx").strip() or body
    if match := _MODULUS.search(body):
        body, unit = body[: match.start()].strip(), f"mod {(match[1] or match[2]).strip()}"
    if not _RELATION.search(body):
        body = separate(_AND_BETWEEN_VALUES.sub(",", body))
    if match := _NAMED.match(body):
        body, symbol = match["said"].strip(), match["symbol"] or ""
    if match := _CURRENCY.match(body):
        body, unit = match[1] + body[match.end() :], {"£": "lb", r"\pounds": "lb"}.get(match[2], "dollar")
        unit = "euro" if "euro" in match[2] or match[2] == "€" else unit
    if match := _STYLED_UNIT.search(body) or _BARE_UNIT.search(body):
        body, unit, is_percent = _without_words(body, match, unit)
    if match := _DEGREES.search(body):
        body, unit = body[: match.start()], unit or "degree"
    if _PERCENT.search(body):
        body, is_percent = separate(",".join(_PERCENT.sub("", member) for member in members(body))), True
    if match := _BASE.match(body):
        body, base = match[1], next(group for group in match.groups()[1:] if group)
    if body.startswith(r"\{(") and body.endswith(r")\}") and len(members(body[2:-2])) == 1:
        body = body[2:-2]  # the only pair that solves a system is as well written without the braces of the set
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

    A unit or a per cent sign that only one of them has is no conflict, nor is a base that only the gold has: the
    question has often asked "in base 8" or "what percent".

    >>> conflict(read(r"5 \text{ cm}"), read(r"5 \text{ m}"))
    "the unit is 'cm', not 'm'"
    >>> conflict(read("5"), read(r"5 \text{ m}")), conflict(read("2516"), read("2516_8"))
    ('', '')
    >>> conflict(read("2516_8"), read("2516"))
    'the base is 8, not 10'
    """
    units = [reading.unit or ("per cent" if reading.is_percent else "") for reading in (answer, gold)]
    if all(units) and units[0] != units[1]:
        return f"the unit is {units[0]!r}, not {units[1]!r}"
    if answer.base not in ("", gold.base):
        return f"the base is {answer.base or 10}, not {gold.base or 10}"
    are_named = answer.symbol and gold.symbol and answer.symbol.lower() != gold.symbol.lower()
    if are_named and not are_equations(answer, gold):
        return f"the answer is about {answer.symbol!r}, not {gold.symbol!r}"
    if re.search(rf"\\in(?![a-z]) ?(?:{_NO_SET})", answer.body):
        return "the answer is in what is no set"
    if answer.symbol and re.search(rf"(?<![\\A-Za-z]){re.escape(answer.symbol)}(?![A-Za-z])", answer.body):
        return f"the answer says {answer.symbol!r} by means of itself"
    variables = [inequality_variable(reading.body) for reading in (answer, gold)]
    if None not in variables and variables[0] != variables[1]:
        return f"the answer is about {variables[0]!r}, not {variables[1]!r}"
    if {_brackets(answer.body), _brackets(gold.body)} == {"set", "ordered"}:
        return "one is a set, the other an ordered pair or an interval"
    if _CLOSED_AT_INFINITY.search(answer.body) and not _CLOSED_AT_INFINITY.search(gold.body):
        return "the answer has an interval that is closed at infinity"
    answers, golds = members(answer.body), members(gold.body)
    if len(golds) > len(set(golds)) and len(answers) > 1 and len(answers) != len(golds):
        return f"the answer lists {len(answers)} things, not {len(golds)}"
    return ""


def _brackets(body: str) -> str:
    if body.startswith(r"\{") and body.endswith(r"\}"):
        return "set"
    is_whole = body[:1] in ("(", "[") and body[-1:] in (")", "]") and len(members(body)) == 1
    return "ordered" if is_whole and "," in body else ""


# -- Lists and equations -----------------------------------------------------------------------------------------------

_EQUALS = re.compile(r"(?<![<>:=])(?<![^\d)}\]]!)=")
_AND_OR = re.compile(
    r"\s*(?:,|\\(?:text|mathrm)\s*\{\s*(?:or|and)\s*\}|\\l(?:or|and)(?![A-Za-z])|(?<![A-Za-z])(?:or|and)(?![A-Za-z]))\s*"
)
_GROUPING_COMMA = re.compile(r"(?<=\d),(?=[1-9]\d\d(?!\d))", re.ASCII)
_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|in)(?![A-Za-z])")
_AND_BETWEEN_VALUES = re.compile(
    r"(?<=[\d)}\]%]),?\s*(?:\\(?:text|mathrm)\s*\{\s*(?:or|and)\s*\}|(?:or|and)(?![A-Za-z]))\s*(?=[-\d(\\])"
)
_ASSIGNMENT = re.compile(r"([A-Za-z](?:_\w|_\{\w*\})?)=([^=]+)")
_NO_PART_OF_A_NAME = re.compile(r"[0-9^]|^-|\\(?:sqrt|ln|log|exp)(?![a-z])")
_COMMANDS = re.compile(r"\\[A-Za-z]+")
_SUBSCRIPTS_AND_ARGUMENTS = re.compile(r"_(?:\{[^{}]*\}|\w)|(?<=[A-Za-z'])\([^()]*\)|\[[^\[\]]*\]")


def members(body: str, separator: re.Pattern[str] = re.compile(",")) -> list[str]:
    """What stands between the commas that are in no brackets.

    >>> members("(1,2), 3")
    ['(1,2)', '3']
    """
    parts, depth, last = [], 0, 0
    places = {match.start(): match.end() for match in separator.finditer(body)}
    for i, character in enumerate(body):
        if i in places and depth <= 0:
            parts.append(body[last:i].strip())
            last = places[i]
        depth += (character in "{([") - (character in "})]")
    return [*parts, body[last:].strip()]


def ordered_numbers(body: str) -> list[Fraction]:
    """The members of an ordered pair, a longer tuple or an interval, if all are plain numbers; else none.

    >>> ordered_numbers("(1,0.5]"), ordered_numbers("(1,x)")
    ([Fraction(1, 1), Fraction(1, 2)], [])
    """
    if _brackets(body) != "ordered":
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


def sides(body: str) -> list[str]:
    r"""The sides of an equation, or of a chain of them.

    >>> sides("x^2=2+2=4"), sides("1<x")
    (['x^2', '2+2', '4'], ['1<x'])
    """
    return members(body, _EQUALS)


def values(parts: list[str]) -> list[str]:
    r"""The sides of an equation that claim to be the answer: all but a name for it on the left.

    A name is letters, with subscripts and arguments: ``m+n``, ``[ABC]``, ``\sin\theta``. A side with numbers or powers
    is none: who writes ``x^2=5`` has not said what x is, and ``3=5`` is no 5.

    >>> values(["m+n", "5"]), values(["2x", "5"])
    (['5'], ['2x', '5'])
    """
    name = _SUBSCRIPTS_AND_ARGUMENTS.sub("", parts[0])
    is_name = re.search("[A-Za-z]", parts[0]) and not _NO_PART_OF_A_NAME.search(name)
    return parts[1:] if is_name else parts


def equation(reading: Reading) -> str:
    r"""An equation with its name, empty for what is not an equation of two sides.

    >>> equation(read("y=2x")), equation(read("2x-y=0")), equation(read("2x"))
    ('y=2x', '2x-y=0', '')
    """
    parts = sides(reading.body)
    whole = [reading.symbol, *parts] if reading.symbol else parts
    return "=".join(whole) if len(whole) == 2 else ""


def are_equations(answer: Reading, gold: Reading) -> bool:
    """Whether two equations are compared as a whole: the gold says more than the value of a name.

    ``y=1-x`` is ``x+y=1``, in both directions, and ``x=1-y``. For ``x=5``, an equation that has other names on its left
    still has to give the value 5 on its right.

    >>> are_equations(read("y=1-x"), read("x+y=1")), are_equations(read("y=5"), read("x=5"))
    (True, False)
    """
    first, second = equation(answer), equation(gold)
    if not first or not second:
        return False
    if not gold.symbol:
        return re.search("[A-Za-z]", _COMMANDS.sub("", second)) is not None
    if answer.symbol:
        return _mentions(gold.body, answer.symbol) and _mentions(answer.body, gold.symbol)
    parts = sides(first)
    return values(parts) == parts or _mentions(first, gold.symbol)


def _mentions(body: str, symbol: str) -> bool:
    """Whether a name stands in an expression, also beside others: y in ``2xy``."""
    letters = body if symbol.startswith("\\") else _COMMANDS.sub(" ", STYLED.sub(" ", body))
    return re.search(rf"{re.escape(symbol)}(?![_'])", letters) is not None


def as_list(text: str, other: str) -> str:
    """``70,110`` with a blank, where the other side is a list of as many things: it is a number or a list of two.

    >>> as_list("70,110", "110, 70"), as_list("70,110", "70110"), as_list("70,110", "1, 2, 3")
    ('70, 110', '70,110', '70,110')
    """
    listed = _GROUPING_COMMA.sub(", ", text)
    return listed if listed != text and _count(listed) == _count(other) > 1 else text


def _count(text: str) -> int:
    """How many things are listed, in the braces of a set or without them."""
    body = normalise(text)
    return len(members(body[2:-2] if _brackets(body) == "set" else body, _AND_OR))


def like(answer: Reading, gold: Reading) -> Reading:
    """The answer in the form of the gold, where one lists values by name, or leaves the brackets of a pair out.

    >>> like(read("y=1, x=2"), read("(2,1)")).body, like(read("2, 1"), read("(2,1)")).body
    ('(2,1)', '(2,1)')
    """
    is_ordered = _brackets(gold.body) == "ordered" and gold.body.startswith("(")
    listed = _AND_OR.split(f"{answer.symbol}={answer.body}" if answer.symbol else answer.body)
    named = [match.groups() for item in listed if (match := _ASSIGNMENT.fullmatch(item))]
    if 1 < len(named) == len(listed) and "=" not in gold.body:
        if is_ordered and len({name for name, _ in named}) == len(named):
            named.sort()
        listed = [value for _, value in named]
    else:
        listed = members(answer.body)
        if not is_ordered or "=" in answer.body or len(listed) < 2:
            return answer
    body = separate(",".join(listed))
    return replace(answer, body=f"({body})" if is_ordered else body)


# -- Plain numbers -----------------------------------------------------------------------------------------------------

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
    what :mod:`progrpo.verify.math_size` finds too large. What is not seen here meets the worker's deadline.

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
