r"""One spelling for the many spellings of an answer.

Nothing here evaluates anything, and the time grows only with the length of the text.
"""

import itertools
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from progrpo.verify.extract import closing_brace

_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/",
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "φ": r"\phi ", "λ": r"\lambda ", "ω": r"\omega ",
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ ", "′": "'", "“": '"', "”": '"', "’": "'", "∨": r"\lor ",
    "ℝ": r"\mathbb{R}", "√": "sqrt", "∘": r"\circ ", "≈": r"\approx ", "≡": r"\equiv ", "⟨": "(", "⟩": ")",
}  # fmt: skip
_RAISED = {"<super>": "^", "<sub>": "_"}
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMBER_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS.split())}
_STYLE = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|math(?:rm|bf|it|sf)|mbox|operatorname|boldsymbol|bm|pmb|underline)\s*\{"
)
STYLED = re.compile(_STYLE.pattern + r"([^{}]*)\}")
_STYLED_MATHS = re.compile(r"[\d.,\s()+*/=-]*|[A-Za-z]|\d[\d.,]* [A-Za-z ]+")
_SHORT_UNITS = set("mshgLlNJWVK")
_NUMBER_BEFORE = re.compile(r"[\d)}][\s~]*(?:\\[,;:! ]\s*)*$")
_CLOCK = re.compile(r"(?<=\d)\s*([AaPp])\.?\s?[Mm](?![A-Za-z])\.?")

Rules = list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]]
"""Patterns and their replacements, in the order in which they are applied."""


def _rules(*rules: tuple[str, str | Callable[[re.Match[str]], str]]) -> Rules:
    return [(re.compile(pattern), replacement) for pattern, replacement in rules]


def _apply(rules: Rules, text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def _ungroup(match: re.Match[str]) -> str:
    """``1,000`` as ``1000``. Numbers that may be members of a list or a tuple stay: ``1,250,2`` and ``(1,250)``.

    ``000`` cannot be such a member. If other commas have blanks after them, a comma without a blank groups digits.
    """
    before, after = match.string[: match.start()].rstrip("+-"), match.string[match.end() :]
    is_listed = before.endswith(",") or re.match(r",(?![\s~]|\\[ ,;:!>]|\\q?quad|$)", after) is not None
    opened, closed = (sum(map(before.count, brackets)) for brackets in (("(", "[", r"\{"), (")", "]", r"\}")))
    may_be_members = match[1] == "," and ",0" not in match[0] and (is_listed or opened > closed)
    return match[0] if may_be_members else re.sub(r"\D", "", match[0])


_PLAIN = _rules(
    (r"(?<![\\A-Za-z])sqrt\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+|[A-Za-z](?![A-Za-z])))", r"\\sqrt{\1\2\3}"),
    (r"(?a)(?<![\w.\\])([-+]?(?:\d+(?:\.\d*)?|\.\d+))[eE]([-+]?\d{1,4})(?!\w|\.\d)", r"\1\\times 10^{\2}"),
    (
        r"(?<![\\A-Za-z])(?:np\.|math\.)?(arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|ln|log|exp|pi)(?![A-Za-z])",
        r"\\\1 ",
    ),
    (r"(?<![\\A-Za-z])(?:infinity|infty|inf)(?![A-Za-z])", r"\\infty "),
)
"""Plain text that is not LaTeX."""
_WRAPPERS = _rules(
    (r"(?<!\\)\$", ""),
    (r"\\([()%])", r"\1"),
    (r"\{:\}", ":"),
    (r"(?s)^\\\[.*", lambda match: match[0].replace(r"\[", "[").replace(r"\]", "]")),
    (r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s*\.?", ""),  # the full stop stands for an invisible bracket
    (r"\\(?:displaystyle|textstyle|limits|nolimits|mathopen|mathclose)(?![A-Za-z])", ""),
    (r"\\(?:text)?color\s*\{[^{}]*\}|(?<=\\\\)\s*\[[\d.]+\s*(?:pt|em|ex|mm|cm)\]", ""),
)
"""LaTeX around mathematics that changes only how it looks."""
_ARGUMENT = r"\s*(?:\{([^{}]*)\}|([0-9A-Za-z]|\\(?:pi|theta|alpha|beta|infty)(?![A-Za-z])))"
_LATEX = _rules(
    *(
        (rf"\\(?:{names})(?![A-Za-z])\s*", latex)
        for names, latex in [
            ("[dtc]frac", r"\\frac"), ("leq(?:slant)?", r"\\le "), ("geq(?:slant)?", r"\\ge "), ("neq", r"\\ne "),
            ("[dt]binom", r"\\binom"), ("vee", r"\\lor "), ("varnothing", r"\\emptyset "), ("lt", "<"), ("gt", ">"),
            ("lbrace", r"\\{"), ("rbrace", r"\\}"), ("degrees?", r"^\\circ "), ("dots|ldots|cdots", r"\\dots "),
            ("colon", ":"), ("ast", "*"), ("langle", "("), ("rangle", ")"),
        ]
    ),
    # Groups of three digits.
    (r"(?a)(?<=\d)(?:,\s*\\!\s*|\\!,|\{,\})(?=\d{3}(?!\d))", ""),
    (r"(?a)(?<=\d)\s*(?:\\[,;: ]|~)\s*(?=\d{3}(?!\d))", r"\\,"),
    (r"(?a)(?<![\d.^_])(?<!sqrt)(?<!frac)[1-9]\d{0,2}(?:(,|\\,| )\d{3})(?:\1\d{3})*(?!\d)", _ungroup),
    # A run of spaces separates two numbers just as one space does.
    (r"(?:(?<!\\)\\[,;:!> ]|\\(?:q?quad|[hv]?phantom\{[^{}]*\}|thinspace)(?![A-Za-z])|~|\s)+", " "),
    (r"^ | $", ""),
    (r"(?<![\w)}\]!])\+\s*(?=\\infty(?![A-Za-z]))", ""),
    (r"(?<=\d)\.(?=\s*[-+*/)]|$)| ?\.$", ""),
    (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))", r"^{\\circ}"),
    (r"\^\s*(?:\{\s*(?:\\prime\s*)+\}|\\prime(?![A-Za-z])\s*)", lambda match: "'" * match[0].count(r"\prime")),
    (rf"\\frac(?![A-Za-z]){_ARGUMENT}{_ARGUMENT}", r"\\frac{\1\2}{\3\4}"),
    (r"\\sqrt\s*(\[[^\[\]]*\])?\s*([0-9A-Za-z])(?![A-Za-z])", r"\\sqrt\1{\2}"),
    (r"([_^])\{([0-9A-Za-z])\}", r"\1\2"),
    # Blanks without a meaning, but not those in "1 2", in "81, 256" and between words.
    (
        r"(?<![A-Za-z0-9])(?!(?<=\d,) +\d{3}(?!\d)) +| +(?![A-Za-z0-9])|(?<=\d) +(?=[A-Za-z\\])|"
        r"(?<![\\A-Za-z])(?<=[A-Za-z]) +(?=\d)",
        "",
    ),
)  # fmt: skip
"""The many spellings of the same LaTeX."""


def unify(text: str) -> str:
    r"""The same answer in LaTeX: Unicode signs, plain functions and number words become LaTeX.

    >>> unify("√2 + x²"), unify("2516₈"), unify("5½"), unify("two"), unify("1.6e-19")
    ('\\sqrt{2} + x^{2}', '2516_{8}', '5\\frac{1}{2}', '2', '1.6\\times 10^{-19}')
    """
    if not text.isascii():
        runs = [(sign, "".join(map(_latex, run))) for sign, run in itertools.groupby(text, _raised)]
        text = "".join(f"{sign}{{{plain}}}" if sign else plain for sign, plain in runs)
    text = _apply(_PLAIN, text)
    return NUMBER_WORDS.get(text.strip().lower(), text)


def _raised(character: str) -> str:
    """``^`` for a superscript character, ``_`` for a subscript, empty for any other."""
    return _RAISED.get(unicodedata.decomposition(character).partition(" ")[0], "")


def _latex(character: str) -> str:
    """A character in ASCII if possible: fractions, superscripts, full-width characters, digits of other scripts."""
    plain = character if character in _SYMBOLS else unicodedata.normalize("NFKC", character)
    if unicodedata.decomposition(character).startswith("<fraction>") and "⁄" in plain:
        return r"\frac{{{}}}{{{}}}".format(*plain.split("⁄"))
    return "".join(_SYMBOLS.get(c, str(unicodedata.decimal(c, c))) for c in plain)


@lru_cache(maxsize=8192)
def normalise(text: str) -> str:
    r"""One spelling for many. Answers with equal normal forms are the same; with different normal forms, they may be.

    A comma that is left is a separator: ``1,000`` is a number, and ``81, 256`` is a list. Normalising twice changes
    nothing.

    >>> normalise(r"$\dfrac12$"), normalise(r"\frac{1}{2}."), normalise(r"1{,}000"), normalise("1 2")
    ('\\frac{1}{2}', '\\frac{1}{2}', '1000', '1 2')
    >>> normalise("81, 256"), normalise("81,256"), normalise("(81,256)"), normalise("1,000, 2")
    ('81, 256', '81256', '(81, 256)', '1000,2')
    """
    text = _unstyle_groups(_apply(_WRAPPERS, unify(text)))
    return separate(_apply(_LATEX, STYLED.sub(_unstyle_maths, text)))


def separate(text: str) -> str:
    """The text with a blank after each comma that could be taken to group digits: ``81, 256``."""
    return re.sub(r"(?a)(?<=\d)(?<!\b0),(?=\d{3}(?!\d))", ", ", text)


def _unstyle_groups(text: str) -> str:
    r"""Drop the style around content that has braces, such as ``\boldsymbol{\frac{1}{2}}``: it is mathematics."""
    for match in reversed(list(_STYLE.finditer(text))):
        start = match.end()
        close = closing_brace(text, start - 1, len(text))
        if close is not None and "{" in text[start:close]:
            text = f"{text[: match.start()]} {text[start:close]} {text[close + 1 :]}"
    return text


def _unstyle_maths(match: re.Match[str]) -> str:
    r"""Drop the style of numbers and of single letters: they are mathematics. Words and units such as m keep it."""
    content, before = match[1].strip(), match.string[: match.start()]
    if match[1] and not content:
        return " "
    if content in _SHORT_UNITS and _NUMBER_BEFORE.search(before):
        return match[0]
    if _STYLED_MATHS.fullmatch(content):
        return f" {content}" if before[-1:].isalpha() else content  # \circ\text{C} must not become \circC
    return NUMBER_WORDS.get(content.lower(), match[0])


def unstyled(text: str) -> str:
    r"""The normal form without any style, and with one spelling for hours: ``3:00 \text{ p.m.}`` and ``3:00 PM``."""
    return normalise(_CLOCK.sub(lambda match: f" {match[1].lower()}m", STYLED.sub(r" \1 ", text)))


def words(text: str) -> str | None:
    r"""The words of an answer that is only words, or a letter in brackets; None for any other answer.

    They are in lower case. Only a bare word of up to three letters keeps its case: it may be a product of variables.

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
