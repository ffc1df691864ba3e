import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from progrpo.common.errors import ConfigError
from progrpo.tasks.rows import BadRowError, column, digest, read_rows, text_column

ROWS = [{"question": "1 + 1?", "answer": "2"}, {"question": "2 + 2?\u2028(a sum)", "answer": "4"}]


def test_jsonl_is_split_only_at_newlines(tmp_path: Path) -> None:
    """str.splitlines would cut the second row in two at U+2028."""
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n", encoding="utf-8")
    assert list(read_rows(str(file))) == [("rows.jsonl:1", ROWS[0]), ("rows.jsonl:2", ROWS[1])]


def test_a_bad_line_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": \n[1]\n\xff\xfe\n' + b"[" * 100_000 + b'\n{"a": 2}\n')
    read = dict(read_rows(str(file)))
    assert read["rows.jsonl:1"] == {"a": 1}
    assert read["rows.jsonl:6"] == {"a": 2}
    bad = [row for row in read.values() if isinstance(row, BadRowError)]
    assert [row.place for row in bad] == ["rows.jsonl:2", "rows.jsonl:3", "rows.jsonl:4", "rows.jsonl:5"]
    assert "not a list" in str(bad[1])


def test_json_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(ROWS), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    assert list(read_rows(str(tmp_path / "rows.json"))) == [("rows.json row 1", ROWS[0]), ("rows.json row 2", ROWS[1])]
    assert [row for _, row in read_rows(str(tmp_path / "rows.parquet"))] == ROWS


def test_a_hugging_face_dataset_is_read_from_a_folder(tmp_path: Path) -> None:
    """The hub's own loading code, on a folder in its layout."""
    (tmp_path / "set").mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "set" / "test.parquet")
    read = list(read_rows(str(tmp_path / "set"), split="test"))
    assert [row for _, row in read] == ROWS
    assert read[0][0].endswith("set row 1")


HUB_FILES = """
import json, sys
from progrpo.tasks.rows import read_rows
print(json.dumps([row for _, row in read_rows("somebody/set", files=sys.argv[1:])]))
"""


def test_files_of_a_hugging_face_dataset_are_joined(tmp_path: Path) -> None:
    """The hub's own client, offline: it finds files in its cache, in the layout of downloads."""
    snapshot = tmp_path / "hub" / "datasets--somebody--set" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    for name, row in zip(("test.jsonl", "test2.jsonl"), ROWS, strict=True):
        (snapshot / name).write_text(json.dumps(row) + "\n", encoding="utf-8")
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}

    def read(*files: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", HUB_FILES, *files]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert json.loads(read("test.jsonl", "test2.jsonl").stdout) == ROWS
    assert json.loads(read("test2.jsonl").stdout) == ROWS[1:]
    missing = read("test.jsonl", "test3.jsonl").stderr.strip().split("\n")[-1]
    assert "NotOnHubError: dataset 'somebody/set' is neither" in missing
    assert missing.endswith("; give a local file with its rows instead.")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", None, "does not exist"),
        ("rows.json", b"{", "is not valid JSON"),
        ("rows.json", b'{"a": 1}', "must hold a list of objects, not a dict"),
        ("rows.parquet", b"PAR1 not really", "is not a parquet file"),
        ("nobody/nothing", None, "is neither a .jsonl, .json, .parquet file nor a Hugging Face dataset"),
    ],
)
def test_unreadable_data_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as raised:
        list(read_rows(str(path)))
    assert str(path) in str(raised.value)


def test_a_column_path_leads_into_objects_and_lists() -> None:
    row = {"prompt": [{"content": "q"}], "reward_model": {"ground_truth": "34"}}
    assert column(row, "prompt.0.content") == "q"
    assert column(row, "reward_model.ground_truth") == "34"
    for path in ("answer", "prompt.1.content", "prompt.x", "reward_model.style", "prompt.0.content.0"):
        with pytest.raises(BadRowError, match=f"has no column '{path}'"):
            column(row, path)


@pytest.mark.parametrize(("value", "text"), [(27.0, "27"), (3, "3"), (0.5, "0.5"), (" a ", " a ")])
def test_a_text_column_takes_numbers_too(value: object, text: str) -> None:
    assert text_column({"a": value}, "a") == text


@pytest.mark.parametrize("value", [None, "", "  ", [], {}, True])
def test_a_text_column_takes_nothing_else(value: object) -> None:
    with pytest.raises(BadRowError, match="where a text is needed"):
        text_column({"a": value}, "a")


def test_a_text_with_half_a_surrogate_pair_has_an_id() -> None:
    assert len({digest(text) for text in ("\ud800", "\ud801", "?")}) == 3
