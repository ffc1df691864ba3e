"""Rows that hold one prompt with lists of responses and scores, and rows that hold dicts."""

import numpy as np
import pandas as pd
import pytest
from tests.inspection.rollouts import NAMED, random_rows, write_jsonl, write_parquet

from progrpo.common.errors import ConfigError
from progrpo.inspection import Options, inspect
from progrpo.pages.inspection import assemble

LISTS = Options(columns={"prompt": "q", "response": "texts"}, rewards="scores")
LISTED = {"o": "texts", "r": "scores", "logps": "logps", "answer": "answers"}


def one_row_per_group(rows):
    """The same rows, one for each prompt and step, with a list for each column that differs within a group."""
    frame = pd.DataFrame([row | {"r": float("nan") if row["r"] is None else row["r"]} for row in rows])
    groups = frame.groupby(["step", "q"], sort=False)
    listed = groups.agg({name: list for name in LISTED} | {"q_logps": "first"}).rename(columns=LISTED).reset_index()
    return [
        {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}
        for row in listed.to_dict("records")
    ]


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_lists_give_the_same_as_one_row_per_response(write, tmp_path):
    rows = random_rows(300)
    for row in rows:  # one prompt, one list of log-probs
        row["q_logps"] = [-1.0, -0.1 * len(row["q"])]
    whole = inspect([write(tmp_path / "rows", rows)], Options(columns=NAMED, rewards="r"))
    columns = NAMED | {"response": "texts", "answer": "answers"}
    inspection = inspect(
        [write(tmp_path / "lists", one_row_per_group(rows))], Options(columns=columns, rewards="scores")
    )
    assert inspection.table.size == 300
    assert inspection.table.n_groups == whole.table.n_groups
    assert inspection.collapse.overall == pytest.approx(whole.collapse.overall, nan_ok=True)
    for name, values in whole.collapse.by_step.items():
        np.testing.assert_allclose(inspection.collapse.by_step[name], values, rtol=1e-5, err_msg=name)
    assert vars(inspection.what_if.effect) == pytest.approx(vars(whole.what_if.effect))
    assert any("one prompt and a list of responses, which are a group" in note for note in inspection.notes)
    # The page reads single responses again.
    shown = assemble(inspection)["reader"][0]["steps"][0]["groups"][0]
    first = {row["o"] for row in rows if row["step"] == 1 and row["q"] == shown["prompt"]}
    assert {"".join(token[0] for token in response["tokens"]) for response in shown["responses"]} <= first


def test_known_columns_of_lists_need_no_names(tmp_path):
    rows = [{"prompt": "1 + 1?", "responses": ["2", "3", "2"], "rewards": [1, 0, 1]}] * 2
    inspection = inspect([write_jsonl(tmp_path / "a.jsonl", rows)], Options())
    assert inspection.source.title == "one row a prompt"
    # The prompt is the same, but each row is a group.
    assert np.bincount(inspection.table.groups_B).tolist() == [3, 3]
    assert inspection.collapse.overall["distinct_answers"] == 2


def test_rows_without_responses_are_left_out(tmp_path):
    full = [{"prompt": "1 + 1?", "responses": ["2", "3"], "rewards": [1, 0]}]
    rows = [*full, *({"prompt": f"p{i}", "responses": [], "rewards": []} for i in range(40)), *full]
    inspection = inspect([write_jsonl(tmp_path / "a.jsonl", rows)], Options())
    assert np.bincount(inspection.table.groups_B).tolist() == [2, 2]
    assert assemble(inspection)["reader"][0]["steps"][0]["groups"][0]["prompt"] == "1 + 1?"


def test_chat_messages_are_one_response_and_lists_of_them_several(tmp_path):
    def message(text):
        return [{"role": "assistant", "content": text}]

    rows = [{"q": message("1 + 1?"), "texts": [message("2"), message("3")], "scores": [1.0, 0.0]}]
    for write in (write_jsonl, write_parquet):
        inspection = inspect([write(tmp_path / "several", rows)], LISTS)
        assert inspection.table.size == 2
        assert inspection.collapse.overall["distinct_answers"] == 2
        single = [{"q": "1 + 1?", "texts": message("2"), "scores": 1.0}]
        assert inspect([write(tmp_path / "one", single)], LISTS).table.size == 1


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"scores": [1.0]}, r"row 2: column 'scores' holds 1 entries, but column 'texts' holds 2"),
        ({"scores": [1.0, 0.0, 1.0]}, r"row 2: column 'scores' holds 3 entries, but column 'texts' holds 2"),
        ({"logps": [[-1.0]]}, r"row 2: column 'logps' holds 1 entries, but column 'texts' holds 2"),
    ],
)
def test_lists_of_different_length_are_refused(write, row, message, tmp_path):
    good = {"q": "1 + 1?", "texts": ["2", "3"], "scores": [1.0, 0.0], "logps": [[-1.0], [-2.0, -3.0]]}
    options = Options(columns=LISTS.columns | {"logps": "logps"}, rewards="scores")
    with pytest.raises(ConfigError, match=message):
        inspect([write(tmp_path / "a", [good, good | row])], options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"scores": 1.0}, "holds 1.0 for the 2 responses in column 'texts'; --reward must name a column with a list"),
        ({"logps": [-1.0, -2.0]}, "--logps must name a column with a list that has one entry for each response"),
        ({"texts": "2"}, "row 2: column 'texts' must hold a list of responses, as in the file's first rows"),
    ],
)
def test_a_value_that_is_not_a_list_is_refused(row, message, tmp_path):
    good = {"q": "1 + 1?", "texts": ["2", "3"], "scores": [1.0, 0.0], "logps": [[-1.0], [-2.0, -3.0]]}
    options = Options(columns=LISTS.columns | {"logps": "logps"}, rewards="scores")
    with pytest.raises(ConfigError, match=message):
        inspect([write_jsonl(tmp_path / "a.jsonl", [good, good | row])], options)


def test_a_list_among_texts_is_refused(tmp_path):
    rows = [{"q": "1 + 1?", "texts": "2", "scores": 1.0}, {"q": "1 + 1?", "texts": ["2", "3"], "scores": 1.0}]
    with pytest.raises(ConfigError, match=r"row 2: column 'texts' must hold a response, .*, got a list of 2 ent"):
        inspect([write_jsonl(tmp_path / "a.jsonl", rows)], LISTS)


SCORED = {"q": "1 + 1?", "sample": {"text": "2", "score": 1.0, "tokens": {"logps": [-1.0, -2.0]}}}
SAMPLES = {"q": "1 + 1?", "samples": [{"text": "2", "score": 1.0}, {"text": "3", "score": 0.0}]}


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_dicts_are_refused_and_their_entries_can_be_named(write, tmp_path):
    path = write(tmp_path / "a", [SCORED, SCORED | {"q": "1 + 2?"}])
    with pytest.raises(ConfigError, match=r"column 'sample' holds dicts, .* with --response: sample\.text, sample\.sc"):
        inspect([path], Options(columns={"prompt": "q", "response": "sample"}, rewards="sample.score"))
    with pytest.raises(ConfigError, match=r"column 'sample' holds dicts, .* with --reward"):
        inspect([path], Options(columns={"prompt": "q", "response": "sample.text"}, rewards="sample"))
    columns = {"prompt": "q", "response": "sample.text", "logps": "sample.tokens.logps"}
    inspection = inspect([path], Options(columns=columns, rewards="sample.score"))
    assert inspection.table.lengths_B.tolist() == [2, 2]
    assert inspection.collapse.overall["entropy"] == 1.5
    shown = assemble(inspection)["reader"][0]["steps"][0]["groups"][0]["responses"][0]["tokens"]
    assert shown[0][0] == "2"


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_a_list_of_dicts_is_a_group(write, tmp_path):
    path = write(tmp_path / "a", [SAMPLES, SAMPLES | {"q": "1 + 2?"}])
    with pytest.raises(ConfigError, match=r"column 'samples' holds dicts, .* samples\.text, samples\.score"):
        inspect([path], Options(columns={"prompt": "q", "response": "samples"}, rewards="samples.score"))
    inspection = inspect([path], Options(columns={"prompt": "q", "response": "samples.text"}, rewards="samples.score"))
    assert np.bincount(inspection.table.groups_B).tolist() == [2, 2]
    assert inspection.collapse.overall["pass@1"] == 0.5
    assert inspection.collapse.overall["pass@2"] == 1.0


def test_a_dict_after_texts_is_refused_with_its_row(tmp_path):
    rows = [{"q": "1 + 1?", "texts": "2", "scores": 1.0}] * 70
    path = write_jsonl(tmp_path / "a.jsonl", [*rows, rows[0] | {"texts": {"text": "2", "score": 1.0}}])
    with pytest.raises(
        ConfigError, match=r"row 71: column 'texts' must hold a response, .* a dict with 'text', 'score'"
    ):
        inspect([path], LISTS)
    path = write_jsonl(tmp_path / "b.jsonl", [*rows, rows[0] | {"q": {"text": "1 + 1?"}}])
    with pytest.raises(ConfigError, match=r"row 71: column 'q' must hold a prompt, .* a dict with 'text'"):
        inspect([path], LISTS)
