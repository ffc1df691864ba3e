r"""Multiple choice: the letter that a response answers.

A response is read without looking at the gold, so it has one letter or none, whatever the gold is: a list of letters,
or "A or B", has none. Where the answer stands, a letter that is not the answer's has no place, but in the option's own
words. The time taken grows with the length of the response only.
"""

import re
from collections.abc import Sequence
from string import ascii_uppercase

from progrpo.verify.extract import last_box
from progrpo.verify.math.text import STYLED
from progrpo.verify.thinking import after_thinking
from progrpo.verify.verdict import Verdict

LONGEST_ANSWER = 1000
"""Characters. The longest option of MMLU-Pro has some 700."""

_STATEMENT = re.compile(
    r"\b(?:answer|(?:correct|right|best)\s(?:option|choice))[ \t*_]*(?:is\b[\s*_]*:?|:)[\s*_]*(?P<answer>[^\n]*)",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"\\[()\[\],;:!\\ ]|\\(?:q?quad|left|right)(?![A-Za-z])|[$*`~\"“”]")
_LEAD = re.compile(r"(?:\b(?:the|correct|right|best|final|answer|option|choice|letter|is)\b|[\s:_])*", re.IGNORECASE)
_ARTICLE = r"[AI](?=\s+(?!(?:or|and|nor|but|is|as|not|because|since)\b)[a-z])"
"""An "A" or "I" with a word after it is no letter of an option: "A decrease in pressure"."""
_LETTER = re.compile(rf"[({{\[]\s*([A-Za-z])\s*[)}}\]]|(?<![\w'’])(?!{_ARTICLE})([A-Z])(?![\w'’])")
_MORE_LETTERS = re.compile(
    r"[)}\]]*(?:[\s({\[]*(?:(?:[,;/|&]|\b(?:or|and|nor|possibly|maybe|perhaps)\b)[\s({\[]*)+[a-j]\b[)}\].!?]*)+\s*"
)
"""Small letters are further answers where there is nothing else: "B or c", but not "B, a vitamin"."""
_DENIED = re.compile(
    r"[\s)}\]]*(?:(?:is|was|would be|seems|looks)\s+(?:certainly\s+|definitely\s+|clearly\s+)?"
    r"(?:not|never|wrong|incorrect|false|out|excluded)\b|(?:isn|wasn|can|couldn)['’]t\b|cannot\b)"
)
_ALONE = re.compile(r"[\s({\[]*([A-Za-z])[\s)}\].:]*")


def answered_letter(response: str, options: Sequence[str] = ()) -> str | None:
    r"""The letter that a response answers; None if it answers none, or several.

    It stands in the last ``\boxed{}``, or after the last "Answer:" or "the answer is", whichever comes later, alone or
    with the option's text.

    Args:
        response: the whole response; what stands in its thinking part does not count.
        options: the texts of the options, first A; a letter in the text of the option answered is not a second answer.

    >>> answered_letter(r"Not A. \boxed{\text{(B)}}"), answered_letter("The answer is (C).")
    ('B', 'C')
    >>> answered_letter(r"\boxed{A or B}"), answered_letter("B")
    (None, None)
    >>> answered_letter("Answer: B. Vitamin C"), answered_letter("Answer: B. Vitamin C", ["Zinc", "Vitamin C"])
    (None, 'B')
    """
    letters = _named(response, options)
    return letters[0] if len(letters) == 1 else None


def verify_choice(response: str, letter: str, options: Sequence[str]) -> Verdict:
    r"""Whether a response answers a letter; see :func:`answered_letter`. The canonical form is the letter.

    >>> options = ["2", "3", "5", "7"]
    >>> verify_choice(r"\boxed{C}", "C", options).status, verify_choice(r"\boxed{A}", "C", options).reason
    ('correct', 'the response answers A')
    >>> verify_choice(r"\boxed{E}", "C", options).reason
    'the response answers E, where the options are A to D'
    >>> verify_choice(r"\boxed{B, no, C}", "C", options).reason
    'the response answers several letters: B, C'
    """
    letters = _named(response, options)
    if not letters:
        return Verdict("incorrect", r'the response answers no letter in a \boxed{} or after "Answer:"')
    if len(letters) > 1:
        return Verdict("incorrect", f"the response answers several letters: {', '.join(letters)}")
    if letters[0] not in ascii_uppercase[: len(options)]:
        last = ascii_uppercase[len(options) - 1]
        return Verdict("incorrect", f"the response answers {letters[0]}, where the options are A to {last}")
    if letters[0] != letter:
        return Verdict("incorrect", f"the response answers {letters[0]}")
    return Verdict("correct", canonical=letter)


def _named(response: str, options: Sequence[str]) -> list[str]:
    """The different letters that the answer names, in their order; none if it does not begin with one."""
    answer = _answer(response)
    if answer is None or len(answer) > LONGEST_ANSWER:
        return []
    answer = _plain(answer)
    alone = _ALONE.fullmatch(answer)
    if alone:
        return [alone[1].upper()]
    lead = _LETTER.match(answer)
    if lead is None:
        return []
    letter = _letter(lead)
    rest, place = answer[lead.end() :], ascii_uppercase.index(letter)
    if place < len(options):
        # Twice, as an option with its letter quoted back has been seen; an empty text would take nothing away.
        rest = _squeezed(rest).replace(_squeezed(_plain(options[place])), " ")
    if _DENIED.match(rest):
        return []
    others = re.findall(r"\b[a-j]\b", rest) if _MORE_LETTERS.fullmatch(rest) else map(_letter, _LETTER.finditer(rest))
    return list(dict.fromkeys([letter, *(other.upper() for other in others)]))


def _answer(response: str) -> str | None:
    """What stands where an answer does, the last time."""
    text = after_thinking(response)
    if text is None:
        return None
    statement = None
    for statement in _STATEMENT.finditer(text):  # noqa: B007 - the last one
        pass
    box = last_box(text if statement is None else text[statement.start() :])
    return box if box is not None or statement is None else statement["answer"]


def _plain(text: str) -> str:
    """Without styles, marks, and the words that lead up to a letter."""
    while (bare := STYLED.sub(r" \1 ", text)) != text:
        text = bare
    return _squeezed(_LEAD.sub("", _MARKUP.sub(" ", text), count=1))


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _letter(match: re.Match[str]) -> str:
    return (match[1] or match[2]).upper()
