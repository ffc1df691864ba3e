"""Countdown's problems are made from seeds, are solvable, and have a fixed split."""

import random
from functools import cache
from itertools import combinations_with_replacement, permutations

import pytest
from tests.verify.test_countdown import seeded_problems

from progrpo.common.errors import ConfigError
from progrpo.tasks import Countdown
from progrpo.tasks.countdown import (
    MAX_NUMBER,
    PROBLEMS,
    SIZES,
    is_heldout,
    prompt_text,
    random_problem,
    steps_text,
)
from progrpo.verify.countdown import MAX_VALUE, check_steps, solutions

HELDOUT_OF_60 = ["2 3 10 : 36 ;", "10 5 5 : 0 ;", "5 5 1 : 10 ;", "8 9 6 : 57 ;", "8 5 8 : 11 ;"]


@pytest.mark.parametrize("size", SIZES)
def test_the_token_budget_fits_a_right_response(size: int) -> None:
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


def test_the_seed_decides_only_the_training_problems() -> None:
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
def test_an_unknown_size_is_refused(numbers: int) -> None:
    with pytest.raises(ValueError, match=f"numbers must be one of 3, 4, 5, 6, got {numbers!r}"):
        Countdown(numbers=numbers)


@pytest.mark.parametrize("name", ["train_size", "heldout_size"])
@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_set_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {size}"):
        Countdown(**{name: size})


@cache
def targets(numbers: tuple[int, ...]) -> frozenset[int]:
    """All values that steps from these numbers can reach."""
    reached: set[int] = set(numbers) if len(numbers) == 1 else set()
    for i, j in permutations(range(len(numbers)), 2):
        rest = [numbers[k] for k in range(len(numbers)) if k not in (i, j)]
        for value in (numbers[i] + numbers[j], numbers[i] * numbers[j], numbers[i] - numbers[j]):
            if 0 <= value <= MAX_VALUE:
                reached |= targets(tuple(sorted([*rest, value])))
    return frozenset(reached)


@pytest.mark.parametrize("size", [3, 4])
def test_the_table_has_the_number_of_problems(size: int) -> None:
    counted = [0, 0]
    for numbers in combinations_with_replacement(range(1, MAX_NUMBER + 1), size):
        for target in targets(numbers):
            counted[is_heldout(numbers, target)] += 1
    assert tuple(counted) == PROBLEMS[size]


@pytest.mark.parametrize("size", [435, 10**12])
def test_too_large_a_set_is_refused_at_once_with_a_remedy(size: int) -> None:
    message = f"heldout_size is {size}, and there are only 434 such problems with 3 numbers; ask for fewer"
    with pytest.raises(ConfigError, match=message):
        Countdown(numbers=3, heldout_size=size).heldout_problems()
