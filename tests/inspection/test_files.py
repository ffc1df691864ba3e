"""Files as streams: both kinds give the same, and what is broken is told in a sentence."""

import json

import numpy as np
import pandas as pd
import pytest

from inspection.rollouts import random_rows, write_jsonl, write_parquet
from progrpo.errors import ConfigError
from progrpo.inspection.files import BATCH_ROWS, RolloutFile, find_files


@pytest.fixture
def rows():
    return random_rows(2 * BATCH_ROWS + 7)


def test_json_lines_and_parquet_read_the_same(rows, tmp_path):
    files = [RolloutFile(write_jsonl(tmp_path / "a.jsonl", rows)), RolloutFile(write_parquet(tmp_path / "a", rows))]
    assert [file.is_parquet for file in files] == [False, True]
    for jsonl, parquet in zip(*(file.batches(["o", "logps"]) for file in files), strict=True):
        assert jsonl.size == parquet.size <= BATCH_ROWS
        assert jsonl["o"] == parquet["o"]
        np.testing.assert_array_equal(jsonl.ragged("logps").values, parquet.ragged("logps").values)
        np.testing.assert_array_equal(jsonl.lengths("logps"), parquet.lengths("logps"))
    sizes = [sum(batch.size for batch in file.batches(["o"])) for file in files]
    assert sizes == [len(rows)] * 2


def test_single_rows_are_found_again(rows, tmp_path):
    wanted = [0, 3, BATCH_ROWS, len(rows) - 1]
    for path in (write_jsonl(tmp_path / "a.jsonl", rows), write_parquet(tmp_path / "a.parquet", rows)):
        found = RolloutFile(path).rows(["o", "logps"], wanted)
        assert list(found) == wanted
        assert all(found[i] == {"o": rows[i]["o"], "logps": rows[i]["logps"]} for i in wanted)
        assert RolloutFile(path).rows(["o"], []) == {}


def test_lists_may_be_null_and_hold_nulls(tmp_path):
    rows = [{"logps": [-1.0, None]}, {"logps": None}, {"logps": []}, {"logps": [-3]}]
    for path in (write_jsonl(tmp_path / "a.jsonl", rows), write_parquet(tmp_path / "a.parquet", rows)):
        (batch,) = RolloutFile(path).batches(["logps"])
        ragged = batch.ragged("logps")
        assert ragged.lengths.tolist() == [2, 0, 0, 1]
        np.testing.assert_array_equal(ragged.values, np.array([-1, np.nan, -3], dtype=np.float32))


def test_files_of_a_folder_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("10.jsonl", "9.jsonl", ".8.jsonl.tmp", "readme.txt"):
        (tmp_path / name).write_text("{}\n")
    assert [file.name for file in find_files([tmp_path])] == ["9.jsonl", "10.jsonl"]


@pytest.mark.parametrize("folder", ["rollouts", "completions"])
def test_the_rollouts_of_a_run_are_found(folder, tmp_path):
    (tmp_path / folder).mkdir()
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / folder / "completions_00001.parquet").write_bytes(b"PAR1")
    assert find_files([tmp_path]) == [tmp_path / folder / "completions_00001.parquet"]


def test_a_line_that_was_cut_off_is_left_out_and_told(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"o": 1}, {"o": 2}])
    path.write_text(path.read_text() + '{"o": "unfin')
    file = RolloutFile(path)
    assert [batch["o"] for batch in file.batches(["o"])] == [[1, 2]]
    assert file.notes == ["The last line of a.jsonl was cut off: it is left out. Is the run still writing?"]


def test_damage_elsewhere_is_an_error_with_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"o": 1}\n\n[2]\n{"o": 3}\n')
    with pytest.raises(ConfigError, match=r"line 3 of '.*a\.jsonl' is not a JSON object"):
        list(RolloutFile(path).batches(["o"]))


def test_a_damaged_parquet_file(rows, tmp_path):
    path = write_parquet(tmp_path / "a.parquet", rows)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"a\.parquet' is a damaged parquet file: "):
        RolloutFile(path).numeric_columns()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; give a file with at least one response"),
        (b" \n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\x00", "is neither parquet nor JSON lines"),
        (b"[{}]", "jq -c"),
        (b"prompt,completion\n", "is neither parquet nor JSON lines"),
    ],
)
def test_other_files_are_refused(content, said, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        RolloutFile(path)


@pytest.mark.parametrize("value", ["text", 3, {"a": 1}, ["x"]])
def test_log_probs_must_be_lists_of_numbers(value, tmp_path):
    rows = [{"logps": value}]
    for path in (write_jsonl(tmp_path / "a.jsonl", rows), write_parquet(tmp_path / "a.parquet", rows)):
        (batch,) = RolloutFile(path).batches(["logps"])
        with pytest.raises(ConfigError, match="column 'logps' must hold a list of numbers for each response"):
            batch.ragged("logps")


def test_later_lines_may_leave_columns_out(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"o": i} if i == 0 else {}) + "\n" for i in range(BATCH_ROWS + 1)))
    batches = list(RolloutFile(path).batches(["o"]))
    assert [batch["o"][0] for batch in batches] == [0, None]
    with pytest.raises(ConfigError, match=r"has no column 'x'; its columns are 'o'\."):
        list(RolloutFile(path).batches(["x"]))


def test_many_columns_are_not_all_listed(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({f"c{i}": [0] for i in range(40)}).to_parquet(path)
    with pytest.raises(ConfigError, match="'c11' and 28 more"):
        list(RolloutFile(path).batches(["x"]))
