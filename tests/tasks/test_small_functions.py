from itertools import islice

from progrpo.tasks.rows import Row
from progrpo.tasks.small_functions import FUNCTIONS, small_functions

ROWS = list(small_functions(0))


def test_all_rows_are_different_and_the_seed_only_orders_them() -> None:
    assert len(ROWS) > 150
    assert len({row["text"] for row in ROWS}) == len(ROWS)
    other = list(small_functions(1))
    assert other != ROWS
    assert sorted(map(repr, other)) == sorted(map(repr, ROWS))
    assert len({row["text"].split("(")[0].rstrip("0123456789aeinrt") for row in ROWS}) >= len(FUNCTIONS) // 2


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
    for row in ROWS:
        assert len(set(row["test_list"])) == 3
        assert passes(row["code"], row), row
        assert not passes(row["code"].partition("return")[0] + "pass", row), row


def test_a_constant_does_not_pass() -> None:
    """Three asserts with the same result would be passed by returning it; few functions have such asserts."""
    same = [row for row in ROWS if len({test.split(" == ")[1] for test in row["test_list"]}) == 1]
    assert not same, same[0]
    assert list(islice(small_functions(0), 3)) == ROWS[:3]
