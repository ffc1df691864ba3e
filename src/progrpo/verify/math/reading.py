r"""The parts of an answer (its mathematics, name, unit and base), and an answer in the form of a gold."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile

from progrpo.verify.math.parts import brackets, connective, members, sides, values
from progrpo.verify.math.text import NUMBER_WORDS, STYLED, normalise, separate

_UNITS = (
    "m meter metre; cm centimeter centimetre; mm millimeter millimetre; km kilometer kilometre; nm nanometer; "
    "in inch inches; ft foot feet; yd yard; mi mile; s sec second; ms millisecond; min minute; h hr hour; day; week; "
    "month; year yr; g gram; kg kilogram; mg milligram; lb lbs pound; oz ounce; ton tonne; l liter litre; "
    "ml milliliter millilitre; gallon gal; quart; pint; cup; acre; hectare; furlong; dollar; cent; euro; n newton; "
    "j joule; kj kilojoule; w watt; kw kilowatt; v volt; k kelvin; hz hertz; khz; mhz; ghz; pa pascal; mol mole; ev; "
    "kev; mev; gev; erg; degree deg; radian rad; am; pm; north; south; east; west; up; down; left; right; clockwise; "
    "counterclockwise"
)
_UNIT_NAMES = {name: names.split()[0] for names in _UNITS.split(";") for name in names.split()} | {"mph": "mi/h"}
_POWERS = {"square": "^2", "squared": "^2", "sq": "^2", "cubic": "^3", "cubed": "^3", "cu": "^3"}
_BARE_UNITS = {"cm", "mm", "km", "kg", "ft", "lb", "lbs", "ml", "mph", "min", "sec", "inches", "mile", "miles", "yards"}
"""Units that need no ``\\text{}``: 5m may also be a product, but 5cm hardly."""
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_NTHS = {nth: n for n, nth in enumerate("third fourth fifth sixth seventh eighth ninth tenth".split(), start=3)}
_NTHS |= {"halve": 2, "hundredth": 100, "thousandth": 1000}
_NOT_A_UNIT = set(
    "or and not no if where with dozen half to is but for when than "
    "factorial plus minus divided multiplied sqrt root imaginary mod modulo".split()
)
"""Words that change the meaning of the number before them."""
_AFTER_NUMBER = r"(?<=[\d.)}\]!])"
_STYLED_WORDS = STYLED.pattern.replace("([^{}]*)", "([A-Za-z ./-]+)")
_STYLED_UNIT = re.compile(rf"(?:{_STYLED_WORDS})(?:\^(\d))?$")
_BARE_UNIT = re.compile(rf"{_AFTER_NUMBER}([A-Za-z]{{2,}}(?:[ /][A-Za-z]+)*)\.?(?:\^(\d))?$")
_CURRENCY = re.compile(r"^(-?)(\\\$|£|€|\\pounds(?![A-Za-z])|\\euro(?![A-Za-z]))")
_CURRENCIES = {"£": "lb", r"\pounds": "lb", "€": "euro", r"\euro": "euro", r"\$": "dollar"}
_DEGREES = re.compile(rf"{_AFTER_NUMBER}\^\{{\\circ\}} ?[CF]?$")
_WHOLE_NUMBERS = re.compile(r",?\(?[a-z]\\in ?\\mathbb\{[ZN]\}\)?$")
_MODULUS = re.compile(r"(?:\\pmod ?\{?([^{}]*)\}?|\(\\bmod ?([^()]*)\))$")
_PERCENT = re.compile(rf"(?<=[\w.)}}\]!])%+$|{_AFTER_NUMBER}\s*(?:per ?cent|pct)$")
_BASE = re.compile(r"^\(?(-?[0-9A-Z.]+)\)?_(?:(\w)|\{\s*(?:\\(?:text|mathrm)\{)?\s*(\w+)\s*\}?\s*\})$")
_SYMBOL = r"[A-Za-z](?:_\w|_\{[^{}=]*\})?'*"
_GREEK = r"\\(?:alpha|beta|gamma|theta|phi|lambda|mu|omega|sigma|rho|tau|angle|triangle)(?![a-z])"
NO_SET = r"[-\da-z]|\\(?:frac|sqrt|pi|pm|infty|ln|log|exp|sin|cos|tan)(?![a-z])"
_NAMED = re.compile(
    rf"^(?P<name>(?P<symbol>{_SYMBOL}|{_GREEK})|"
    rf"{_SYMBOL}\([^()=]*\)|{_GREEK} ?[A-Z]+|[A-Z]{{2,3}}|[A-Za-z ]{{4,}}|{STYLED.pattern})"
    rf"(?:=|\\(?:approx|equiv)(?![a-z]) ?|\\in(?![a-z]) ?(?=[\[(\\])(?!{NO_SET}))(?P<said>[^=]+)$"
)
_AND_OR = re.compile(rf"\s*(?:,|{connective('or|and')})\s*")
_GROUPING_COMMA = re.compile(r"(?<=\d),(?=[1-9]\d\d(?!\d))", re.ASCII)
_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|in)(?![A-Za-z])")
_AND_BETWEEN_VALUES = re.compile(rf"(?<=[\d)}}\]%]),?\s*{connective('or|and')}\s*(?=[-\d(\\])")
_ASSIGNMENT = re.compile(r"([A-Za-z](?:_\w|_\{\w*\})?)=([^=]+)")
_COMMANDS = re.compile(r"\\[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer in parts; ``body`` is the mathematics, in one spelling."""

    body: str
    symbol: str = ""
    r"""The x of ``x = 5``; empty for other names, such as ``f(x)`` and ``\text{Area}``."""
    unit: str = ""
    """The unit by one of its names, if it is known; or the modulus, such as ``mod 7``."""
    base: str = ""
    is_percent: bool = False
    """Whether a per-cent sign follows, or one follows each member of a list."""


@lru_cache(maxsize=8192)
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
        body, unit = match[1] + body[match.end() :], _CURRENCIES[match[2]]
    if match := _STYLED_UNIT.search(body) or _BARE_UNIT.search(body):
        body, words_unit = _without_words(body, match)
        unit = words_unit or unit
    if _PERCENT.search(body):
        body, is_percent = separate(",".join(_PERCENT.sub("", member) for member in members(body))), True
    if match := _DEGREES.search(body):
        body, unit = body[: match.start()], unit or "degree"
    if match := _BASE.match(body):
        body, base = match[1], match[2] or match[3]
    if body.startswith(r"\{(") and body.endswith(r")\}") and len(members(body[2:-2])) == 1:
        body = body[2:-2]  # the braces of the set are optional around the only pair that solves a system
    return Reading(body.strip(), symbol, unit, NUMBER_WORDS.get(base.lower(), base), is_percent)


def _without_words(body: str, match: re.Match[str]) -> tuple[str, str]:
    """The body without the words at its end, and their unit. Words for a scale, a base or per cent become LaTeX."""
    words = re.findall("[a-z]+", match[1].lower().replace("a.m", "am").replace("p.m", "pm"))
    start = body[: match.start()].rstrip()
    if not words or not start or _NOT_A_UNIT & set(words):
        return body, ""
    scales = list(takewhile(_SCALES.__contains__, words))
    if scales and start[-1].isdigit():
        power = sum(_SCALES[scale] for scale in scales)
        exponent = f"{power}" if power < 10 else f"{{{power}}}"
        return rf"{start}\times 10^{exponent}", _unit(words[len(scales) :], None)
    nth = _NTHS.get(words[0].removesuffix("s"))
    if nth and (len(words) == 1 or words[0].endswith("s") or words[1] == "of"):  # no fifth graders
        return rf"\frac{{{start}}}{{{nth}}}" if re.fullmatch(r"-?\d+", start) else body, ""
    if words[0] == "base" and words[-1] in NUMBER_WORDS:
        return rf"{start}_{{{NUMBER_WORDS[words[-1]]}}}", ""
    if "".join(words) in ("percent", "pct"):
        return f"{start}%", ""
    goes_on = words[0] in ("times", "over", "point") and normalise(" ".join(words[1:2])).isdigit()
    is_short = match.re is _BARE_UNIT and words[0] not in _BARE_UNITS and len(words[0]) < 4
    if goes_on or is_short or words in (["squared"], ["cubed"]):
        return body, ""
    return start, _unit(words, match[2])


def _unit(words: list[str], power: str | None) -> str:
    """The units among the words, and their power: ``mi/h`` for miles per hour."""
    names = [_UNIT_NAMES.get(word) or _UNIT_NAMES.get(word.removesuffix("s")) for word in words]
    raised = f"^{power}" if power else next((_POWERS[word] for word in words if word in _POWERS), "")
    known = "/".join(filter(None, names))
    return known and known + raised


def equation(reading: Reading) -> str:
    """An equation of two sides, with its name: ``y=2x``, ``2x-y=0``; empty for anything else."""
    parts = ([reading.symbol] if reading.symbol else []) + sides(reading.body)
    return "=".join(parts) if len(parts) == 2 else ""


def are_equations(answer: Reading, gold: Reading) -> bool:
    """Whether two equations are compared as a whole: the gold says more than the value of a name.

    ``y=1-x`` is ``x+y=1``, in both directions, and ``x=1-y``. Against ``x=5``, an equation with other names on its left
    still has to give the value 5 on its right.
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
    """``70,110`` with a blank if the other side is a list of two; otherwise it may be a number and is unchanged."""
    listed = _GROUPING_COMMA.sub(", ", text)
    return listed if listed != text and _count(listed) == _count(other) > 1 else text


def _count(text: str) -> int:
    """The number of listed things, in the braces of a set or without them."""
    body = normalise(text)
    return len(members(body[2:-2] if brackets(body) == "set" else body, _AND_OR))


def like(answer: Reading, gold: Reading) -> Reading:
    """The answer in the form of the gold, if it lists values by name or leaves out the brackets of a pair.

    >>> like(read("y=1, x=2"), read("(2,1)")).body, like(read("2, 1"), read("(2,1)")).body
    ('(2,1)', '(2,1)')
    """
    is_ordered = brackets(gold.body) == "ordered" and gold.body.startswith("(")
    listed = _AND_OR.split(f"{answer.symbol}={answer.body}" if answer.symbol else answer.body)
    named = [match.groups() for item in listed if (match := _ASSIGNMENT.fullmatch(item))]
    if 1 < len(named) == len(listed) and "=" not in gold.body:
        names = [name for name, _ in named]
        if is_ordered and len(set(names)) < len(names):
            return answer  # two values of one name are not a pair
        letters = sorted({name[0] for name in names})
        if is_ordered and (set(letters) <= set("xyz") or ord(letters[-1]) - ord(letters[0]) == len(letters) - 1):
            named.sort()  # the alphabet gives the order of x, y, z, of a, b and of x_1, x_2, but not of p, m
        listed = [value for _, value in named]
    else:
        listed = members(answer.body)
        if not is_ordered or "=" in answer.body or len(listed) < 2:
            return answer
    body = separate(",".join(listed))
    return replace(answer, body=f"({body})" if is_ordered else body)
