"""The table of verifiers: verdicts, golds that cannot be used, and votes."""

from collections.abc import Sequence

import pytest

from progrpo.verify import CallTests
from progrpo.verify.choice import choice_gold
from progrpo.verify.code.programs import gold_of
from progrpo.verify.registry import VERIFIERS, count_classes, count_votes, verify, wrong_golds


def test_exact_is_up_to_white_space() -> None:
    verdicts = verify(["exact"] * 4, ["a b"] * 4, [" a\n b ", "ab", "a b c", ""])
    assert [v.correct for v in verdicts] == [True, False, False, False]
    assert verdicts[0].canonical == "a b"


def test_each_verdict_comes_from_the_verifier_at_its_place() -> None:
    countdown = '{"numbers": [2, 3, 5], "target": 16}'
    names = ["exact", "countdown", "exact", "countdown"]
    golds = ["a", countdown, "b", "{}"]
    verdicts = verify(names, golds, ["a", "3 + 5 = 8 , 8 * 2 = 16", "a", "3 + 5 = 8"])
    assert [v.status for v in verdicts] == ["correct", "correct", "incorrect", "error"]


@pytest.mark.parametrize(
    ("verifier", "gold"),
    [
        ("countdown", "16"),
        ("countdown", "[" * 100_000),
        ("countdown", '{"numbers": [1, 2], "target": Infinity}'),
        ("code", "[]"),
        ("code", '{"kind": "magic"}'),
        ("code", '{"kind": "stdin"}'),
        ("reasoning_gym", '{"dataset": "countdown"}'),
        ("reasoning_gym", "7"),
        ("math", r"\frac{1}{"),
        ("math", " "),
        ("unheard of", "7"),
    ],
)
def test_an_unusable_gold_is_reported_before_training(verifier: str, gold: str) -> None:
    good = {"countdown": '{"numbers": [1, 2], "target": 3}', "math": "7"}.get(verifier, gold)
    reasons = wrong_golds([verifier, verifier], [gold, good])
    assert reasons[0]
    assert (reasons[1] == "") == (verifier in ("countdown", "math"))
    if verifier in VERIFIERS:  # during training, this is the verifier's failure and not the response's
        assert verify([verifier], [gold], [r"\boxed{7} <answer>7</answer> ```python\n```"])[0].status == "error"


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
