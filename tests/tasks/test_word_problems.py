import re
from itertools import islice

from progrpo.tasks.word_problems import STORIES, word_problems

ROWS = list(islice(word_problems(3), 3000))
OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


def test_the_same_seed_makes_the_same_rows_without_repetition() -> None:
    assert list(islice(word_problems(3), 50)) == ROWS[:50]
    assert list(islice(word_problems(4), 50)) != ROWS[:50]
    assert len({row["question"] for row in ROWS}) == len(ROWS)


def test_every_step_is_right_and_the_last_one_is_the_answer() -> None:
    for row in ROWS:
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
    for row in ROWS:
        known = {int(number) for number in re.findall(r"\d+", row["question"])} | {2}  # half
        for step in row["answer"].split("\n")[:-1]:
            left, _, right, _, result = step.split()
            assert {int(left), int(right)} <= known, row
            known.add(int(result))


def test_every_story_occurs() -> None:
    openings = {re.sub(r"\d+", "N", row["question"])[-30:] for row in ROWS}
    assert len(openings) >= len(STORIES)
