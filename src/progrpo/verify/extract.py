r"""The answer in a response: after its thinking part, in the form that the answer style names.

Nothing here evaluates anything, and the time grows only with the length of the text.
"""

import re
from typing import Literal, get_args

from progrpo.verify.thinking import after_thinking

AnswerStyle = Literal["boxed", "answer", "last_number", "any"]
ANSWER_STYLES: tuple[AnswerStyle, ...] = get_args(AnswerStyle)
LONGEST_ANSWER = 1000
"""Characters. The longest gold of the public benchmarks has about 200, the longest option of MMLU-Pro about 700."""

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BRACE_OR_ESCAPE = re.compile(r"\\.|[{}]", re.DOTALL)
_UNBRACED_BOX = re.compile(r"-?\w[\w.,/]*")
_ANSWER_LINE = re.compile(r"(?:\banswer\s*(?:is\s*:?|:)|^####)[ \t*]*(?P<answer>[^\n]*)", re.IGNORECASE | re.MULTILINE)
_ANY_MARKER = re.compile(
    r"(?:\banswer[ \t*_]*(?:is\b[ \t*_]*:?|:)"
    r"|(?:^|(?<=[.!?]\s))[ \t*_]*(?-i:A)[*_]*:"
    # A Markdown heading also begins with ####. So a number or mathematics must follow, and not a numbered step.
    r"|^####(?=[ \t*]*(?:[-−+$£€\\(\[\d.]|[a-z]\b))(?![ \t*]*\d+[.)][ \t]+[a-z*]))"
    r"[ \t*_}]*(?:(?:therefore|thus|then|simply|just|indeed|that|equal to|given by)\b[ \t,:]*)*",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"(?<!\.[A-Za-z])(?<!\b(?:Dr|Mr|Ms|St|Mt))(?<!\bMrs)[.?](?=[\s*_$]|\Z)")
_REASON = re.compile(r",?\s+(?:because|since|as|so|which|where|when|therefore)\b", re.IGNORECASE)
_PROSE = re.compile(r"(?:(?<![\\A-Za-z])[A-Za-z']{2,}[\s,;:]*){3}")
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(?=\S)(.+?)(?<=\S)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_DENIED_BEFORE = re.compile(
    r"(?:(?:\bnot|n['’]t|\bnever)(?:\s+[a-z]+){0,3}|\b(?:more|less|greater|larger|smaller|fewer|other) than|\bor"
    r"|\bbetween(?:\s+\S+\s+and)?)\s+[$£€]*$",
    re.IGNORECASE,
)
"""What stands before a number that is not a sentence's answer: "not equal to 5", "more than 5", "4 or 5"."""
_OTHERS_AFTER = re.compile(r"[\s$)*,]*\bor\b|.{0,40}?\bor (?:maybe|perhaps|possibly)\b", re.IGNORECASE)
_LAST_NUMBER = re.compile(
    r"(?<![\w.])[-−]?"
    r"(?:(?:\d+\s*)?\\[dtc]?frac\s*\{\d+\}\s*\{\d+\}"
    r"|(?:\d{1,3}(?:(?:,|\{,\}|,?\\[!,]|\\!,)\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?"
    r"(?:[eE][-+]?\d+(?!\w)|\s*(?:\\times|\\cdot|[×·*])\s*10\s*\^\s*(?:\{[-−+]?\d+\}|[-−+]?\d+)|\s*/\s*\d+)?)",
    re.ASCII,
)


def extract_answer(text: str, style: AnswerStyle = "boxed") -> str | None:
    r"""The answer as it stands in a response, after its thinking part; None if there is none.

    Args:
        text: the whole response.
        style: ``"boxed"``: the content of the last balanced ``\boxed{}`` or ``\fbox{}``; ``"answer"``: what follows the
            last ``Answer:``, ``the answer is`` or ``####``, up to the end of its line; ``"last_number"``: the last
            number; ``"any"``, for responses to other people's prompts: the last box; without a box, what follows the
            last ``####``, ``the answer is``, ``Final answer:``, ``Answer:`` or ``A:``, up to the end of its sentence or
            line; without any of these, the last number.

    Raises:
        ValueError: an unknown style.

    >>> extract_answer(r"First \boxed{1}, but then \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    >>> extract_answer("The answer is 5.", "answer"), extract_answer("3 pens and 4 cups: 7.", "last_number")
    ('5', '7')
    >>> [extract_answer(text, "any") for text in (r"\boxed{5} is it.", "Q: 2 + 3?\nA: 5. Q: 6?", "I have 5 pens.")]
    ['5', '5', '5']
    """
    if style not in ANSWER_STYLES:
        raise ValueError(f"style must be one of {', '.join(ANSWER_STYLES)}, got {style!r}.")
    answer = after_thinking(text)
    if answer is None:
        return None
    if style == "any":
        return _any_answer(answer)
    if style == "boxed":
        return last_box(answer)
    if style == "last_number":
        return _last_number(answer)
    lines = _ANSWER_LINE.findall(answer)
    return _bare(lines[-1]) if lines else None


def _last_number(text: str) -> str | None:
    return next(reversed(_LAST_NUMBER.findall(text)), None)


def _any_answer(text: str) -> str | None:
    """The answer in the strictest form that the text has."""
    boxed = last_box(text)
    if boxed:
        return boxed
    for marker in reversed(list(_ANY_MARKER.finditer(text))):
        line = text[marker.end() : marker.end() + LONGEST_ANSWER + 1].partition("\n")[0]  # too long stays too long
        if answer := _stated(line):
            return answer
    # An empty box is the answer of a response; a number elsewhere is not.
    return _last_number(text) if boxed is None else boxed


def _stated(line: str) -> str | None:
    """The answer that a line states. In a whole sentence, it is the formula or number at the beginning, or the last."""
    end = _SENTENCE_END.search(line)
    sentence = _bare(line[: end.start()] if end else line)
    if sentence is None:
        return None
    sentence = _REASON.split(sentence, maxsplit=1)[0]
    values = list(_FORMULA.finditer(sentence)) or list(_LAST_NUMBER.finditer(sentence))
    if not values or not _PROSE.search(sentence):
        return sentence
    value = values[-1] if sentence[: values[0].start()].strip("$£€") else values[0]
    before, after = sentence[: value.start()], sentence[value.end() :]
    if _DENIED_BEFORE.search(before) or _OTHERS_AFTER.match(after):
        return sentence
    return next(filter(None, value.groups()), value[0])


def _bare(line: str) -> str | None:
    """The answer on a line, without the box or the marks around it."""
    boxed = last_box(line)
    return boxed if boxed is not None else line.strip().strip("*").strip().removesuffix(".").strip() or None


def last_box(text: str) -> str | None:
    r"""The content of the last box whose braces balance. ``\boxed 5`` without braces is a box as well.

    >>> last_box(r"\boxed{\{1, 2\}}"), last_box(r"\boxed{1} \boxed{2")
    ('\\{1, 2\\}', '1')
    """
    end = len(text)
    for match in reversed(list(_BOX.finditer(text))):
        start = match.end()
        if text.startswith("{", start):
            if (close := closing_brace(text, start, end)) is not None:
                return text[start + 1 : close].strip()
        elif bare := _UNBRACED_BOX.match(text, start, end):
            return bare[0].rstrip(".,")
        end = start  # a box ends before the next one begins; otherwise many open boxes would take forever
    return None


def closing_brace(text: str, start: int, end: int) -> int | None:
    """The place of the brace that closes the one at ``start``; None if there is none before ``end``."""
    depth = 0
    for match in _BRACE_OR_ESCAPE.finditer(text, start, end):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None
