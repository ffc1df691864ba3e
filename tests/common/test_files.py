import errno
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from progrpo.common.errors import ConfigError
from progrpo.common.files import (
    append_line,
    check_writable,
    locked,
    storage_fault,
    write_file,
    write_folder,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    with write_file(path) as beside:
        beside.write_text("new")
        assert not path.exists()
        assert beside.parent == path.parent
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a", "a/b", "a/b/file.txt"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old and long")
    with write_file(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old and long"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail_halfway() -> None:
        with write_file(path) as beside:
            beside.write_text("half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a" / "folder"
    with write_folder(path) as beside:
        (beside / "inner").mkdir()
        (beside / "inner" / "x").write_text("new")
        assert not path.exists()
    assert names(tmp_path) == ["a", "a/folder", "a/folder/inner", "a/folder/inner/x"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    with write_folder(path) as beside:
        (beside / "new").write_text("new")
        assert (path / "old").exists()
    assert names(tmp_path) == ["folder", "folder/new"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_folder_and_nothing_beside_it(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")

    def fail_halfway() -> None:
        with write_folder(path) as beside:
            (beside / "half").write_text("half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert names(tmp_path) == ["folder", "folder/old"]


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_an_error_on_the_first_write_leaves_nothing(
    tmp_path: Path, write: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    with pytest.raises(ValueError, match="stop"), write(tmp_path / "thing"):
        raise ValueError("stop")
    assert names(tmp_path) == []


def test_text_is_utf_8(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "π ≤ 4\n")
    assert (tmp_path / "text").read_bytes() == "π ≤ 4\n".encode()


def test_json_comes_back_and_ends_with_a_line(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True], "b": "π"}
    write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("nan")]}, object()])
def test_values_that_json_can_not_express_are_refused_and_the_old_file_stays(tmp_path: Path, value: object) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, value)
    assert json.loads(path.read_text()) == {"old": 1}
    assert names(tmp_path) == ["value.json"]


def test_lines_are_appended_whole_or_not_at_all(tmp_path: Path) -> None:
    """Runs in a separate process whose files may have 50 bytes at most, so that the kernel writes only a part of a
    line."""
    path = tmp_path / "lines"
    append_line(path, "first")
    script = f"""
import resource
from pathlib import Path
from progrpo.common.files import append_line
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
append_line(Path({str(path)!r}), "x" * 100)
"""
    failed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "File too large" in failed.stderr
    append_line(path, "second")
    assert path.read_text() == "first\nsecond\n"


def test_a_folder_that_cannot_be_written_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file' can't be written \(File exists\); choose another with --out"):
        check_writable(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"\(Not a directory\)"), locked(tmp_path / "file" / "below"):
        pass
    check_writable(tmp_path / "new")
    assert names(tmp_path) == ["file"]


def test_a_folder_can_not_be_held_twice_in_one_process(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ConfigError, match="is being written by process"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_full_disk_is_recognised_in_the_errors_that_libraries_make_of_it(tmp_path: Path) -> None:
    def wrapped(error: Exception) -> Exception:
        try:
            try:
                raise error
            except Exception as cause:
                raise RuntimeError("could not save") from cause
        except RuntimeError as outer:
            return outer

    assert storage_fault(wrapped(OSError(errno.ENOSPC, "No space left on device"))) == "No space left on device"
    assert storage_fault(wrapped(FileNotFoundError(errno.ENOENT, "No such file"))) is None
    assert storage_fault(wrapped(ValueError("os error 28"))) == "No space left on device"
    assert storage_fault(ValueError("28")) is None
    with pytest.raises(RuntimeError) as raised:
        torch.save(torch.zeros(100_000), "/dev/full")
    assert storage_fault(raised.value) == "torch could not write a file"
