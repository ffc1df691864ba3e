"""The verifiers by name: each takes golds and responses, as text, and gives verdicts.

A gold is what a dataset's row says about the right answer. It is the answer itself for ``math`` and ``exact``, and JSON
for the others: the tests for ``code``, the letter and the options for ``choice``, the numbers and the target for
``countdown``, the dataset and index of a problem for ``reasoning_gym``. Tasks and reward functions use this table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from progrpo.verify.choice import answered_letter, read_choice, verify_choice
from progrpo.verify.code.programs import read_gold, verify_programs
from progrpo.verify.countdown import check_steps, read_problem
from progrpo.verify.extract import LONGEST_ANSWER, AnswerStyle, extract_answer
from progrpo.verify.math.answer import verify_math_batch
from progrpo.verify.math.answer import wrong_golds as wrong_math_golds
from progrpo.verify.math.text import normalise
from progrpo.verify.math.working import verify_working
from progrpo.verify.reasoning_gym.answers import read_entry, verify_reasoning_gym
from progrpo.verify.thinking import after_thinking
from progrpo.verify.verdict import Verdict
from progrpo.verify.votes import Equivalent, count_classes

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Verifier:
    """How golds and responses become verdicts.

    Attributes:
        verify: the verdicts, from golds and responses.
        wrong_golds: why each gold cannot be used; empty if it can. A task calls this when it is loaded.
        answers: the answer of each response in one spelling, from golds and responses; None for no answer. This
            function is missing if votes make no sense, as for programs.
        same: whether answers of different spelling are the same. By default, they are not.
    """

    verify: Callable[[Sequence[str], Sequence[str]], list[Verdict]]
    wrong_golds: Callable[[Sequence[str]], list[str]]
    answers: Callable[[Sequence[str], Sequence[str]], Sequence[str | None]] | None = None
    same: Equivalent | None = None


def verify(names: Sequence[str], golds: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
    """The verdict on each response, by the verifier at the same index.

    >>> [v.status for v in verify(["exact", "exact"], ["a b", "a"], [" a  b", "b"])]
    ['correct', 'incorrect']
    """
    return _by_verifier(
        names, lambda name, places: VERIFIERS[name].verify([golds[i] for i in places], [responses[i] for i in places])
    )


def wrong_golds(names: Sequence[str], golds: Sequence[str]) -> list[str]:
    """For each gold, why the verifier at the same index cannot use it; empty if it can.

    >>> wrong_golds(["countdown"], ["34"])
    ["the gold '34' has no numbers and target"]
    """

    def reasons(name: str, places: list[int]) -> list[str]:
        if name not in VERIFIERS:
            return [f"the verifier {name!r} is not one of {', '.join(VERIFIERS)}"] * len(places)
        return VERIFIERS[name].wrong_golds([golds[i] for i in places])

    return _by_verifier(names, reasons)


def count_votes(name: str, gold: str, responses: Sequence[str]) -> tuple[list[int], int] | None:
    """How many responses to one problem give each answer, the most frequent first, and how many give none.

    Answers are the same by the verifier's own equivalence. The result is None for a verifier without answers to count.

    >>> count_votes("math", "4", [r"\\boxed{0.5}", r"\\boxed{\\frac12}", r"\\boxed{3}", "I don't know."])
    ([2, 1], 1)
    """
    verifier = VERIFIERS[name]
    if verifier.answers is None:
        return None
    return count_classes(verifier.answers([gold] * len(responses), responses), verifier.same)


def _by_verifier(names: Sequence[str], run: Callable[[str, list[int]], Sequence[_Result]]) -> list[_Result]:
    """Call ``run`` for each verifier with the places of its name, and return all results in the order of the names."""
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    results = {i: result for name in places for i, result in zip(places[name], run(name, places[name]), strict=True)}
    return [results[i] for i in range(len(names))]


# -- The parts of the table --------------------------------------------------------------------------------------------

_ReadGold = Callable[[str], tuple[Any, ...]]
"""Takes a gold apart, or raises a ValueError that says why the gold cannot be used."""


def _unreadable(read: Callable[[str], Any], golds: Sequence[str]) -> list[str]:
    """For each gold, why ``read`` refuses it; empty if it does not."""
    reasons = []
    for gold in golds:
        try:
            read(gold)
            reasons.append("")
        except ValueError as error:
            reasons.append(str(error))
    return reasons


def _one_by_one(
    read: _ReadGold, check: Callable[..., Verdict], answer: Callable[..., str | None] | None = None
) -> Verifier:
    """A verifier of single responses: ``check`` and ``answer`` take a response and the parts of its gold."""

    def verify_each(golds: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        return [
            Verdict("error", reason) if reason else check(response, *read(gold))
            for gold, response, reason in zip(golds, responses, _unreadable(read, golds), strict=True)
        ]

    def answer_each(golds: Sequence[str], responses: Sequence[str]) -> list[str | None]:
        assert answer is not None
        return [answer(response, *read(gold)) for gold, response in zip(golds, responses, strict=True)]

    return Verifier(verify_each, partial(_unreadable, read), answer_each if answer else None)


def _math(style: AnswerStyle) -> Verifier:
    return Verifier(
        partial(verify_working, style=style), wrong_math_golds, partial(_math_answers, style=style), _same_math
    )


def _math_answers(golds: Sequence[str], responses: Sequence[str], *, style: AnswerStyle) -> list[str | None]:
    answers = [extract_answer(response, style) or "" for response in responses]
    return [(normalise(answer) or None) if len(answer) <= LONGEST_ANSWER else None for answer in answers]


def _same_math(first: Sequence[str], second: Sequence[str]) -> list[bool]:
    verdicts = verify_math_batch([rf"\boxed{{{answer}}}" for answer in first], second)
    return [verdict.correct for verdict in verdicts]


def _check_text(response: str, gold: str) -> Verdict:
    """A response is right if the text after its thinking part is the gold, up to the amount of white space."""
    text = _text(response)
    is_right = text == " ".join(gold.split())
    return Verdict("correct", canonical=text) if is_right else Verdict("incorrect", "is not the gold")


def _text(response: str) -> str | None:
    answer = after_thinking(response)
    return None if answer is None else " ".join(answer.split())


VERIFIERS: Mapping[str, Verifier] = {
    "math": _math("boxed"),
    "math_answer": _math("answer"),
    "math_last_number": _math("last_number"),
    "math_any": _math("any"),
    "code": Verifier(verify_programs, partial(_unreadable, read_gold)),
    "choice": _one_by_one(
        read_choice, verify_choice, lambda response, letter, options: answered_letter(response, options)
    ),
    "exact": _one_by_one(lambda gold: (gold,), _check_text, lambda response, gold: _text(response) or None),
    "countdown": _one_by_one(read_problem, lambda response, numbers, target: check_steps(numbers, target, response)),
    "reasoning_gym": Verifier(verify_reasoning_gym, partial(_unreadable, read_entry)),
}
