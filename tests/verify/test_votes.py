from collections.abc import Sequence

import pytest

from progrpo.verify import CallTests
from progrpo.verify.choice import choice_gold
from progrpo.verify.code.programs import gold_of
from progrpo.verify.registry import count_votes
from progrpo.verify.votes import count_classes


def test_classes_and_no_answers() -> None:
    assert count_classes(["a", "b", "a", None, "c"]) == ([2, 1, 1], 1)
    assert count_classes([]) == ([], 0)
    assert count_classes([None, None]) == ([], 2)


def test_an_answer_that_equals_two_classes_joins_the_larger() -> None:
    def close(a: Sequence[str], b: Sequence[str]) -> list[bool]:
        return [abs(float(x) - float(y)) <= 1 for x, y in zip(a, b, strict=True)]

    assert count_classes(["0", "2", "2", "2", "1"], close) == ([4, 1], 0)


def test_each_pair_of_spellings_is_compared_once() -> None:
    compared: list[tuple[str, str]] = []

    def never(a: Sequence[str], b: Sequence[str]) -> list[bool]:
        compared.extend(zip(a, b, strict=True))
        return [False] * len(a)

    count_classes(["a", "b", "c", "a", None], never)
    assert sorted(tuple(sorted(pair)) for pair in compared) == [("a", "b"), ("a", "c"), ("b", "c")]


def test_mathematical_answers_are_equal_by_the_verifier() -> None:
    boxed = [
        r"\frac12",
        "0.5",
        r"\dfrac{1}{2}",
        "50\\%",
        r"\sqrt{2}/2",
        r"\frac{1}{\sqrt2}",
        "x=3",
        "3",
        r"\text{none}",
    ]
    responses = [rf"So \boxed{{{answer}}}." for answer in boxed]
    votes, none = count_votes("math", "7", [*responses, "no box", r"\boxed{}"]) or ([], 0)
    assert none == 2
    assert votes == [4, 2, 2, 1]


def test_the_style_of_the_verifier_reads_the_votes() -> None:
    assert count_votes("math_answer", "7", ["Answer: 2", "Answer: 2.0", r"\boxed{2}"]) == ([2], 1)
    assert count_votes("math_last_number", "7", ["2 + 3 = 5", "It is 5."]) == ([2], 0)


def test_letters_and_texts() -> None:
    gold = choice_gold("A", ["one", "two", "three"])
    assert count_votes("choice", gold, [r"\boxed{B}", "The answer is (B).", r"\boxed{C}", r"\boxed{B, C}"]) == (
        [2, 1],
        1,
    )
    assert count_votes("exact", "x", ["a  b", "a b", " "]) == ([2], 1)


@pytest.mark.parametrize("verifier", ["code", "countdown", "reasoning_gym"])
def test_there_is_no_vote_over_programs(verifier: str) -> None:
    assert count_votes(verifier, gold_of(CallTests("f", (([1], 2),))), ["x"]) is None
