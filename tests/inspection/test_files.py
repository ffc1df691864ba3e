"""Files as streams: every format gives the same, and a broken file is reported in a sentence."""

import csv
import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow.parquet import write_table
from tests.inspection.rollouts import NAMED, random_rows, write_jsonl, write_parquet

from progrpo.common.errors import ConfigError
from progrpo.inspection import Options, inspect
from progrpo.inspection.files import BATCH_ROWS, RolloutFile
from progrpo.inspection.table import read_rows

OPTIONS = Options(columns=NAMED, rewards="r")


def write_csv(path, rows, delimiter=","):
    """Write lists as JSON, and null as an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(
            {name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()}
            for row in rows
        )
    return path


@pytest.fixture
def rows():
    return random_rows(2 * BATCH_ROWS + 7)


def test_json_lines_and_parquet_give_the_same_batches(rows, tmp_path):
    files = [RolloutFile(write_jsonl(tmp_path / "a.jsonl", rows)), RolloutFile(write_parquet(tmp_path / "a", rows))]
    assert [file.is_parquet for file in files] == [False, True]
    for jsonl, parquet in zip(*(file.batches(["o", "logps"]) for file in files), strict=True):
        assert jsonl.size == parquet.size <= BATCH_ROWS
        assert jsonl["o"] == parquet["o"]
        np.testing.assert_array_equal(np.concatenate(jsonl.numbers("logps")), np.concatenate(parquet.numbers("logps")))
        assert list(map(len, jsonl.numbers("logps"))) == list(map(len, parquet.numbers("logps")))
    sizes = [sum(batch.size for batch in file.batches(["o"])) for file in files]
    assert sizes == [len(rows)] * 2


def test_single_rows_can_be_read_again(rows, tmp_path):
    wanted = [0, 3, BATCH_ROWS, len(rows) - 1]
    for path in (write_jsonl(tmp_path / "a.jsonl", rows), write_parquet(tmp_path / "a.parquet", rows)):
        source = inspect([path], OPTIONS).source
        read = read_rows(source, wanted)
        assert sorted(read) == wanted
        assert all(read[i][name] == rows[i][name] for i in wanted for name in ("o", "logps"))
        assert read_rows(source, []) == {}


def test_lists_may_be_null_and_hold_nulls(tmp_path):
    rows = [{"logps": [-1.0, None]}, {"logps": None}, {"logps": []}, {"logps": [-3]}]
    for path in (write_jsonl(tmp_path / "a.jsonl", rows), write_parquet(tmp_path / "a.parquet", rows)):
        (batch,) = RolloutFile(path).batches(["logps"])
        numbers = batch.numbers("logps")
        assert [len(values) for values in numbers] == [2, 0, 0, 1]
        np.testing.assert_array_equal(np.concatenate(numbers), np.array([-1, np.nan, -3], dtype=np.float32))


def test_a_line_that_was_cut_off_is_left_out_with_a_note(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"o": 1}, {"o": 2}])
    path.write_text(path.read_text() + '{"o": "unfin')
    file = RolloutFile(path)
    assert [batch["o"] for batch in file.batches(["o"])] == [[1, 2]]
    assert file.notes == ["The last line of a.jsonl was cut off: it is left out. Is the run still writing?"]


def test_damage_elsewhere_is_an_error_that_names_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"o": 1}\n\n[2]\n{"o": 3}\n')
    with pytest.raises(ConfigError, match=r"line 3 of '.*a\.jsonl' is not a JSON object"):
        list(RolloutFile(path).batches(["o"]))


def test_a_damaged_parquet_file_is_refused(rows, tmp_path):
    path = write_parquet(tmp_path / "a.parquet", rows)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"a\.parquet' is a damaged parquet file: "):
        print(RolloutFile(path).examples)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; give a file with at least one response"),
        (b" \n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\x00", "is neither parquet nor JSON lines"),
        (b"[{}]", "jq -c"),
        (b"prompt,completion\n", "is neither parquet nor JSON lines"),
    ],
)
def test_other_files_are_refused(content, message, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        RolloutFile(path)


@pytest.mark.parametrize("value", ["text", 3, {"a": 1}, ["x"], [[-1.0], [-2.0]]])
def test_log_probs_must_be_lists_of_numbers(value, tmp_path):
    rows = [{"logps": value}]
    for path in (write_jsonl(tmp_path / "a.jsonl", rows), write_parquet(tmp_path / "a.parquet", rows)):
        (batch,) = RolloutFile(path).batches(["logps"])
        with pytest.raises(ConfigError, match="column 'logps' must hold a list of numbers for each response"):
            batch.numbers("logps")


def test_later_lines_may_leave_columns_out(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"o": i} if i == 0 else {}) + "\n" for i in range(BATCH_ROWS + 1)))
    batches = list(RolloutFile(path).batches(["o"]))
    assert [batch["o"][0] for batch in batches] == [0, None]
    with pytest.raises(ConfigError, match=r"has no column 'x'; its columns are 'o'\."):
        list(RolloutFile(path).batches(["x"]))


def test_all_columns_are_listed(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({f"c{i}": [0] for i in range(40)}).to_parquet(path)
    with pytest.raises(ConfigError, match=r"'c11', 'c12', .*'c38', 'c39'"):
        list(RolloutFile(path).batches(["x"]))


def assert_same(inspection, expected):
    for name, values in vars(expected.table).items():
        if isinstance(values, np.ndarray) and name not in ("texts_B", "answers_B"):
            np.testing.assert_array_equal(getattr(inspection.table, name), values, err_msg=name)
    assert inspection.collapse.overall == pytest.approx(expected.collapse.overall, nan_ok=True)


def test_csv_gives_the_same_as_json_lines(rows, tmp_path):
    """Cells may hold quotes, line breaks and delimiters; every cell is text, also numbers and lists."""
    for row in rows:
        row["o"] += ',\n"quoted"; and null'
    expected = inspect([write_jsonl(tmp_path / "a.jsonl", rows)], OPTIONS)
    for name, delimiter in (("a.csv", ","), ("b.csv", ";"), ("a.tsv", "\t")):
        assert_same(inspect([write_csv(tmp_path / name, rows, delimiter)], OPTIONS), expected)
    read = read_rows(inspect([tmp_path / "a.csv"], OPTIONS).source, [3, BATCH_ROWS])
    assert [read[i]["o"] for i in (3, BATCH_ROWS)] == [rows[3]["o"], rows[BATCH_ROWS]["o"]]


def test_rewards_in_csv_of_trl_are_the_columns_of_numbers(tmp_path):
    row = {
        "step": 1,
        "prompt": "1 + 1?",
        "completion": "2",
        "accuracy": 1.0,
        "format": 0.5,
        "note": "x",
        "advantage": 0.0,
    }
    inspection = inspect([write_csv(tmp_path / "a.csv", [row, row | {"accuracy": ""}])], Options())
    assert inspection.source.columns.rewards == (("accuracy", 1.0), ("format", 1.0))
    assert inspection.table.rewards_B.tolist() == [1.5, 0.5]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".csv"])
def test_packed_files_give_the_same(suffix, kind, rows, tmp_path):
    plain = (write_jsonl if kind == ".jsonl" else write_csv)(tmp_path / f"a{kind}", rows)
    content, half = plain.read_bytes(), plain.stat().st_size // 2
    pack = gzip.compress if suffix == ".gz" else lambda part: pa.compress(part, "zstd", asbytes=True)
    packed = tmp_path / f"a{kind}{suffix}"
    packed.write_bytes(pack(content[:half]) + pack(content[half:]))  # in two pieces, as of a run that was resumed
    read = []
    for batch in RolloutFile(packed).batches(["o"], on_bytes=read.append):
        assert batch.size <= BATCH_ROWS
    assert sum(read) == packed.stat().st_size
    assert_same(inspect([packed], OPTIONS), inspect([plain], OPTIONS))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_damaged_packed_file_is_refused(suffix, rows, tmp_path):
    content = write_jsonl(tmp_path / "a.jsonl", rows).read_bytes()
    packed = gzip.compress(content) if suffix == ".gz" else pa.compress(content, "zstd", asbytes=True)
    for damaged in (packed[: len(packed) // 2], packed[:9000] + b"?" * 100 + packed[9100:]):
        path = tmp_path / f"a.jsonl{suffix}"
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"a\.jsonl\.\w+' is a damaged \w+ file: |is not a JSON object"):
            inspect([path], OPTIONS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q,o,r\n1 + 1?,2,1\n1 + 1?,3\n", r"line 3 of '.*' ends a row of 2 cells, and the header has 3"),
        ('q,o,r\n1 + 1?,"2,1\n', "is not CSV near line 2: unexpected end of data"),
        ("q,o,r\n", "holds no responses: it has columns, but no row"),
        ("q,o,q,r\n1,2,3,4\n", "has two columns 'q'; rename one of them in its first line"),
        (
            "q,o,r\n1 + 1?,2,good\n",
            "row 1: the reward, column 'r', must be a finite number of at most 1e.100, got 'good'",
        ),
    ],
)
def test_bad_csv_is_refused(content, message, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        inspect([path], Options(columns={"prompt": "q", "response": "o"}, rewards="r"))


def test_bytes_that_are_not_text_are_refused(tmp_path):
    rows = [{"q": "1 + 1?", "o": b"\xff\xfe", "r": 1.0}]
    table = pa.Table.from_pylist(rows)
    invalid = table.column("o").chunk(0)
    text = pa.Array.from_buffers(pa.string(), 1, invalid.buffers())
    write_table(table.set_column(1, "o", text), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_bytes(b"q,o,r\n1 + 1?,\xff\xfe,1\n")
    (tmp_path / "a.jsonl").write_bytes(b'{"q": "1 + 1?", "o": "\xff\xfe", "r": 1}\n')
    for name, message in (
        ("a.parquet", "column 'o' of .*, row 1, or soon after, can't be read: .*UTF8"),
        ("a.csv", "is not CSV"),
        ("a.jsonl", "not a JSON obj"),
    ):
        with pytest.raises(ConfigError, match=message):
            inspect([tmp_path / name], Options(columns={"prompt": "q", "response": "o"}, rewards="r"))
