r"""Reading an answer as text: its spelling brought to one form.

Nothing here evaluates anything, and the time taken grows with the length of the text only.
"""

import itertools
import re
import unicodedata

from progrpo.verify.extract import closing_brace

# -- One spelling ------------------------------------------------------------------------------------------------------

_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/",
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "φ": r"\phi ", "λ": r"\lambda ", "ω": r"\omega ",
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ ", "′": "'", "“": '"', "”": '"', "’": "'", "∨": r"\lor ",
    "ℝ": r"\mathbb{R}", "√": "sqrt", "∘": r"\circ ", "≈": r"\approx ", "≡": r"\equiv ", "⟨": "(", "⟩": ")",
}  # fmt: skip
_RAISED = {"<super>": "^", "<sub>": "_"}
_PLAIN_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+|[A-Za-z](?![A-Za-z])))")
_PLAIN_FUNCTION = re.compile(
    r"(?<![\\A-Za-z])(?:np\.|math\.)?(arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|ln|log|exp|pi)(?![A-Za-z])"
)
_SCIENTIFIC = re.compile(r"(?<![\w.\\])([-+]?(?:\d+(?:\.\d*)?|\.\d+))[eE]([-+]?\d{1,4})(?!\w|\.\d)", re.ASCII)
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS)}
_STYLE = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|math(?:rm|bf|it|sf)|mbox|operatorname|boldsymbol|bm|pmb|underline)\s*\{"
)
STYLED = re.compile(_STYLE.pattern + r"([^{}]*)\}")
_SHORT_UNITS = set("mshgLlNJWVK")
_NUMBER_BEFORE = re.compile(r"[\d)}][\s~]*(?:\\[,;:! ]\s*)*$")
_STYLED_MATHS = re.compile(r"[\d.,\s()+*/=-]*|[A-Za-z]|\d[\d.,]* [A-Za-z ]+")
_CLOCK = re.compile(r"(?<=\d)\s*([AaPp])\.?\s?[Mm](?![A-Za-z])\.?")
_SPACING = re.compile(r"(?:(?<!\\)\\[,;:!> ]|\\(?:q?quad|[hv]?phantom\{[^{}]*\}|thinspace)(?![A-Za-z])|~|\s)+")
"""As a whole: several spacings beside each other part two numbers as one does."""
_WRAPPERS = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s*\.?|"  # the full stop is a bracket that is not drawn
    r"\\(?:displaystyle|textstyle|limits|nolimits|mathopen|mathclose)(?![A-Za-z])|"
    r"\\(?:text)?color\s*\{[^{}]*\}|(?<=\\\\)\s*\[[\d.]+\s*(?:pt|em|ex|mm|cm)\]"
)
_THOUSANDS_IN_LATEX = re.compile(r"(?<=\d)(?:,\s*\\!\s*|\\!,|\{,\})(?=\d{3}(?!\d))", re.ASCII)
_NARROW_SPACES = re.compile(r"(?<=\d)\s*(?:\\[,;: ]|~)\s*(?=\d{3}(?!\d))", re.ASCII)
_THOUSANDS = re.compile(r"(?<![\d.^_])(?<!sqrt)(?<!frac)[1-9]\d{0,2}(?:(,|\\,| )\d{3})(?:\1\d{3})*(?!\d)", re.ASCII)
_IDLE_BLANKS = re.compile(
    r"(?<![A-Za-z0-9])(?!(?<=\d,) +\d{3}(?!\d)) +| +(?![A-Za-z0-9])|(?<=\d) +(?=[A-Za-z\\])|"
    r"(?<![\\A-Za-z])(?<=[A-Za-z]) +(?=\d)"
)
_PRIMES = re.compile(r"\^\s*(?:\{\s*(?:\\prime\s*)+\}|\\prime(?![A-Za-z])\s*)")
_BLANK = r"(?=[\s~]|\\[ ,;:!>]|\\q?quad|$)"
_SEPARATING_COMMA = re.compile(r"(?<=\d)(?<!\b0),(?=\d{3}(?!\d))", re.ASCII)
_POSITIVE_INFINITY = re.compile(r"(?<![\w)}\]!])\+\s*(?=\\infty(?![A-Za-z]))")
_PLAIN_INFINITY = re.compile(r"(?<![\\A-Za-z])(?:infinity|infty|inf)(?![A-Za-z])")
_ARGUMENT = r"\s*(?:\{([^{}]*)\}|([0-9A-Za-z]|\\(?:pi|theta|alpha|beta|infty)(?![A-Za-z])))"
_SHORT_FRACTION = re.compile(rf"\\[dtc]?frac(?![A-Za-z]){_ARGUMENT}{_ARGUMENT}")
_SHORT_ROOT = re.compile(r"\\sqrt\s*(\[[^\[\]]*\])?\s*([0-9A-Za-z])(?![A-Za-z])")
_LATEX_SYNONYMS = [
    (re.compile(rf"\\(?:{names})(?![A-Za-z])\s*"), latex)
    for names, latex in [
        ("[dtc]frac", r"\\frac"), ("leq(?:slant)?", r"\\le "), ("geq(?:slant)?", r"\\ge "), ("neq", r"\\ne "),
        ("[dt]binom", r"\\binom"), ("vee", r"\\lor "), ("varnothing", r"\\emptyset "), ("lt", "<"), ("gt", ">"),
        ("lbrace", r"\\{"), ("rbrace", r"\\}"), ("degrees?", r"^\\circ "), ("dots|ldots|cdots", r"\\dots "),
        ("colon", ":"), ("ast", "*"), ("langle", "("), ("rangle", ")"),
    ]
]  # fmt: skip


def unify(text: str) -> str:
    r"""The same answer in plain LaTeX: Unicode signs, plain functions and number words become what LaTeX has for them.

    >>> unify("√2 + x²"), unify("2516₈"), unify("5½"), unify("two"), unify("1.6e-19")
    ('\\sqrt{2} + x^{2}', '2516_{8}', '5\\frac{1}{2}', '2', '1.6\\times 10^{-19}')
    """
    if not text.isascii():
        runs = [(sign, "".join(map(_latex, run))) for sign, run in itertools.groupby(text, _raised)]
        text = "".join(f"{sign}{{{plain}}}" if sign else plain for sign, plain in runs)
    text = _PLAIN_ROOT.sub(_root, text)
    text = _SCIENTIFIC.sub(r"\1\\times 10^{\2}", text)
    text = _PLAIN_INFINITY.sub(r"\\infty ", _PLAIN_FUNCTION.sub(r"\\\1 ", text))
    return _WORDS.get(text.strip().lower(), text)


def _raised(character: str) -> str:
    """``^`` or ``_`` for a raised or a lowered character, else nothing."""
    return _RAISED.get(unicodedata.decomposition(character).partition(" ")[0], "")


def _latex(character: str) -> str:
    """A character in ASCII, if it has a form in it: half, raised and full-width ones, the digits of other scripts."""
    if character.isascii():
        return character
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    kind = unicodedata.decomposition(character).partition(" ")[0]
    plain = unicodedata.normalize("NFKC", character).replace("−", "-")
    if kind == "<fraction>" and "⁄" in plain:
        return r"\frac{{{}}}{{{}}}".format(*plain.split("⁄"))
    return "".join(_SYMBOLS.get(c, str(unicodedata.decimal(c, c))) for c in plain)


def _root(match: re.Match[str]) -> str:
    return r"\sqrt{" + next(group for group in match.groups() if group is not None) + "}"


def normalise(text: str) -> str:
    r"""One spelling for many: what is equal after this is the same answer, what is not may still be.

    A comma that is left separates: ``1,000`` is a number, and ``81, 256`` a list. The normal form of a normal form is
    itself.

    >>> normalise(r"$\dfrac12$"), normalise(r"\frac{1}{2}."), normalise(r"1{,}000"), normalise("1 2")
    ('\\frac{1}{2}', '\\frac{1}{2}', '1000', '1 2')
    >>> normalise("81, 256"), normalise("81,256"), normalise("(81,256)"), normalise("1,000, 2")
    ('81, 256', '81256', '(81, 256)', '1000,2')
    """
    text = unify(text)
    text = re.sub(r"(?<!\\)\$", "", text).replace(r"\(", "(").replace(r"\)", ")").replace(r"\%", "%")
    text = text.replace("{:}", ":")
    text = text.replace(r"\[", "[").replace(r"\]", "]") if text.startswith(r"\[") else text
    text = STYLED.sub(_unstyle_maths, _unstyle_groups(_WRAPPERS.sub("", text)))
    for synonym, latex in _LATEX_SYNONYMS:
        text = synonym.sub(latex, text)
    text = _THOUSANDS_IN_LATEX.sub("", text)
    text = _THOUSANDS.sub(_ungroup, _NARROW_SPACES.sub(r"\\,", text))
    text = _POSITIVE_INFINITY.sub("", _SPACING.sub(" ", text).strip())
    text = re.sub(r"(?<=\d)\.(?=\s*[-+*/)]|$)", "", text).removesuffix(".").rstrip()
    text = re.sub(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))", r"^{\\circ}", text)
    text = _PRIMES.sub(lambda match: "'" * match[0].count(r"\prime"), text)
    text = _SHORT_ROOT.sub(r"\\sqrt\1{\2}", _SHORT_FRACTION.sub(_fraction, text))
    text = re.sub(r"([_^])\{([0-9A-Za-z])\}", r"\1\2", text)
    return separate(squeeze(text))


def _ungroup(match: re.Match[str]) -> str:
    """``1,000`` as ``1000``, but not what may be members of a list or a tuple: ``1,250,2`` and ``(1,250)``.

    ``000`` is no member of either, and where other commas have blanks after them, this one groups digits.
    """
    before, after = match.string[: match.start()].rstrip("+-"), match.string[match.end() :]
    is_grouped = match[1] != "," or ",0" in match[0]
    is_listed = before.endswith(",") or re.match(rf",(?!{_BLANK})", after) is not None
    return re.sub(r"\D", "", match[0]) if is_grouped or not (is_listed or _is_in_brackets(before)) else match[0]


def _is_in_brackets(before: str) -> bool:
    opened, closed = (sum(map(before.count, brackets)) for brackets in (("(", "[", r"\{"), (")", "]", r"\}")))
    return opened > closed


def separate(text: str) -> str:
    """Text whose commas all separate, so that none is taken for one that groups digits: ``81, 256``.

    >>> separate("81,256"), separate("2,3")
    ('81, 256', '2,3')
    """
    return _SEPARATING_COMMA.sub(", ", text)


def squeeze(text: str) -> str:
    """Without the spaces that part nothing: ``1 2`` stays, and so do words, and the blank in ``81, 256``."""
    return _IDLE_BLANKS.sub("", text)


def _unstyle_groups(text: str) -> str:
    r"""Without the styles of what has braces in it, such as ``\boldsymbol{\frac{1}{2}}``: that is mathematics."""
    for match in reversed(list(_STYLE.finditer(text))):
        start = match.end()
        close = closing_brace(text, start - 1, len(text))
        if close is not None and "{" in text[start:close]:
            text = f"{text[: match.start()]} {text[start:close]} {text[close + 1 :]}"
    return text


def _unstyle_maths(match: re.Match[str]) -> str:
    r"""Numbers and single letters in ``\text{}`` are mathematics; words stay apart, and units such as m and s."""
    content = match[1].strip()
    if match[1] and not content:
        return " "
    if content in _SHORT_UNITS and _NUMBER_BEFORE.search(match.string[: match.start()]):
        return match[0]
    if _STYLED_MATHS.fullmatch(content):
        # \circ\text{C} is no command \circC
        return f" {content}" if match.string[: match.start()][-1:].isalpha() else content
    return _WORDS.get(content.lower(), match[0])


def unstyled(text: str) -> str:
    r"""The same in one spelling with every style left out, whatever stands in it.

    >>> unstyled(r"3:00 \text{ p.m.}") == unstyled("3:00 PM")
    True
    """
    return normalise(_CLOCK.sub(lambda match: f" {match[1].lower()}m", STYLED.sub(r" \1 ", text)))


def _fraction(match: re.Match[str]) -> str:
    numerator, denominator = match[1] or match[2] or "", match[3] or match[4] or ""
    return rf"\frac{{{numerator.strip()}}}{{{denominator.strip()}}}"


# -- Words -------------------------------------------------------------------------------------------------------------


def words(text: str) -> str | None:
    r"""The words of an answer that is words alone, or a letter in brackets; None for any other.

    Lower case, but for a bare word of up to three letters: that may be a product of variables.

    >>> words(r"\text{ (B) }"), words("Evelyn"), words("3x"), words("AB")
    ('b', 'evelyn', None, 'AB')
    """
    plain = re.sub(r"\s+", " ", STYLED.sub(r"\1", text).replace("$", "")).strip().strip(".").strip()
    letter = re.fullmatch(r"\(([A-Za-z])\)", plain)
    plain = letter[1] if letter else plain
    if not re.fullmatch(r"[A-Za-z][A-Za-z' .,-]*", plain):
        return None
    is_word = letter is not None or STYLED.search(text) is not None or re.search("[A-Za-z]{4}", plain) is not None
    return plain.lower().replace(".", "") if is_word else plain


# -- Inequalities ------------------------------------------------------------------------------------------------------

_OR = re.compile(r"\s*(?:\\(?:text|mathrm)\s*\{\s*or\s*\}|\\lor(?![A-Za-z])|(?<![A-Za-z])or(?![A-Za-z]))\s*")
_SIGN = r"\s*(<=|>=|<|>|\\le(?![A-Za-z])|\\ge(?![A-Za-z]))\s*"
_BOUND = r"((?:[^<>=,A-Za-z\\]|\\(?:frac|sqrt|pi|infty)(?![A-Za-z]))+)"
_ONE_SIDED = re.compile(rf"([A-Za-z]){_SIGN}{_BOUND}")
_TWO_SIDED = re.compile(rf"{_BOUND}{_SIGN}([A-Za-z])(?:{_SIGN}{_BOUND})?")


def intervals(normalised: str) -> str | None:
    r"""Inequalities of one variable as a union of intervals; None for anything else.

    >>> intervals("x<1 or x\\ge 2")
    '(-\\infty,1)\\cup[2,\\infty)'
    >>> intervals("1<x\\le 2"), intervals("x+y<1")
    ('(1,2]', None)
    """
    known = _intervals(normalised)
    return r"\cup".join(interval for _, interval in known) if known else None


def inequality_variable(normalised: str) -> str | None:
    """The variable of what :func:`intervals` reads; None for anything else.

    >>> inequality_variable("1<x"), inequality_variable("1+x")
    ('x', None)
    """
    known = _intervals(normalised)
    return known[0][0] if known else None


def _intervals(normalised: str) -> list[tuple[str, str]]:
    """Each with its variable; empty if these are no inequalities of one variable."""
    parts = [_interval(part.strip()) for part in _OR.split(normalised)]
    known = [part for part in parts if part is not None]
    return known if len(known) == len(parts) and len({variable for variable, _ in known}) == 1 else []


def _interval(text: str) -> tuple[str, str] | None:
    low = high = None
    if match := _ONE_SIDED.fullmatch(text):
        variable, sign, bound = match.groups()
        low, high = (None, (bound, sign)) if _is_less(sign) else ((bound, sign), None)
    elif match := _TWO_SIDED.fullmatch(text):
        first, sign, variable, other_sign, second = match.groups()
        if other_sign is not None and _is_less(sign) != _is_less(other_sign):
            return None
        ends = [(first, sign), None if other_sign is None else (second, other_sign)]
        low, high = ends if _is_less(sign) else reversed(ends)
    else:
        return None
    left = r"(-\infty" if low is None else f"{'[' if _is_closed(low[1]) else '('}{low[0].strip()}"
    right = r"\infty)" if high is None else f"{high[0].strip()}{']' if _is_closed(high[1]) else ')'}"
    return variable, f"{left},{right}"


def _is_less(sign: str) -> bool:
    return sign.startswith(("<", r"\l"))


def _is_closed(sign: str) -> bool:
    return "=" in sign or "e" in sign
