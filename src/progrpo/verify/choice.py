r"""Multiple choice: the letter that a response answers.

A response is read without its gold. So it answers one letter or none, whatever the gold is: a list of letters, or
"A or B", is not an answer. The text of the answered option may contain further letters; the rest of an answer may not.
The time grows only with the length of the response.
"""

import json
import re
from collections.abc import Sequence
from string import ascii_uppercase

from progrpo.verify.extract import LONGEST_ANSWER, last_box
from progrpo.verify.math.text import STYLED
from progrpo.verify.thinking import after_thinking
from progrpo.verify.verdict import Verdict

_STATEMENT = re.compile(
    r"\b(?:answer|(?:correct|right|best)\s(?:option|choice))[ \t*_]*(?:is\b[\s*_]*:?|:)[\s*_]*(?P<answer>[^\n]*)",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"\\[()\[\],;:!\\ ]|\\(?:q?quad|left|right)(?![A-Za-z])|[$*`~\"“”]")
_LEAD = re.compile(r"(?:\b(?:the|correct|right|best|final|answer|option|choice|letter|is)\b|[\s:_])*", re.IGNORECASE)
_ARTICLE = r"[AI](?=\s+(?!(?:or|and|nor|but|is|as|not|because|since)\b)[a-z])"
"""An "A" or "I" before a word is not the letter of an option: "A decrease in pressure"."""
_LETTER = re.compile(rf"[({{\[]\s*([A-Za-z])\s*[)}}\]]|(?<![\w'’])(?!{_ARTICLE})([A-Z])(?![\w'’])")
_MORE_LETTERS = re.compile(
    r"[)}\]]*(?:[\s({\[]*(?:(?:[,;/|&]|\b(?:or|and|nor|possibly|maybe|perhaps)\b)[\s({\[]*)+[a-j]\b[)}\].!?]*)+\s*"
)
"""Lower-case letters are further answers if nothing else follows: "B or c", but not "B, a vitamin"."""
_DENIED = re.compile(
    r"[\s)}\]]*(?:(?:is|was|would be|seems|looks)\s+(?:certainly\s+|definitely\s+|clearly\s+)?"
    r"(?:not|never|wrong|incorrect|false|out|excluded)\b|(?:isn|wasn|can|couldn)['’]t\b|cannot\b)"
)
_ALONE = re.compile(r"[\s({\[]*([A-Za-z])[\s)}\].:]*")


def answered_letter(response: str, options: Sequence[str] = ()) -> str | None:
    r"""The letter that a response answers; None if it answers none, or several.

    The letter stands in the last ``\boxed{}``, or after the last "Answer:" or "the answer is", whichever comes later,
    alone or with the option's text. A letter in that text is not a second answer if ``options`` has the text.

    >>> answered_letter(r"Not A. \boxed{\text{(B)}}"), answered_letter("The answer is (C).")
    ('B', 'C')
    >>> answered_letter(r"\boxed{A or B}"), answered_letter("B")
    (None, None)
    >>> answered_letter("Answer: B. Vitamin C"), answered_letter("Answer: B. Vitamin C", ["Zinc", "Vitamin C"])
    (None, 'B')
    """
    letters = _letters(response, options)
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
    letters = _letters(response, options)
    known = ascii_uppercase[: len(options)]
    if letters == [letter]:
        return Verdict("correct", canonical=letter)
    if not letters:
        return Verdict("incorrect", r'the response answers no letter in a \boxed{} or after "Answer:"')
    if len(letters) > 1:
        return Verdict("incorrect", f"the response answers several letters: {', '.join(letters)}")
    beyond = "" if letters[0] in known else f", where the options are A to {known[-1]}"
    return Verdict("incorrect", f"the response answers {letters[0]}{beyond}")


def choice_gold(letter: str, options: Sequence[str]) -> str:
    """The gold of a multiple-choice question: ``{"answer": "B", "options": ["...", "..."]}``."""
    return json.dumps({"answer": letter, "options": list(options)})


def read_choice(gold: str) -> tuple[str, list[str]]:
    """The letter and the options of a gold; a ValueError if it lacks them, or the letter is not that of an option."""
    try:
        value = json.loads(gold)
        letter, options = value["answer"], [str(text) for text in value["options"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"the gold {gold[:80]!r} has no answer and options") from None
    if not 2 <= len(options) <= len(ascii_uppercase) or letter not in list(ascii_uppercase[: len(options)]):
        raise ValueError(f"the answer {letter!r} is not the letter of one of {len(options)} options")
    return letter, options


def _letters(response: str, options: Sequence[str]) -> list[str]:
    """The different letters that the last answer names, in order; empty if it does not begin with a letter."""
    text = after_thinking(response) or ""
    statements = list(_STATEMENT.finditer(text))
    answer = last_box(text[statements[-1].start() :] if statements else text)
    if answer is None and statements:
        answer = statements[-1]["answer"]
    if answer is None or len(answer) > LONGEST_ANSWER:
        return []
    answer = _plain(answer)
    if alone := _ALONE.fullmatch(answer):
        return [alone[1].upper()]
    lead = _LETTER.match(answer)
    if lead is None:
        return []
    letter, rest = (lead[1] or lead[2]).upper(), answer[lead.end() :]
    quoted = _plain(dict(zip(ascii_uppercase, options, strict=False)).get(letter, ""))
    if quoted:
        rest = rest.replace(quoted, " ")
    if _DENIED.match(rest):
        return []
    more = re.findall(r"\b[a-j]\b", rest) if _MORE_LETTERS.fullmatch(rest) else map("".join, _LETTER.findall(rest))
    return list(dict.fromkeys(other.upper() for other in (letter, *more)))


def _plain(text: str) -> str:
    """The text without styles, marks, and the words that lead up to a letter."""
    while (bare := STYLED.sub(r" \1 ", text)) != text:
        text = bare
    return " ".join(_LEAD.sub("", _MARKUP.sub(" ", text), count=1).split())
