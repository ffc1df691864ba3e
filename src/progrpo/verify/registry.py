"""The verifiers by name: each takes the golds and the responses, as text, and gives verdicts.

A gold is what a dataset's row knows of the right answer: the answer itself for ``math`` and ``exact``, tests as JSON
for ``code``, the letter and the options as JSON for ``choice``, the numbers and target as JSON for ``countdown``, where
an entry comes from for ``reasoning_gym``. Tasks and the reward functions (:mod:`progrpo.tasks.rewards`)
all go through this table.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from string import ascii_uppercase

from progrpo.tasks.countdown import check_steps
from progrpo.tasks.votes import Equivalent, count_classes
from progrpo.verify import AnswerStyle, Verdict, extract_answer, verify_math_batch
from progrpo.verify import wrong_golds as wrong_math_golds
from progrpo.verify.choice import answered_letter, verify_choice
from progrpo.verify.code.programs import verify_programs, wrong_tests
from progrpo.verify.math.answer import LONGEST_ANSWER
from progrpo.verify.math.text import normalise
from progrpo.verify.reasoning_gym.answers import verify_reasoning_gym, wrong_entries
from progrpo.verify.thinking import after_thinking


@dataclass(frozen=True)
class Verifier:
    """How golds and responses become verdicts."""

    verify: Callable[[Sequence[str], Sequence[str]], list[Verdict]]
    """Of golds and responses."""
    wrong_golds: Callable[[Sequence[str]], list[str]]
    """Why each gold can't be used, empty where it can: asked when a task is loaded."""
    answers: Callable[[Sequence[str], Sequence[str]], list[str | None]] | None = None
    """What each response answers, of golds and responses, in one spelling: its vote. None where a vote makes no
    sense, as for programs."""
    same: Equivalent | None = None
    """Whether answers of different spelling are the same after all; by default they are not."""


def verify(names: Sequence[str], golds: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
    """The verdict on each response, by the verifier at its place.

    >>> [v.status for v in verify(["exact", "exact"], ["a b", "a"], [" a  b", "b"])]
    ['correct', 'incorrect']
    """
    verdicts: dict[int, Verdict] = {}
    for name, places in _by_name(names).items():
        found = VERIFIERS[name].verify([golds[i] for i in places], [responses[i] for i in places])
        verdicts |= zip(places, found, strict=True)
    return [verdicts[i] for i in range(len(names))]


def wrong_golds(names: Sequence[str], golds: Sequence[str]) -> list[str]:
    """Why each gold can't be used by the verifier at its place; empty where it can.

    >>> wrong_golds(["countdown"], ["34"])
    ["the gold '34' has no numbers and target"]
    """
    reasons: dict[int, str] = {}
    for name, places in _by_name(names).items():
        if name not in VERIFIERS:
            found = [f"the verifier {name!r} is not one of {', '.join(VERIFIERS)}"] * len(places)
        else:
            found = VERIFIERS[name].wrong_golds([golds[i] for i in places])
        reasons |= zip(places, found, strict=True)
    return [reasons[i] for i in range(len(names))]


def count_votes(name: str, gold: str, responses: Sequence[str]) -> tuple[list[int], int] | None:
    """How many responses to one problem give each answer, the most frequent first, and how many give none.

    None where the verifier has no answers to count. Answers are the same by the verifier's own equivalence.

    >>> count_votes("math", "4", [r"\\boxed{0.5}", r"\\boxed{\\frac12}", r"\\boxed{3}", "I don't know."])
    ([2, 1], 1)
    """
    verifier = VERIFIERS[name]
    if verifier.answers is None:
        return None
    return count_classes(verifier.answers([gold] * len(responses), responses), verifier.same)


def _by_name(names: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    return places


_NUMBER = r"-?\d+(?:\.\d+)?"
_EQUATION = re.compile(rf"(?<![\d.]){_NUMBER}(?:[-+*/]{_NUMBER})+={_NUMBER}(?!\.?\d)")
_LONGEST_WORKING = 200
_OPERATORS = {r"\times": "*", r"\cdot": "*", r"\div": "/", "×": "*", "·": "*", "÷": "/", "−": "-"}


def verify_working(golds: Sequence[str], responses: Sequence[str], *, style: AnswerStyle) -> list[Verdict]:
    """:func:`progrpo.verify.verify_math_batch`, with the working of a right answer as its canonical form."""
    verdicts = verify_math_batch(responses, golds, style=style)
    return [
        replace(verdict, canonical=working(response) or verdict.canonical) if verdict.correct else verdict
        for verdict, response in zip(verdicts, responses, strict=True)
    ]


def working(response: str) -> str:
    """The equations between numbers in a response, each once, in a fixed order; empty if there is none.

    The order of the equations, and of the terms of a sum or a product, does not count, nor does how it is written.

    >>> working("First 4 + 3 = 7 pens, then 7 \\\\times 2 = 14.")
    '3+4=7,2*7=14'
    >>> working("7 × 2 = $14, as 3+4=7")
    '3+4=7,2*7=14'
    """
    response = " ".join(response.split())
    for written, operator in _OPERATORS.items():
        response = response.replace(written, operator)
    compact = re.sub(r"(?<=\d) ?[x*] ?(?=[\d$])", "*", response.replace("$", "").replace("\\", ""))
    compact = re.sub(r"(?<=\d),(?=\d{3})", "", re.sub(r" ?([-+*/=]) ?", r"\1", compact))
    # Searched piece by piece: in one long row of operators every place would be tried as the beginning.
    pieces = [piece for piece in re.findall(r"[-+*/=.\d]+", compact) if len(piece) <= _LONGEST_WORKING]
    found = {_in_order(equation) for piece in pieces for equation in _EQUATION.findall(piece)}
    return ",".join(sorted(found, key=_by_result))


def _in_order(equation: str) -> str:
    left, _, result = equation.partition("=")
    for operator in "+*":
        terms = left.split(operator)
        if all(re.fullmatch(_NUMBER, term) for term in terms):
            return operator.join(sorted(terms, key=float)) + "=" + result
    return equation


def _by_result(equation: str) -> tuple[float, str]:
    return float(equation.rpartition("=")[2]), equation


def _math_answers(golds: Sequence[str], responses: Sequence[str], *, style: AnswerStyle) -> list[str | None]:
    found = [extract_answer(response, style) for response in responses]
    return [None if answer is None or len(answer) > LONGEST_ANSWER else normalise(answer) or None for answer in found]


def _same_math(a: Sequence[str], b: Sequence[str]) -> list[bool]:
    return [verdict.correct for verdict in verify_math_batch([rf"\boxed{{{answer}}}" for answer in a], b)]


def verify_exact(golds: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
    """A response is right if it is the gold after its thinking part, up to the white space around and within it."""
    verdicts = []
    for gold, response in zip(golds, responses, strict=True):
        text = _text(response)
        right = text == " ".join(gold.split())
        verdicts.append(Verdict("correct", canonical=text) if right else Verdict("incorrect", "is not the gold"))
    return verdicts


def verify_countdown(golds: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
    """Gold: ``{"numbers": [5, 3, 2], "target": 16}``."""
    verdicts = []
    for gold, response in zip(golds, responses, strict=True):
        problem = _countdown_problem(gold)
        wrong = Verdict("error", f"the gold {gold[:80]!r} has no numbers and target")
        verdicts.append(wrong if problem is None else check_steps(*problem, response))
    return verdicts


def _countdown_problem(gold: str) -> tuple[list[int], int] | None:
    try:
        problem = json.loads(gold)
        return [int(n) for n in problem["numbers"]], int(problem["target"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _wrong_countdown(golds: Sequence[str]) -> list[str]:
    return ["" if _countdown_problem(g) else f"the gold {g[:80]!r} has no numbers and target" for g in golds]


def choice_gold(letter: str, options: Sequence[str]) -> str:
    """The gold of a multiple-choice question: ``{"answer": "B", "options": ["...", "..."]}``."""
    return json.dumps({"answer": letter, "options": list(options)})


def verify_choices(golds: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
    """Golds as :func:`choice_gold` writes them."""
    verdicts = []
    for gold, response in zip(golds, responses, strict=True):
        try:
            verdicts.append(verify_choice(response, *_read_choice(gold)))
        except ValueError as error:
            verdicts.append(Verdict("error", str(error)))
    return verdicts


def _read_choice(gold: str) -> tuple[str, list[str]]:
    try:
        value = json.loads(gold)
        letter, options = value["answer"], [str(text) for text in value["options"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"the gold {gold[:80]!r} has no answer and options") from None
    letters = ascii_uppercase[: len(options)]
    if not 2 <= len(options) <= len(ascii_uppercase) or letter not in list(letters):
        raise ValueError(f"the answer {letter!r} is not the letter of one of {len(options)} options")
    return letter, options


def _wrong_choices(golds: Sequence[str]) -> list[str]:
    return [_wrong_choice(gold) for gold in golds]


def _wrong_choice(gold: str) -> str:
    try:
        _read_choice(gold)
    except ValueError as error:
        return str(error)
    return ""


def _chosen(golds: Sequence[str], responses: Sequence[str]) -> list[str | None]:
    return [answered_letter(r, _read_choice(gold)[1]) for gold, r in zip(golds, responses, strict=True)]


def _texts(golds: Sequence[str], responses: Sequence[str]) -> list[str | None]:
    return [_text(response) or None for response in responses]


def _text(response: str) -> str | None:
    answer = after_thinking(response)
    return None if answer is None else " ".join(answer.split())


def _math(style: AnswerStyle) -> Verifier:
    return Verifier(
        partial(verify_working, style=style), wrong_math_golds, partial(_math_answers, style=style), _same_math
    )


def _all_usable(golds: Sequence[str]) -> list[str]:
    return [""] * len(golds)


VERIFIERS: Mapping[str, Verifier] = {
    "math": _math("boxed"),
    "math_answer": _math("answer"),
    "math_last_number": _math("last_number"),
    "math_any": _math("any"),
    "code": Verifier(verify_programs, wrong_tests),
    "choice": Verifier(verify_choices, _wrong_choices, _chosen),
    "exact": Verifier(verify_exact, _all_usable, _texts),
    "countdown": Verifier(verify_countdown, _wrong_countdown),
    "reasoning_gym": Verifier(verify_reasoning_gym, wrong_entries),
}
