"""Files and folders that are never half written: each has a temporary name beside its path until it is whole."""

import errno
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from progrpo.common.environment import process_index
from progrpo.common.errors import ConfigError

_STORAGE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE})
_PATH_ERRORS = frozenset({errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_NUMBER_IN_TEXT = re.compile(r"os error (\d+)|\[Errno (\d+)\]")
_TORCH_WRITER = re.compile(r"inline_container.* unexpected pos|iostream error")
REMEDY = "put it back from a copy, or remove it"


def temporary_name(path: Path) -> Path:
    """The path that a file or folder is first written to. Processes on two machines can have the same process id."""
    return path.with_name(f".{path.name}.{process_index()}-{os.getpid()}.tmp")


@contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """A path to write to; the file replaces ``path`` if the block succeeds, and is removed if it fails.

    It is on the disk before it replaces ``path``, so a machine that loses power has either the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = temporary_name(path)
    try:
        yield beside
        sync(beside)
        os.replace(beside, path)
        sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with write_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all. NaN is refused, as JSON can't express it."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str = REMEDY) -> dict[str, Any]:
    """The object in a JSON file. A ConfigError, with the remedy, is raised if there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged_file(path, error, remedy) from None
    if not isinstance(value, dict):
        raise damaged_file(path, f"a JSON object is needed, not a {type(value).__name__}", remedy)
    return value


def damaged_file(path: Path, why: object, remedy: str = REMEDY) -> ConfigError:
    """The error for a file that progrpo wrote and now can't read."""
    reason = (why.strerror or why) if isinstance(why, OSError) else why
    first = str(reason).partition("\n")[0].rstrip(".") or type(why).__name__
    return ConfigError(f"{str(path)!r} is damaged ({first}); {remedy}.")


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file. If it does not fit on the disk, the file stays as it was."""
    with path.open("ab", buffering=0) as file:
        length = file.tell()
        try:
            content = (line + "\n").encode()
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(length)
            raise


@contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it replaces ``path`` if the block succeeds, and is removed if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = temporary_name(path)
    beside.mkdir()
    try:
        yield beside
        if path.exists():
            shutil.rmtree(path)
        os.replace(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, and make it if it does not exist. The system releases the lock however the process ends.

    A ConfigError is raised if another process has locked the folder, or the folder can't be written.
    """
    file = folder / ".lock"
    # A soft lock is only a file that exists. It would outlive a process that is killed.
    lock = FileLock(file, timeout=0, fallback_to_soft=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        with suppress(OSError):  # the text is only for the message below
            file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    except Timeout:
        holder = file.read_text(encoding="utf-8", errors="replace") or "another process"
        raise ConfigError(
            f"{str(folder)!r} is being written by {holder}; wait until that has ended, or choose another folder with "
            "--out."
        ) from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:  # some network file systems have no locks
            raise not_writable(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def check_writable(folder: Path) -> None:
    """Raise a ConfigError unless a file can be written into a folder. What was made to find out is removed again."""
    probe, is_new = temporary_name(folder / "probe"), not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"?")
        probe.unlink()
        if is_new:
            folder.rmdir()
    except OSError as error:
        with suppress(OSError):
            probe.unlink()
        raise not_writable(folder, error) from None


def check_page(path: Path) -> None:
    """Raise a ConfigError unless a page can be written at ``path``, before the work whose result it will show.

    It has to end in .html, because the page might replace a file of another kind.
    """
    if path.is_dir():
        raise ConfigError(
            f"--out {str(path)!r} is a folder; give the name of a file, such as {str(path / 'page.html')!r}."
        )
    if path.suffix not in (".html", ".htm"):
        raise ConfigError(f"--out {str(path)!r} is not the name of a page; let it end in .html.")
    check_writable(path.parent)


def not_writable(folder: Path, error: OSError) -> ConfigError:
    """The error for a folder that can't be written."""
    return ConfigError(
        f"the folder {str(folder)!r} can't be written ({error.strerror or error}); choose another with --out, or "
        "check its permissions and the space on its disk."
    )


def path_fault(error: OSError) -> str | None:
    """A sentence about an error of a path that the user named, or of the disk; None for an error that may be a bug.

    >>> path_fault(PermissionError(13, "Permission denied", "run/report.html"))
    "'run/report.html' can't be read or written: Permission denied."
    """
    reason = storage_fault(error) or (os.strerror(error.errno) if error.errno in _PATH_ERRORS else None)
    return reason and f"{str(error.filename or 'a file')!r} can't be read or written: {reason}."


def storage_fault(error: BaseException | None) -> str | None:
    """Why something could not be stored, if an error or one of its causes says so; None for other errors.

    safetensors, which is written in Rust, and torch.distributed give the system's error only in their text, and
    ``torch.save`` does not give it at all.

    >>> storage_fault(RuntimeError("Error while serializing: I/O error: File too large (os error 27)"))
    'File too large'
    >>> storage_fault(FileNotFoundError(2, "No such file or directory"))
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (match := _NUMBER_IN_TEXT.search(str(error))):
            number = int(match[1] or match[2])
        if number in _STORAGE_ERRORS:
            return os.strerror(number)
        if isinstance(error, RuntimeError) and _TORCH_WRITER.search(str(error)):
            return "torch could not write a file"
        error = error.__cause__ or error.__context__
    return None
