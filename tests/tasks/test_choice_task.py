"""The presets of the choice task: rows in each dataset's published schema, and real rows where they are available."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.verify.shared_data import shared_file

from progrpo.common.errors import ConfigError
from progrpo.recipes.build import make_task
from progrpo.recipes.schema import load_recipe
from progrpo.tasks import ChoiceTask, Data
from progrpo.verify.registry import verify, wrong_golds

PRESETS = ChoiceTask.PRESETS

GPQA = {
    "Question": "Which one?\n",
    "Correct Answer": "right\n",
    "Incorrect Answer 1": "wrong 1",
    "Incorrect Answer 2": "wrong 2",
    "Incorrect Answer 3": "wrong 3",
    "Explanation": "e",
    "Subdomain": "Organic Chemistry",
}
SOURCES = {"train": "own.jsonl", "heldout": "other.jsonl"}
MMLU_PRO = {
    "question_id": 70,
    "question": "Which one?",
    "options": ["wrong 1", "wrong 2", "right", "wrong 3", "wrong 4"],
    "answer": "C",
    "answer_index": 2,
    "cot_content": "",
    "category": "business",
    "src": "s",
}


def task_of(folder: Path, *rows: dict[str, Any], preset: str | None = None, **settings: Any) -> ChoiceTask:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return ChoiceTask(None, Data(preset=preset, path=str(file)), **settings)


@pytest.mark.parametrize(("preset", "row"), [("gpqa_diamond", GPQA), ("mmlu_pro", MMLU_PRO)])
def test_a_row_of_the_published_schema(preset: str, row: dict[str, Any], tmp_path: Path) -> None:
    task = task_of(tmp_path, row, preset=preset)
    problem = task.heldout_problems()[0]
    lines = problem["prompt"][0]["content"].split("\n")
    assert lines[0] == "Which one?"
    assert lines[-1] == task.instruction
    letter = json.loads(problem["gold"])["answer"]
    assert f"{letter}. right" in lines
    assert [line for line in lines if line[1:2] == "."] == [
        f"{name}. {text}" for name, text in zip("ABCDE", json.loads(problem["gold"])["options"], strict=False)
    ]
    assert task.verify(problem, rf"\boxed{{{letter}}}").correct
    others = "ABCDE".replace(letter, "")
    assert not any(task.verify(problem, rf"\boxed{{{other}}}").correct for other in others)


def test_there_is_a_test_of_every_preset() -> None:
    assert set(PRESETS) == {"gpqa_diamond", "mmlu_pro"}


def test_gpqas_options_are_shuffled_the_same_way_everywhere(tmp_path: Path) -> None:
    rows = [GPQA | {"Question": f"Which one of {i}?"} for i in range(400)]
    golds = [json.loads(p["gold"]) for p in task_of(tmp_path, *rows, preset="gpqa_diamond").heldout_problems()]
    counts = {letter: sum(gold["answer"] == letter for gold in golds) for letter in "ABCD"}
    assert all(70 <= count <= 130 for count in counts.values()), counts  # binomial: 100 with a deviation of 9
    assert all(gold["options"]["ABCD".index(gold["answer"])] == "right" for gold in golds)
    texts = ["right", "wrong 1", "wrong 2", "wrong 3"]
    keys = {text: hashlib.blake2b(f"Which one of 7?\0{text}".encode(), digest_size=8).hexdigest() for text in texts}
    assert golds[7]["options"] == sorted(texts, key=keys.__getitem__)


@pytest.mark.parametrize(
    ("preset", "row", "reason"),
    [
        ("gpqa_diamond", GPQA | {"Incorrect Answer 2": "right "}, "has the right option among the wrong ones"),
        ("gpqa_diamond", {"Question": "q"}, "has no column 'Correct Answer'"),
        ("mmlu_pro", MMLU_PRO | {"answer": "B"}, "column 'answer' is 'B', but 'answer_index' is 2"),
        ("mmlu_pro", MMLU_PRO | {"answer": "K", "answer_index": None}, "the answer 'K' is not the letter of one of 5"),
        ("mmlu_pro", {k: v for k, v in MMLU_PRO.items() if k != "question_id"}, "has no column 'question_id'"),
        ("mmlu_pro", MMLU_PRO | {"options": "A B"}, "column 'options' is 'A B', where a list of texts is needed"),
        ("mmlu_pro", MMLU_PRO | {"options": ["a", ""]}, "where a list of texts is needed"),
        ("mmlu_pro", MMLU_PRO | {"options": ["a"], "answer": "A", "answer_index": 0}, "letter of one of 1 options"),
        ("mmlu_pro", MMLU_PRO | {"options": ["a"] * 27}, "the answer 'C' is not the letter of one of 27 options"),
    ],
)
def test_a_row_without_a_usable_answer_is_bad(preset: str, row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        task_of(tmp_path, row, preset=preset).heldout_problems()
    assert "rows.jsonl:1: " in str(raised.value)
    assert reason in str(raised.value)


def test_a_question_that_mmlu_pro_asks_twice_counts_twice(tmp_path: Path) -> None:
    rows = [MMLU_PRO | {"question_id": i, "question": q} for i, q in ((70, "a?"), (71, "a?"), (72, "b?"), (72, "b?"))]
    task = task_of(tmp_path, *rows, preset="mmlu_pro")
    assert [problem["problem_id"] for problem in task.heldout_problems()] == ["70", "71", "72"]
    assert task.repeated_rows == 1  # exactly the same row
    with pytest.raises(ConfigError, match=r"rows.jsonl:2: has the id '70' of rows.jsonl:1, which is another problem"):
        task_of(tmp_path, rows[0], rows[2] | {"question_id": 70}, preset="mmlu_pro").heldout_problems()
    trained = ChoiceTask(Data(preset="mmlu_pro", path=str(tmp_path / "train.jsonl")), task.heldout)
    (tmp_path / "train.jsonl").write_text(json.dumps(rows[0] | {"question_id": 5}) + "\n" + json.dumps(rows[3] | {
        "question_id": 6, "question": "c?"}) + "\n", encoding="utf-8")  # fmt: skip
    task_of(tmp_path, *rows[:1])
    assert [problem["problem_id"] for problem in trained.train_problems()] == ["6"]  # whatever its id, 5 is held out


@pytest.mark.parametrize(("preset", "row", "column"), [("gpqa_diamond", GPQA, "Record ID")])
def test_a_repeated_question_with_its_own_id_is_kept(
    preset: str, row: dict[str, Any], column: str, tmp_path: Path
) -> None:
    task = task_of(tmp_path, row | {column: "recA"}, row | {column: "recB"}, preset=preset)
    assert len(task.heldout_problems()) == 2


def test_rows_without_a_preset(tmp_path: Path) -> None:
    task = task_of(tmp_path, {"question": "2 + 2?", "options": ["3", "4"], "answer": "B"}, template="plain")
    problem = task.heldout_problems()[0]
    assert problem["prompt"] == "2 + 2?\n\nA. 3\nB. 4"
    assert task.verify(problem, "Answer: (B) 4").correct


def test_a_recipe_trains_on_choice_rows(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"question": "2 + 2?", "options": ["3", "4"], "answer": "B"}\n')
    (tmp_path / "other.jsonl").write_text('{"question": "1 + 2?", "options": ["3", "4"], "answer": "A"}\n')
    sources = [f"task.{name}={{path = {str(tmp_path / file)!r}}}" for name, file in SOURCES.items()]
    task = make_task(load_recipe("countdown_cpu", ["task={name = 'choice'}", *sources]))
    assert isinstance(task, ChoiceTask)
    assert [json.loads(p["gold"])["answer"] for p in (*task.train_problems(), *task.heldout_problems())] == ["B", "A"]


def test_an_incomplete_gold_is_an_error() -> None:
    for gold in ("B", '{"answer": "B"}', '{"answer": "", "options": ["a", "b"]}', '{"answer": 1, "options": [1, 2]}'):
        assert wrong_golds(["choice"], [gold])[0]
        assert verify(["choice"], [gold], [r"\boxed{B}"])[0].status == "error"


def test_every_option_of_the_real_rows_can_be_answered() -> None:
    """Answers may quote the option's text after its letter; 5 % of these texts contain a single letter."""
    data = Data(preset="mmlu_pro", path=str(shared_file("mmlu_pro_sample_1400.jsonl")))
    task = ChoiceTask(None, data)
    problems = task.heldout_problems()
    assert (len(problems), task.repeated_rows) == (1400, 0)  # three of them are asked twice, and count twice
    for problem in problems:
        gold = json.loads(problem["gold"])
        text = gold["options"]["ABCDEFGHIJ".index(gold["answer"])]
        for response in (rf"\boxed{{{gold['answer']}}}", f"The answer is ({gold['answer']}) {text}."):
            assert task.verify(problem, response).correct, response
        for other, text in zip("ABCDEFGHIJ", gold["options"], strict=False):
            if other != gold["answer"]:
                assert not task.verify(problem, f"The answer is ({other}) {text}.").correct
