import random
import time
from functools import cache
from itertools import combinations_with_replacement, permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reference import countdown as reference

from progrpo.common.errors import ConfigError
from progrpo.tasks import Countdown
from progrpo.tasks.countdown import (
    MAX_NUMBER,
    MAX_VALUE,
    PROBLEMS,
    SIZES,
    apply,
    check_steps,
    is_heldout,
    prompt_text,
    random_problem,
    solutions,
    steps_text,
)

fuzz = settings(derandomize=True, deadline=None, max_examples=300, database=None)


HELDOUT_OF_60 = ["2 3 10 : 36 ;", "10 5 5 : 0 ;", "5 5 1 : 10 ;", "8 9 6 : 57 ;", "8 5 8 : 11 ;"]


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
    # 2 + 2 + 2, and 2 * 2 + 2: the equal numbers and the order of operands make no further ones.
    assert solutions([2, 2, 2], 6) == {"2+2=4,2+4=6", "2*2=4,2+4=6"}
    assert solutions([1, 2, 3], 100) == frozenset()
    assert solutions([5], 5) == {""}


@pytest.mark.parametrize(("size", "count"), [(2, 60), (3, 200), (4, 60), (5, 3)])
def test_solutions_are_what_the_verifier_says_of_every_step_sequence(size: int, count: int) -> None:
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
    # 15 - 3: is 3 the given one or the sum? The steps don't say, so there is one solution and not two.
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
def test_what_the_verifier_accepts_is_a_sequence_that_brute_force_finds(data: st.DataObject) -> None:
    numbers, target = [5, 3, 2], 16
    number = st.sampled_from([2, 3, 5, 6, 8, 10, 16, 1, 15])
    step = st.tuples(number, st.sampled_from("+-*"), number, number)
    steps = data.draw(st.lists(step, min_size=1, max_size=3))
    expected = steps in list(reference.step_sequences(numbers, target))
    assert check_steps(numbers, target, reference.text(steps)).correct == expected


@pytest.mark.parametrize("size", [3, 4])
def test_a_right_response_with_one_number_or_operator_changed_is_right_only_if_brute_force_says_so(size: int) -> None:
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


# Problems


@pytest.mark.parametrize("size", SIZES)
def test_the_budget_of_a_response_is_what_a_right_one_needs(size: int) -> None:
    _, _, steps = random_problem(random.Random(0), size)
    assert Countdown(numbers=size).max_response_tokens == len(steps_text(steps).split()) + 1


@pytest.mark.parametrize("size", SIZES)
def test_a_random_problem_comes_with_a_solution(size: int) -> None:
    rng = random.Random(0)
    for _ in range(200):
        numbers, target, steps = random_problem(rng, size)
        assert len(numbers) == size
        assert all(1 <= number <= MAX_NUMBER for number in numbers)
        assert 0 <= target <= MAX_VALUE
        assert check_steps(numbers, target, steps_text(steps)).correct


def test_prompt_and_steps_read_as_documented() -> None:
    assert prompt_text([5, 3, 7, 2], 24) == "5 3 7 2 : 24 ;"
    assert steps_text([(7, "-", 5, 2), (2, "*", 3, 6)]) == "7 - 5 = 2 , 2 * 3 = 6"


def test_a_problem_is_held_out_whatever_the_order_of_its_numbers() -> None:
    rng = random.Random(0)
    problems = seeded_problems(4, 2000)
    for numbers, target in problems:
        assert is_heldout(rng.sample(numbers, 4), target) == is_heldout(numbers, target)
    assert 0.08 < sum(is_heldout(*problem) for problem in problems) / len(problems) < 0.12


def test_the_split_stays_as_it_was() -> None:
    # The shipped model never saw the held-out problems of this split: changing it would leak them.
    heldout = [problem for problem in seeded_problems(3, 60) if is_heldout(*problem)]
    assert [prompt_text(*problem) for problem in heldout] == HELDOUT_OF_60


@pytest.mark.parametrize("size", SIZES)
def test_training_and_heldout_problems_share_nothing_whatever_the_seed(size: int) -> None:
    heldout = {p["problem_id"] for p in Countdown(numbers=size, heldout_size=60).heldout_problems()}
    for seed in range(3):
        train = {p["problem_id"] for p in Countdown(numbers=size, train_size=300, seed=seed).train_problems()}
        assert len(train) == 300
        assert not train & heldout
    assert len(heldout) == 60
    assert all(sorted(i.split(" : ")[0].split(), key=int) == i.split(" : ")[0].split() for i in heldout)


def test_problems_are_the_same_every_time_and_others_for_another_seed() -> None:
    first = Countdown(train_size=50, heldout_size=20, seed=1)
    again, other = Countdown(train_size=50, heldout_size=20, seed=1), Countdown(train_size=50, heldout_size=20, seed=2)
    assert first.train_problems() == again.train_problems() == first.train_problems()
    assert first.train_problems() != other.train_problems()
    assert first.heldout_problems() == again.heldout_problems() == other.heldout_problems()


def test_a_larger_set_starts_with_the_smaller_one() -> None:
    small, large = Countdown(heldout_size=5), Countdown(heldout_size=20)
    assert large.heldout_problems()[:5] == small.heldout_problems()


def test_problems_do_not_depend_on_the_random_state_outside() -> None:
    random.seed(1)
    before = random.getstate()
    first = Countdown(train_size=5).train_problems()
    assert random.getstate() == before
    random.seed(2)
    assert Countdown(train_size=5).train_problems() == first


@pytest.mark.parametrize("size", [3, 4, 5])
def test_every_problem_is_what_it_says_and_has_a_solution(size: int) -> None:
    task = Countdown(numbers=size, train_size=30, heldout_size=30)
    for problem in task.train_problems() + task.heldout_problems():
        assert set(problem) == {"prompt", "problem_id", "numbers", "target"}
        assert problem["prompt"] == prompt_text(problem["numbers"], problem["target"])
        assert problem["problem_id"] == prompt_text(sorted(problem["numbers"]), problem["target"])
        assert task.count_solutions(problem) == len(solutions(problem["numbers"], problem["target"])) >= 1


def test_the_task_verifies_with_the_numbers_of_the_problem() -> None:
    problem = {"numbers": [5, 3, 2], "target": 16}
    assert Countdown(numbers=3).verify(problem, "3 + 5 = 8 , 8 * 2 = 16").correct
    assert not Countdown(numbers=3).verify(problem, "3 + 5 = 8 , 8 + 2 = 10").correct


@pytest.mark.parametrize("numbers", [0, 1, 2, 7, "4"])
def test_a_number_of_numbers_that_is_not_offered_is_refused(numbers: int) -> None:
    with pytest.raises(ValueError, match=f"numbers must be one of 3, 4, 5, 6, got {numbers!r}"):
        Countdown(numbers=numbers)


@pytest.mark.parametrize("name", ["train_size", "heldout_size"])
@pytest.mark.parametrize("size", [0, -1])
def test_a_set_of_no_problem_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {size}"):
        Countdown(**{name: size})


@cache
def targets(numbers: tuple[int, ...]) -> frozenset[int]:
    """Where any steps from these numbers lead."""
    found: set[int] = set(numbers) if len(numbers) == 1 else set()
    for i, j in permutations(range(len(numbers)), 2):
        rest = [numbers[k] for k in range(len(numbers)) if k not in (i, j)]
        for value in (numbers[i] + numbers[j], numbers[i] * numbers[j], numbers[i] - numbers[j]):
            if 0 <= value <= MAX_VALUE:
                found |= targets(tuple(sorted([*rest, value])))
    return frozenset(found)


@pytest.mark.parametrize("size", [3, 4])
def test_the_number_of_problems_is_known(size: int) -> None:
    counted = [0, 0]
    for numbers in combinations_with_replacement(range(1, MAX_NUMBER + 1), size):
        for target in targets(numbers):
            counted[is_heldout(numbers, target)] += 1
    assert tuple(counted) == PROBLEMS[size]


@pytest.mark.parametrize("size", [435, 10**12])
def test_more_problems_than_there_are_is_refused_at_once_with_a_remedy(size: int) -> None:
    message = f"heldout_size is {size}, and there are only 434 such problems with 3 numbers; ask for fewer"
    with pytest.raises(ConfigError, match=message):
        Countdown(numbers=3, heldout_size=size).heldout_problems()
