"""The rows that are generated here: word problems and small functions."""

import re
from itertools import islice

from progrpo.tasks.generated import FUNCTIONS, STORIES, small_functions, word_problems
from progrpo.tasks.rows import Row

PROBLEMS = list(islice(word_problems(3), 3000))
FUNCTION_ROWS = list(small_functions(0))
OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


def test_the_same_seed_makes_the_same_rows_without_repetition() -> None:
    assert list(islice(word_problems(3), 50)) == PROBLEMS[:50]
    assert list(islice(word_problems(4), 50)) != PROBLEMS[:50]
    assert len({row["question"] for row in PROBLEMS}) == len(PROBLEMS)


def test_every_step_is_right_and_the_last_one_is_the_answer() -> None:
    for row in PROBLEMS:
        *steps, last = row["answer"].split("\n")
        answer = int(last.removeprefix("#### "))
        assert 1 <= answer <= 200
        results = []
        for step in steps:
            left, operator, right, result = re.fullmatch(r"(\d+) (.) (\d+) = (\d+)", step).groups()
            assert OPERATIONS[operator](int(left), int(right)) == int(result), step
            assert operator != "/" or int(left) % int(right) == 0, step
            results.append(int(result))
        assert results[-1] == answer


def test_every_number_in_the_working_is_stated_or_computed() -> None:
    for row in PROBLEMS:
        known = {int(number) for number in re.findall(r"\d+", row["question"])} | {2}  # half
        for step in row["answer"].split("\n")[:-1]:
            left, _, right, _, result = step.split()
            assert {int(left), int(right)} <= known, row
            known.add(int(result))


def test_every_story_occurs() -> None:
    openings = {re.sub(r"\d+", "N", row["question"])[-30:] for row in PROBLEMS}
    assert len(openings) >= len(STORIES)


def test_all_rows_are_different_and_the_seed_only_orders_them() -> None:
    assert len(FUNCTION_ROWS) > 150
    assert len({row["text"] for row in FUNCTION_ROWS}) == len(FUNCTION_ROWS)
    other = list(small_functions(1))
    assert other != FUNCTION_ROWS
    assert sorted(map(repr, other)) == sorted(map(repr, FUNCTION_ROWS))
    assert len({row["text"].split("(")[0].rstrip("0123456789aeinrt") for row in FUNCTION_ROWS}) >= len(FUNCTIONS) // 2


def passes(code: str, row: Row) -> bool:
    namespace: dict[str, object] = {}
    exec(code, namespace)
    try:
        for test in row["test_list"]:
            exec(test, namespace)
    except AssertionError:
        return False
    return True


def test_every_solution_passes_its_tests_and_no_empty_one_does() -> None:
    for row in FUNCTION_ROWS:
        assert len(set(row["test_list"])) == 3
        assert passes(row["code"], row), row
        assert not passes(row["code"].partition("return")[0] + "pass", row), row


def test_a_constant_does_not_pass() -> None:
    """Three asserts with the same result would be passed by returning it; few functions have such asserts."""
    same = [row for row in FUNCTION_ROWS if len({test.split(" == ")[1] for test in row["test_list"]}) == 1]
    assert not same, same[0]
    assert list(islice(small_functions(0), 3)) == FUNCTION_ROWS[:3]
