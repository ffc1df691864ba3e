"""JSON lines and CSV, compressed or not, as a stream of rows."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from progrpo.common.errors import ConfigError

PACKINGS = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}
"""The compression of a file, by its first two bytes."""
BOM = b"\xef\xbb\xbf"

BytesRead = Callable[[int], None]
"""Called with the number of bytes read since the last call."""
Row = dict[str, Any]


class _CountedFile(io.FileIO):
    """A file that reports how many of its bytes are read."""

    def __init__(self, path: Path, on_bytes: BytesRead | None) -> None:
        super().__init__(path)
        self._on_bytes = on_bytes

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer) or 0
        if self._on_bytes is not None:
            self._on_bytes(size)
        return size


@contextmanager
def unpacked(path: Path, on_bytes: BytesRead | None = None) -> Iterator[IO[bytes]]:
    """The content of a file, decompressed if its first bytes say that it is compressed.

    Raises:
        ConfigError: the file can't be read, or is damaged.
    """
    packing = None
    try:
        with io.BufferedReader(_CountedFile(path, on_bytes), 1 << 20) as raw:
            packing = PACKINGS.get(raw.peek(2)[:2])
            if packing is None:
                yield raw
            else:
                import pyarrow as pa

                yield io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), packing))
    except OSError as error:
        why = f"is a damaged {packing} file" if packing else "can't be read"
        raise ConfigError(f"{str(path)!r} {why}: {error.strerror or first_line(error)}.") from None


def json_rows(path: Path, note: Callable[[str], None], on_bytes: BytesRead | None = None) -> Iterator[tuple[int, Row]]:
    """The number, from 0, and the object of each line that is not blank.

    A last line that was cut off is left out, and ``note`` is called with a sentence about it.

    Raises:
        ConfigError: a line before the last, or the only one, is not a JSON object.
    """
    broken: int | None = None
    number = -1
    with unpacked(path, on_bytes) as lines:
        for line_number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if broken is not None:
                raise ConfigError(f"line {broken} of {str(path)!r} is not a JSON object; correct or remove it.")
            number += 1
            try:
                row = json.loads(line.removeprefix(BOM))
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield number, row
            else:
                broken = line_number  # an error, unless it turns out to be the last line
    if broken is not None:
        if number == 0:
            raise ConfigError(f"line {broken} of {str(path)!r}, its only one, is not a JSON object.")
        note(f"The last line of {path.name} was cut off: it is left out. Is the run still writing?")


def read_csv(
    path: Path, delimiter: str, on_bytes: BytesRead | None = None
) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    """The names of the columns; and of each row that is not blank, its number, from 0, and its cells.

    CSV has no null: an empty cell stands for it.

    Raises:
        ConfigError: two columns have the same name, a row has more or fewer cells than the header, or it is not CSV.
    """
    lines = _csv_lines(path, delimiter, on_bytes)
    _, header = next(lines)
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{str(path)!r} has two columns {twice!r}; rename one of them in its first line.")

    def rows() -> Iterator[tuple[int, Row]]:
        for number, (line_number, cells) in enumerate(lines):
            if len(cells) != len(header):
                raise ConfigError(
                    f"line {line_number} of {str(path)!r} ends a row of {len(cells)} cells, and the header has "
                    f"{len(header)}; correct or remove the row."
                )
            yield number, {name: cell or None for name, cell in zip(header, cells, strict=True)}

    return header, rows()


def _csv_lines(path: Path, delimiter: str, on_bytes: BytesRead | None = None) -> Iterator[tuple[int, list[str]]]:
    """The number of the last line, and the cells, of each row that is not blank."""
    csv.field_size_limit(sys.maxsize)
    with unpacked(path, on_bytes) as lines:
        reader = csv.reader(io.TextIOWrapper(lines, "utf-8-sig", newline=""), delimiter=delimiter, strict=True)
        try:
            yield from ((reader.line_num, cells) for cells in reader if cells)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{str(path)!r} is not CSV near line {reader.line_num}: {error}.") from None


def first_line(error: Exception) -> str:
    """The first line of an error's message, without its full stop."""
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
