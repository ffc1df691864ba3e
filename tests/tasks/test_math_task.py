"""The presets of the math task: rows in each dataset's published schema, and real rows where they are available."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.verify.shared_data import shared_file

from progrpo.common.errors import ConfigError
from progrpo.tasks import Data, MathTask

PRESETS = MathTask.PRESETS

SOLUTION = r"So $x = 3$, and $x^2 = 9$, hence $\boxed{\frac{9}{2}}$."
DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\nHow many?\n\nRemember to put your answer "
    'on its own line after "Answer:".'
)
ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "dapo_math_17k": (
        {
            "data_source": "math_dapo",
            "prompt": [{"role": "user", "content": DAPO}],
            "ability": "MATH",
            "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": "9a9b6eb4"},
        },
        "How many?",
        "34",
    ),
    "math": (
        {"problem": "p", "level": "Level 3", "type": "Algebra", "solution": SOLUTION},
        "p",
        r"\frac{9}{2}",
    ),
    "math500": ({"problem": "p", "solution": SOLUTION, "answer": "3", "unique_id": "test/1"}, "p", "3"),
    "gsm8k": ({"question": "p", "answer": "2*600=<<2*600=1200>>1200\n#### 1,200"}, "p", "1200"),
    "aime24": ({"id": 60, "problem": "p", "solution": SOLUTION, "answer": "204", "year": "2024"}, "p", "204"),
    "aime25": ({"problem": "p", "answer": "70", "id": "0"}, "p", "70"),
    "amc23": ({"id": 0, "question": "p", "answer": 27.0, "url": "u"}, "p", "27"),
    "minerva": ({"question": "p", "answer": "1.6e-19"}, "p", "1.6e-19"),
    "olympiadbench": ({"question": "p", "solution": [SOLUTION], "final_answer": ["$1$", "$-2$"]}, "p", "1, -2"),
    "word_problems": ({"question": "p", "answer": "3 + 4 = 7\n#### 7"}, "p", "7"),
}


def read(preset: str, rows: list[dict[str, Any]], folder: Path) -> MathTask:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    train = Data(preset="word_problems", limit=1)
    return MathTask(train, Data(preset=preset, path=str(file)), template="plain")


def test_there_is_a_row_for_every_preset() -> None:
    assert set(ROWS) == set(PRESETS)


@pytest.mark.parametrize("preset", [name for name in ROWS if PRESETS[name].hub])
def test_a_row_of_the_published_schema(preset: str, tmp_path: Path) -> None:
    row, prompt, gold = ROWS[preset]
    problem = read(preset, [row], tmp_path).heldout_problems()[0]
    assert (problem["prompt"], problem["gold"]) == (prompt, gold)


@pytest.mark.parametrize(
    ("preset", "answer", "reason"),
    [
        ("aime24", r"\frac{14}{3}", r"has the answer '\\frac{14}{3}', where AIME's are integers from 0 to 999"),
        ("aime25", "1000", "has the answer '1000', where AIME's"),
        ("aime25", "-1", "has the answer '-1', where AIME's"),
        ("amc23", "p - q", "has the answer 'p - q', where AMC's are numbers"),
    ],
)
def test_a_competition_refuses_answers_that_it_never_asks_for(
    preset: str, answer: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as raised:
        read(preset, [{"problem": "p", "answer": answer}], tmp_path).heldout_problems()
    assert f"preset {preset!r} was given rows of another dataset: rows.jsonl:1 {reason}" in str(raised.value)
    for allowed in ("0", "033", "999"):
        read(preset, [{"problem": "p", "answer": allowed}], tmp_path).heldout_problems()


def test_dapo_repeats_its_problems_a_hundred_times(tmp_path: Path) -> None:
    task = read("dapo_math_17k", [ROWS["dapo_math_17k"][0]] * 100, tmp_path)
    assert len(task.heldout_problems()) == 1
    assert task.repeated_rows == 99


@pytest.mark.parametrize(
    ("preset", "row", "reason"),
    [
        ("gsm8k", {"question": "p", "answer": "1200"}, "column 'answer' has no '#### answer'"),
        ("gsm8k", {"question": "p", "answer": "####"}, "column 'answer' has no '#### answer'"),
        ("math", {"problem": "p", "solution": "none"}, r"column 'solution' has no \boxed{}"),
        ("olympiadbench", {"question": "p", "final_answer": []}, "column 'final_answer' is []"),
        ("aime24", {"problem": "p"}, "has no column 'answer'"),
        ("dapo_math_17k", {"prompt": [], "reward_model": {}}, "has no column 'prompt.0.content'"),
    ],
)
def test_a_row_without_its_answer_is_bad(preset: str, row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read(preset, [row], tmp_path).heldout_problems()
    assert f"rows.jsonl:1: {reason}" in str(raised.value)


@pytest.mark.parametrize(
    ("preset", "file", "count"),
    [
        ("math500", "math500.jsonl", 500),
        ("gsm8k", "gsm8k_test.jsonl", 1319),
        ("aime24", "aime24.jsonl", 30),
        ("aime25", "aime25.jsonl", 30),
        ("amc23", "amc23.jsonl", 40),
        ("minerva", "minerva_math.jsonl", 272),
        ("olympiadbench", "olympiadbench_math_en.jsonl", 675),
    ],
)
def test_all_real_rows_but_two_are_good(preset: str, file: str, count: int) -> None:
    heldout = Data(preset=preset, path=str(shared_file(file)))
    task = MathTask(Data(preset="word_problems", limit=1), heldout, skip_bad_rows=True)
    # One OlympiadBench answer is a sentence with an unknown function, the other is half an interval: t(0,4].
    bad = [74, 97] if preset == "olympiadbench" else []
    assert len(task.heldout_problems()) == count - len(bad)
    assert [row.place for row in task.bad_rows] == [f"{file}:{line}" for line in bad]


@pytest.mark.parametrize(
    ("style", "right", "wrong"),
    [
        ("boxed", r"\boxed{7}", "Answer: 7"),
        ("answer", "Answer: 7", r"It is 7"),
        ("last_number", "It is 7.", "7, not 8"),
    ],
)
def test_the_answer_style_sets_the_instruction_and_the_reader(
    style: Any, right: str, wrong: str, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"problem": "3 + 4?", "answer": "7"}\n', encoding="utf-8")
    task = MathTask(Data(preset="word_problems", limit=1), Data(path=str(file)), answer_style=style)
    problem = task.heldout_problems()[0]
    assert problem["prompt"][0]["content"] == f"3 + 4?\n\n{task.instruction}"
    assert task.verify(problem, right).correct
    assert task.verify(problem, wrong).status == "incorrect"


def test_two_ways_of_working_are_two_solutions() -> None:
    task = MathTask(Data(preset="word_problems", limit=1), Data(preset="word_problems", seed=1, limit=1))
    problem = task.heldout_problems()[0] | {"gold": "14"}
    ways = [
        r"3 + 4 = 7, 7 * 2 = 14: \boxed{14}",
        r"$4 + 3 = 7$, so $2 \times 7 = 14$. \boxed{14}",
        r"6 + 8 = 14 \boxed{14}",
    ]
    forms = [verdict.canonical for verdict in task.verify_batch([problem] * 3, ways)]
    assert forms == ["3+4=7,2*7=14", "3+4=7,2*7=14", "6+8=14"]
    assert task.verify(problem, r"\boxed{14}").canonical == task.verify(problem, r"Clearly \boxed{14}").canonical
