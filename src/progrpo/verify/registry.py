"""The verifiers by name: each takes golds and responses, as text, and gives verdicts.

A gold is what a dataset's row says about the right answer. It is the answer itself for ``math`` and ``exact``, and JSON
for the others: the tests for ``code``, the letter and the options for ``choice``, the numbers and the target for
``countdown``, the dataset and index of a problem for ``reasoning_gym``. Tasks and reward functions use this table.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from progrpo.verify.choice import answered_letter, read_choice, verify_choice
from progrpo.verify.code.programs import read_gold, verify_programs
from progrpo.verify.countdown import check_steps, read_problem
from progrpo.verify.extract import LONGEST_ANSWER, AnswerStyle, extract_answer
from progrpo.verify.math.answer import verify_math_batch
from progrpo.verify.math.answer import wrong_golds as wrong_math_golds
from progrpo.verify.math.text import normalise
from progrpo.verify.math.working import working
from progrpo.verify.reasoning_gym.answers import read_entry, verify_reasoning_gym
from progrpo.verify.thinking import after_thinking
from progrpo.verify.verdict import Verdict

_Result = TypeVar("_Result")
Equivalent = Callable[[Sequence[str], Sequence[str]], list[bool]]
"""Whether each answer of the first list is the same as the answer at the same index of the second."""


@dataclass(frozen=True)
class Verifier:
    """How golds and responses become verdicts.

    Attributes:
        verify: the verdicts, from golds and responses.
        wrong_golds: why each gold cannot be used; empty if it can. A task calls this when it is loaded.
        answer: the answer in one spelling, from a gold and a response; missing if votes make no sense, as for programs.
        same: whether answers of different spelling are the same. By default, they are not.
    """

    verify: Callable[[Sequence[str], Sequence[str]], list[Verdict]]
    wrong_golds: Callable[[Sequence[str]], list[str]]
    answer: Callable[[str, str], str | None] | None = None
    same: Equivalent | None = None


def verify(names: Sequence[str], golds: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
    """The verdict on each response, by the verifier at the same index.

    >>> [v.status for v in verify(["exact", "exact"], ["a b", "a"], [" a  b", "b"])]
    ['correct', 'incorrect']
    """
    return _by_verifier(names, lambda name, *rows: VERIFIERS[name].verify(*rows), golds, responses)


def wrong_golds(names: Sequence[str], golds: Sequence[str]) -> list[str]:
    """For each gold, why the verifier at the same index cannot use it; empty if it can.

    >>> wrong_golds(["countdown"], ["34"])
    ["the gold '34' has no numbers and target"]
    """

    def reasons(name: str, golds: list[str]) -> list[str]:
        if name not in VERIFIERS:
            return [f"the verifier {name!r} is not one of {', '.join(VERIFIERS)}"] * len(golds)
        return VERIFIERS[name].wrong_golds(golds)

    return _by_verifier(names, reasons, golds)


def count_votes(name: str, gold: str, responses: Sequence[str]) -> tuple[list[int], int] | None:
    """How many responses to one problem give each answer, the most frequent first, and how many give none.

    Answers are the same by the verifier's own equivalence. The result is None for a verifier without answers to count.

    >>> count_votes("math", "4", [r"\\boxed{0.5}", r"\\boxed{\\frac12}", r"\\boxed{3}", "I don't know."])
    ([2, 1], 1)
    """
    verifier = VERIFIERS[name]
    if verifier.answer is None:
        return None
    return count_classes([verifier.answer(gold, response) for response in responses], verifier.same)


def count_classes(answers: Sequence[str | None], same: Equivalent | None = None) -> tuple[list[int], int]:
    """How many votes each answer has, the most frequent first, and how many responses give no answer (None).

    An answer joins the largest class whose first answer it equals. This matters if ``same`` is not transitive, as for
    decimals that are close to several others. Without ``same``, answers of different spelling differ.

    >>> count_classes(["1/2", "0.5", None, "3", "1/2"], lambda a, b: [eval(x) == eval(y) for x, y in zip(a, b)])
    ([3, 1], 1)
    """
    votes = Counter(answer for answer in answers if answer is not None)
    distinct = [answer for answer, _ in votes.most_common()]
    pairs = [(later, earlier) for i, later in enumerate(distinct) for earlier in distinct[:i]]
    verdicts = same([a for a, _ in pairs], [b for _, b in pairs]) if same else [False] * len(pairs)
    are_same = {pair for pair, is_same in zip(pairs, verdicts, strict=True) if is_same}
    classes: dict[str, int] = {}
    for answer in distinct:
        head = next((head for head in classes if (answer, head) in are_same), answer)
        classes[head] = classes.get(head, 0) + votes[answer]
    return sorted(classes.values(), reverse=True), len(answers) - votes.total()


def _by_verifier(names: Sequence[str], run: Callable[..., Sequence[_Result]], *columns: Sequence[str]) -> list[_Result]:
    """Call ``run`` for each verifier with its rows of the columns, and return all results in the order of the names."""
    results: dict[int, _Result] = {}
    for verifier in dict.fromkeys(names):
        places = [i for i, name in enumerate(names) if name == verifier]
        rows = [[column[i] for i in places] for column in columns]
        results |= zip(places, run(verifier, *rows), strict=True)
    return [results[i] for i in range(len(names))]


# -- The parts of the table --------------------------------------------------------------------------------------------


def _unreadable(read: Callable[[str], Any]) -> Callable[[Sequence[str]], list[str]]:
    """A function that says for each gold why ``read`` refuses it; empty if it does not."""

    def reason(gold: str) -> str:
        try:
            read(gold)
        except ValueError as error:
            return str(error)
        return ""

    return lambda golds: list(map(reason, golds))


def _one_by_one(
    read: Callable[[str], tuple[Any, ...]],
    check: Callable[..., Verdict],
    answer: Callable[[str, str], str | None] | None = None,
) -> Verifier:
    """A verifier of single responses: ``check`` takes a response and the parts that ``read`` finds in its gold."""

    def verify_one(gold: str, response: str) -> Verdict:
        try:
            parts = read(gold)
        except ValueError as error:
            return Verdict("error", str(error))
        return check(response, *parts)

    return Verifier(lambda golds, responses: list(map(verify_one, golds, responses)), _unreadable(read), answer)


def _math(style: AnswerStyle) -> Verifier:
    def verify_math(golds: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        """The canonical form of a right answer is its working, so that two ways to an answer are two solutions."""
        verdicts = verify_math_batch(responses, golds, style=style)
        return [
            replace(verdict, canonical=working(response) or verdict.canonical) if verdict.correct else verdict
            for verdict, response in zip(verdicts, responses, strict=True)
        ]

    def answer(gold: str, response: str) -> str | None:
        answer = extract_answer(response, style) or ""
        return (normalise(answer) or None) if len(answer) <= LONGEST_ANSWER else None

    return Verifier(verify_math, wrong_math_golds, answer, _same_math)


def _same_math(first: Sequence[str], second: Sequence[str]) -> list[bool]:
    return [verdict.correct for verdict in verify_math_batch([rf"\boxed{{{answer}}}" for answer in first], second)]


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
    "code": Verifier(verify_programs, _unreadable(read_gold)),
    "choice": _one_by_one(
        read_choice, verify_choice, lambda gold, response: answered_letter(response, read_choice(gold)[1])
    ),
    "exact": _one_by_one(lambda gold: (gold,), _check_text, lambda gold, response: _text(response) or None),
    "countdown": _one_by_one(read_problem, lambda response, numbers, target: check_steps(numbers, target, response)),
    "reasoning_gym": Verifier(verify_reasoning_gym, _unreadable(read_entry)),
}
