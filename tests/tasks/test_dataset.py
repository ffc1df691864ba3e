"""Tasks on datasets: the rows that are read, refused, left out and held out. Most tests use the math task."""

import json
from pathlib import Path
from typing import Any

import pytest

from progrpo.common.errors import ConfigError
from progrpo.tasks import CodeTask, Data, JsonlTask, MathTask

HELDOUT = [{"problem": "h?", "answer": "9"}]


def write(path: Path, rows: list[Any]) -> Data:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Data(path=str(path))


def task_of(folder: Path, rows: list[Any], **settings: Any) -> MathTask:
    return MathTask(write(folder / "train.jsonl", rows), write(folder / "heldout.jsonl", HELDOUT), **settings)


def rows(*answers: str) -> list[dict[str, str]]:
    return [{"problem": f"p{i}?", "answer": answer} for i, answer in enumerate(answers)]


def test_problems_have_a_prompt_an_id_a_gold_and_a_verifier(tmp_path: Path) -> None:
    problem = task_of(tmp_path, rows("1", r"\frac12"), template="plain").train_problems()[1]
    assert problem == {
        "prompt": "p1?",
        "problem_id": problem["problem_id"],
        "gold": r"\frac12",
        "verifier": "math",
    }
    again = task_of(tmp_path, rows("1", r"\frac12"), template="chat").train_problems()
    assert again[1]["problem_id"] == problem["problem_id"] != again[0]["problem_id"]


def test_columns_are_named_in_the_recipe(tmp_path: Path) -> None:
    data = write(tmp_path / "own.jsonl", [{"q": {"text": "1 + 1?"}, "a": 2}])
    named = data.model_copy(update={"problem": "q.text", "gold": "a"})
    task = MathTask(named, write(tmp_path / "heldout.jsonl", HELDOUT), template="plain")
    assert [(p["prompt"], p["gold"]) for p in task.train_problems()] == [("1 + 1?", "2")]
    with pytest.raises(ConfigError, match=r"own.jsonl:1: has no column 'problem' \(its columns are q, a\)"):
        MathTask(data, data).train_problems()


def test_bad_rows_are_all_listed_with_their_lines(tmp_path: Path) -> None:
    """A row is also bad if the verifier can't read its gold, which would make every response wrong."""
    bad = [*rows("1", "2"), {"problem": "x?"}, {"problem": "y?", "answer": r"\frac{1}{"}, *rows("1", "3")[1:], 7]
    with pytest.raises(ConfigError) as raised:
        task_of(tmp_path, bad).train_problems()
    listed = str(raised.value).split("\n")[1:]
    assert [line.strip().split(": ")[0] for line in listed] == [f"train.jsonl:{i}" for i in (3, 4, 5, 6)]
    assert "'answer'" in listed[0]
    assert "is the problem of train.jsonl:2 with another answer" in "\n".join(listed)


def test_many_bad_rows_are_listed_or_skipped(tmp_path: Path) -> None:
    many = [{"problem": f"{i}?"} for i in range(25)]
    with pytest.raises(ConfigError) as raised:
        task_of(tmp_path, [*rows("1"), *many]).train_problems()
    lines = str(raised.value).split("\n")
    assert lines[0].startswith("25 bad row(s)")
    assert "--skip-bad-rows" in lines[0]
    assert lines[1] == "  train.jsonl:2: has no column 'answer' (its columns are problem)"
    assert lines[-1] == "  and 5 more"
    assert len(lines) == 22
    assert len(task_of(tmp_path, [*rows("1"), *many], skip_bad_rows=True).train_problems()) == 1


def test_bad_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    task = task_of(tmp_path, [*rows("1"), {"problem": "x?"}, *rows("1")], skip_bad_rows=True)
    assert len(task.train_problems()) == 1
    assert [row.place for row in task.bad_rows] == ["train.jsonl:2"]
    assert task.repeated_rows == 1


def test_what_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    task = task_of(tmp_path, [*rows("1"), *HELDOUT])
    assert [p["gold"] for p in task.train_problems()] == ["1"]
    assert task.repeated_rows == 1


def test_a_limit_takes_the_first_good_rows(tmp_path: Path) -> None:
    data = write(tmp_path / "train.jsonl", [{"problem": "x?"}, *rows(*map(str, range(9)))])
    task = MathTask(data.model_copy(update={"limit": 3}), write(tmp_path / "h.jsonl", HELDOUT), skip_bad_rows=True)
    assert [p["gold"] for p in task.train_problems()] == ["0", "1", "2"]
    assert len(task.bad_rows) == 1


def test_worked_examples_are_shown_and_not_trained_on() -> None:
    data, heldout = Data(preset="word_problems", limit=4), Data(preset="word_problems", seed=1, limit=2)
    task = MathTask(data, heldout, examples=2)
    plain = MathTask(data, heldout).train_problems()
    train = task.train_problems()
    assert [p["problem_id"] for p in train] == [p["problem_id"] for p in plain[2:]]
    for problem in (*train, *task.heldout_problems()):
        assert [message["role"] for message in problem["prompt"]] == ["user", "assistant"] * 2 + ["user"]
    for example, original in zip(train[0]["prompt"][1:4:2], plain, strict=False):
        assert task.verify(original, example["content"]).correct


def test_examples_need_worked_solutions(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task.examples is 1, but these rows have no worked solutions"):
        task_of(tmp_path, rows("1", "2"), examples=1).train_problems()


def test_a_base_models_response_ends_where_it_invents_the_next_problem(tmp_path: Path) -> None:
    task = task_of(tmp_path, rows("1"), template="base")
    problem = task.train_problems()[0]
    assert problem["prompt"].endswith("\nSolution:")
    response = " It is \\boxed{1}.\n\nProblem: and 2 + 2?\nSolution: \\boxed{4}"
    assert task.verify(problem, response).correct
    assert not task_of(tmp_path, rows("1"), template="plain").verify(problem, response).correct


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(), "each need a path or a preset"),
        (Data(preset="math5000"), "preset 'math5000' is not one of task 'math': dapo_math_17k, "),
        (Data(preset="word_problems"), "makes rows without end; say how many with limit"),
        (Data(path="none.jsonl"), "data file 'none.jsonl' does not exist"),
    ],
)
def test_incomplete_data_settings_are_refused(tmp_path: Path, data: Data, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MathTask(data, write(tmp_path / "h.jsonl", HELDOUT)).train_problems()


def test_an_evaluation_needs_no_training_rows(tmp_path: Path) -> None:
    heldout = write(tmp_path / "heldout.jsonl", rows("1", "2"))
    task = MathTask(None, heldout, template="plain")
    assert [p["gold"] for p in task.heldout_problems()] == ["1", "2"]
    assert (task.bad_rows, task.repeated_rows) == ([], 0)
    with pytest.raises(ConfigError, match=r"task.train is None, so there are no training problems; give it a path"):
        task.train_problems()
    with pytest.raises(ConfigError, match=r"task.train is None, so there are no worked examples"):
        MathTask(None, heldout, examples=1).heldout_problems()
    with pytest.raises(ConfigError, match=r"task.heldout has no usable problem"):
        MathTask(None, write(tmp_path / "none.jsonl", [])).heldout_problems()


def test_rows_that_a_preset_does_not_keep_are_neither_bad_nor_counted(tmp_path: Path) -> None:
    data = write(
        tmp_path / "mbpp.jsonl", [{"task_id": i, "text": f"p{i}", "test_list": ["assert f()"]} for i in (10, 11, 12)]
    )
    task = CodeTask(None, data.model_copy(update={"preset": "mbpp_test", "limit": 1}))
    assert [p["prompt"][0]["content"][:3] for p in task.heldout_problems()] == ["p11"]
    assert task.bad_rows == []


def test_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task.train has no usable problem; give it other rows"):
        task_of(tmp_path, []).train_problems()
    with pytest.raises(ConfigError, match=r"all \d+ problems of task.train are in task.heldout too, and held-out"):
        task_of(tmp_path, HELDOUT).train_problems()


def test_jsonl_rows_name_their_verifier(tmp_path: Path) -> None:
    data = write(
        tmp_path / "own.jsonl",
        [
            {"prompt": "1 + 1?", "gold": "2"},
            {"prompt": "Say hi.", "gold": "hi", "verifier": "exact"},
            {"prompt": "2 3 5 : 16 ;", "gold": '{"numbers": [2, 3, 5], "target": 16}', "verifier": "countdown"},
        ],
    )
    task = JsonlTask(data, write(tmp_path / "h.jsonl", [{"prompt": "2 + 2?", "gold": "4"}]))
    problems = task.train_problems()
    assert [p["verifier"] for p in problems] == ["math", "exact", "countdown"]
    assert [p["prompt"] for p in problems] == ["1 + 1?", "Say hi.", "2 3 5 : 16 ;"]
    responses = [r"\boxed{2}", " hi\n", "3 + 5 = 8 , 8 * 2 = 16"]
    assert [v.correct for v in task.verify_batch(problems, responses)] == [True] * 3
    assert [v.correct for v in task.verify_batch(problems, [*responses[1:], responses[0]])] == [False] * 3


def test_jsonl_rows_with_a_wrong_verifier_or_gold_are_bad(tmp_path: Path) -> None:
    bad = [
        {"prompt": "a?", "gold": "2", "verifier": "maths"},
        {"prompt": "b?", "gold": "2", "verifier": "countdown"},
        {"prompt": "c?", "gold": "print(1)", "verifier": "code"},
    ]
    with pytest.raises(ConfigError) as raised:
        JsonlTask(
            write(tmp_path / "own.jsonl", bad), write(tmp_path / "h.jsonl", [{"prompt": "?", "gold": "4"}])
        ).train_problems()
    text = str(raised.value)
    assert "own.jsonl:1: the verifier 'maths' is not one of math, " in text
    assert "own.jsonl:2: the gold '2' has no numbers and target" in text
    assert "own.jsonl:3: the gold 'print(1)' holds no tests" in text
    with pytest.raises(ValueError, match="default_verifier must be one of"):
        JsonlTask(Data(), Data(), default_verifier="maths")
