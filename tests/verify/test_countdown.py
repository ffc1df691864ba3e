"""Countdown's verifier, against a worked example, brute force and hostile texts."""

import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reference import countdown as reference

from progrpo.tasks.countdown import SIZES, random_problem
from progrpo.verify.countdown import apply, check_steps, solutions

fuzz = settings(derandomize=True, deadline=None, max_examples=300, database=None)


def seeded_problems(size: int, count: int) -> list[tuple[list[int], int]]:
    rng = random.Random(size)
    return [random_problem(rng, size)[:2] for _ in range(count)]


@pytest.mark.parametrize(
    ("left", "operator", "right", "result"),
    [
        (3, "+", 4, 7),
        (7, "-", 7, 0),
        (3, "-", 4, None),
        (0, "*", 9, 0),
        (7, "*", 17, 119),
        (10, "*", 12, None),
        (60, "+", 59, 119),
        (60, "+", 60, None),
    ],
)
def test_a_step_gives_a_whole_number_from_0_to_119(left: int, operator: str, right: int, result: int | None) -> None:
    assert apply(left, operator, right) == result


# Solutions against brute force


def test_solutions_worked_by_hand() -> None:
    # 2 + 2 + 2, and 2 * 2 + 2: equal numbers and the order of operands do not give more solutions.
    assert solutions([2, 2, 2], 6) == {"2+2=4,2+4=6", "2*2=4,2+4=6"}
    assert solutions([1, 2, 3], 100) == frozenset()
    assert solutions([5], 5) == {""}


@pytest.mark.parametrize(("size", "count"), [(2, 60), (3, 200), (4, 60), (5, 3)])
def test_solutions_are_the_canonical_forms_of_all_step_sequences(size: int, count: int) -> None:
    for numbers, target in seeded_problems(size, count):
        named: dict[str, Any] = {}
        for steps in reference.step_sequences(numbers, target):
            verdict = check_steps(numbers, target, reference.text(steps))
            assert verdict.correct
            assert verdict.canonical is not None
            # One text for one solution, and one solution for one text.
            assert named.setdefault(verdict.canonical, reference.identity(steps)) == reference.identity(steps)
        assert len(set(named.values())) == len(named)
        assert solutions(numbers, target) == set(named)


def test_a_step_that_could_take_either_of_two_equal_numbers_is_one_solution() -> None:
    # 15 - 3: is 3 the given number or the sum? The steps do not say, so this is one solution and not two.
    texts = ["1 + 2 = 3 , 3 * 5 = 15 , 15 - 3 = 12", "3 * 5 = 15 , 1 + 2 = 3 , 15 - 3 = 12"]
    canonical = {check_steps([1, 2, 3, 5], 12, text).canonical for text in texts}
    assert canonical == {"1+2=3,15-3=12,3*5=15"}
    assert canonical <= solutions([1, 2, 3, 5], 12)


def test_a_different_grouping_is_a_different_solution() -> None:
    left = check_steps([1, 2, 3], 6, "1 + 2 = 3 , 3 + 3 = 6").canonical
    right = check_steps([1, 2, 3], 6, "2 + 3 = 5 , 1 + 5 = 6").canonical
    assert left != right
    assert {left, right} <= solutions([1, 2, 3], 6)


@pytest.mark.parametrize("size", SIZES)
def test_the_order_of_the_numbers_does_not_count(size: int) -> None:
    ((numbers, target),) = seeded_problems(size, 1)
    shuffled = random.Random(0).sample(numbers, size)
    assert solutions(shuffled, target) == solutions(numbers, target) != frozenset()


# The verifier


def test_a_right_response_worked_by_hand() -> None:
    verdict = check_steps([5, 3, 7, 2], 24, "7 - 5 = 2 , 2 * 3 = 6 , 6 * 2 = 12")
    assert verdict.reason == "the last result is 12, not 24"
    assert check_steps([5, 3, 7, 2], 12, "7 - 5 = 2 , 2 * 3 = 6 , 6 * 2 = 12").correct


@pytest.mark.parametrize(
    "response",
    [
        "3+5=8,8*2=16",
        "  3 + 5 = 8 ,\t8*2=16  ",
        "5 + 3 = 8 , 2 * 8 = 16",
        "3 + 5 = 8 ,\n8 * 2 = 16\n",
        # Leading zeros change no number: 003 is 3.
        "003 + 05 = 8 , 8 * 2 = 016",
    ],
)
def test_spaces_and_leading_zeros_and_the_order_of_operands_do_not_count(response: str) -> None:
    verdict = check_steps([5, 3, 2], 16, response)
    assert verdict.correct
    assert verdict.canonical == "2*8=16,3+5=8"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("", "1 steps, where 3 numbers need 2"),
        ("16", "1 steps"),
        ("3 + 5 = 8", "1 steps"),
        ("3 + 5 = 8 , 8 * 2 = 16 , 16 + 0 = 16", "3 steps"),
        ("3 + 5 = 8 , 8 * 2 = 16 ,", "3 steps"),
        (", 3 + 5 = 8 , 8 * 2 = 16", "3 steps"),
        ("3 + 5 = 8 ,", "step 2 is not of the form 'a + b = c'"),
        ("3 + 5 = 8 ; 8 * 2 = 16 ,", "step 1 is not of the form"),
        ("3 + 5 = 8 , 8 * 2 = 16 done", "step 2 is not of the form"),
        ("3 + 5 = 8 , 8 * 2 = 16\x00", "step 2 is not of the form"),
        ("3 + 5 = 8 , 8 * 2 = = 16", "step 2 is not of the form"),
        ("3 + 5 = 8 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("3 + 5 = 8 , 8 * 2\n= 1\n6", "step 2 is not of the form"),
        ("3 / 5 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("3 ** 5 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("(3 + 5) = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("3 + 5 == 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("+3 + 5 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("3 + 5 = +8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("3 - 5 = -2 , 8 * 2 = 16", "step 1 is not of the form"),
        ("-3 + 5 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("3.0 + 5 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("3e0 + 5 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("0x3 + 5 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("0_3 + 5 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("0003 + 5 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("３ + 5 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("٣ + 5 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("³ + 5 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("3 − 5 = 8 , 8 * 2 = 16", "step 1 is not of the form"),
        ("3 + 5 = 8 ， 8 * 2 = 16", "1 steps"),
        ("__import__('os').system('x') , 8 * 2 = 16", "step 1 is not of the form"),
        ("3 + 5 = 8 , eval(16) = 16", "step 2 is not of the form"),
        ("8 * 2 = 16 , 3 + 5 = 8", "step 1 uses 8 * 2, which are not both left"),
        ("3 + 3 = 6 , 5 + 6 = 11", "step 1 uses 3 + 3, which are not both left"),
        ("3 + 5 = 8 , 8 + 8 = 16", "step 2 uses 8 + 8, which are not both left"),
        ("3 + 5 = 8 , 3 * 2 = 6", "step 2 uses 3 * 2, which are not both left"),
        ("4 + 4 = 8 , 8 * 2 = 16", "step 1 uses 4 + 4, which are not both left"),
        ("3 + 5 = 9 , 9 * 2 = 18", "step 1 says 3 + 5 = 9"),
        ("3 + 5 = 8 , 8 * 2 = 15", "step 2 says 8 * 2 = 15"),
        ("3 - 5 = 2 , 8 * 2 = 16", "the result of step 1 is not a whole number from 0 to 119"),
        ("3 + 5 = 8 , 8 + 2 = 10", "the last result is 10, not 16"),
    ],
)
def test_a_wrong_response_is_incorrect_with_its_reason(response: str, reason: str) -> None:
    verdict = check_steps([5, 3, 2], 16, response)
    assert verdict.status == "incorrect"
    assert reason in verdict.reason
    assert verdict.canonical is None
    assert verdict.reward == 0


def test_a_result_above_the_largest_value_is_refused_even_if_the_sum_is_right() -> None:
    assert "from 0 to 119" in check_steps([12, 12, 2], 72, "12 * 12 = 144 , 144 - 72 = 72").reason


def test_a_huge_text_is_refused_without_reading_it() -> None:
    start = time.perf_counter()
    for text in ("9" * 10**7, " " * 10**7, "," * 10**7, "3 + 5 = 8 , " * 10**6):
        verdict = check_steps([5, 3, 2], 16, text)
        assert verdict.status == "incorrect"
        assert verdict.reason.endswith("characters, more than 128")
    assert time.perf_counter() - start < 1


def test_the_longest_text_allowed_is_read_quickly() -> None:
    assert check_steps([5, 3, 2], 16, "3 + 5 = 8 , 8 * 2 = 16".ljust(128)).correct
    assert not check_steps([5, 3, 2], 16, "3 + 5 = 8 , 8 * 2 = 16".ljust(129)).correct


@fuzz
@given(st.text(max_size=200) | st.text("0123456789+-*=, \n", max_size=60))
def test_no_text_makes_the_verifier_fail(response: str) -> None:
    verdict = check_steps([5, 3, 7, 2], 24, response)
    assert verdict.status in ("correct", "incorrect")
    assert bool(verdict.reason) != verdict.correct


@fuzz
@given(st.data())
def test_the_verifier_accepts_exactly_what_brute_force_finds(data: st.DataObject) -> None:
    numbers, target = [5, 3, 2], 16
    number = st.sampled_from([2, 3, 5, 6, 8, 10, 16, 1, 15])
    step = st.tuples(number, st.sampled_from("+-*"), number, number)
    steps = data.draw(st.lists(step, min_size=1, max_size=3))
    expected = steps in list(reference.step_sequences(numbers, target))
    assert check_steps(numbers, target, reference.text(steps)).correct == expected


@pytest.mark.parametrize("size", [3, 4])
def test_a_changed_response_is_right_only_if_brute_force_finds_it(size: int) -> None:
    rng = random.Random(0)
    for numbers, target in seeded_problems(size, 25):
        sequences = list(reference.step_sequences(numbers, target))
        right = {reference.text(steps) for steps in sequences}
        tokens = reference.text(rng.choice(sequences)).split()
        for place, token in enumerate(tokens):
            if token in "=,":
                continue
            others = (
                ["+", "-", "*"] if token in "+-*" else [str(int(token) + 1), str(max(0, int(token) - 1)), "0", "120"]
            )
            for other in others:
                text = " ".join([*tokens[:place], other, *tokens[place + 1 :]])
                assert check_steps(numbers, target, text).correct == (text in right), text
