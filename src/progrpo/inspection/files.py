"""Rollout files as streams: batches of raw columns from parquet, and from JSON lines and CSV, compressed or not.

Nothing here knows what a column means: :mod:`progrpo.inspection.columns` does.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from progrpo.common.errors import ConfigError
from progrpo.inspection import traces
from progrpo.inspection.folders import PACKED
from progrpo.inspection.values import as_list, as_number, is_empty, value_at, with_entries

BATCH_ROWS = 512
"""Rows in memory at a time: 512 responses of 32,768 tokens with their log-probs are 130 MB."""
SAMPLED_ROWS = 64
"""The example of a column of JSON lines or CSV is its first value in so many rows."""
PARQUET_MAGIC = b"PAR1"
PARQUET_BUFFER = 1 << 20
"""Without a buffer, or with pre_buffer, pyarrow reads a whole row group, which may be the whole file."""
PACKINGS = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}
"""The compression of a file, by its first two bytes."""
BOM = b"\xef\xbb\xbf"

BytesRead = Callable[[int], None]
"""Called with the number of bytes read since the last call."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Consecutive responses of a file, column by column: ``batch["text"]`` is a list."""

    path: Path
    columns: Mapping[str, Any]
    """Lists or Arrow arrays by name."""
    row_numbers: Sequence[int]
    """The number, from 0, of the row of the file that holds each response."""

    @property
    def size(self) -> int:
        return len(self.row_numbers)

    def place(self, i: int) -> str:
        """The place of a response, for messages: ``'rollouts.jsonl', row 12``."""
        return _place(self.path, self.row_numbers[i])

    def __getitem__(self, name: str) -> list[Any]:
        column = self.columns[name]
        return column if isinstance(column, list) else list(column.to_pylist())

    def numbers(self, name: str, dtype: type = np.float32) -> list[NDArray[Any]]:
        """A column of lists of numbers, as an array for each response. Null is an empty list; within a list it is NaN.

        Raises:
            ConfigError: the column holds something else.
        """
        column = self.columns[name]
        lists: list[NDArray[Any]]
        try:
            with np.errstate(over="ignore"):  # a number that is too large becomes infinite, and is masked out
                if isinstance(column, list):
                    lists = [np.asarray(as_list(value), dtype) for value in column]
                else:  # without a Python object for each number
                    values = column.flatten().to_numpy(zero_copy_only=False).astype(dtype)
                    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
                    lists = np.split(values, np.cumsum(lengths)[:-1])
            if any(numbers.ndim != 1 for numbers in lists):
                raise ValueError("lists of lists")
        except (TypeError, ValueError, OverflowError, AttributeError):
            raise ConfigError(
                f"column {name!r} must hold a list of numbers for each response, one for each token; it does not in "
                f"{self.place(0)} or soon after."
            ) from None
        return lists


class RolloutFile:
    """One file of rollouts.

    Raises:
        ConfigError: the file is empty, or is neither parquet nor JSON lines nor CSV.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        with _unpacked(path) as content:
            head = content.read(4096).removeprefix(BOM)
        if not head.strip():
            raise ConfigError(f"{str(path)!r} is empty; give a file with at least one response.")
        with path.open("rb") as file:
            self.is_parquet = file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
        self._delimiter = None if self.is_parquet else _delimiter(path, head)
        if not self.is_parquet and self._delimiter is None and not head.lstrip().startswith(b"{"):
            hint = " (a JSON array: jq -c '.[]' turns it into lines)" if head.lstrip().startswith(b"[") else ""
            raise ConfigError(
                f"{str(path)!r} is neither parquet nor JSON lines, one object for each response on its own line{hint}; "
                "a CSV file has the suffix .csv or .tsv."
            )

    @cached_property
    def examples(self) -> dict[str, Any]:
        """A value of each column by name, in their order. The entries of dicts are columns too, with dotted names."""
        if self.is_parquet:
            with self._parquet() as file:
                fields = list(file.schema_arrow)
            return dict(pair for field in fields for pair in with_entries(field.name, _example(field.type)))
        examples: dict[str, Any] = {}
        if self._delimiter is not None:
            _, header = next(_csv_lines(self.path, self._delimiter))
            examples = dict.fromkeys(header)
            if twice := [name for name in header if header.count(name) > 1]:
                raise ConfigError(
                    f"{str(self.path)!r} has two columns {twice[0]!r}; rename one of them in its first line."
                )
        for _, row in islice(self._rows(), SAMPLED_ROWS):
            for name, value in row.items():
                for dotted, entry in with_entries(name, _typed(value) if self._delimiter else value):
                    # All cells of CSV are text: a column holds numbers if every one of them is a number.
                    if is_empty(examples.get(dotted)) or (self._delimiter and isinstance(entry, str)):
                        examples[dotted] = entry
        return examples

    def batches(
        self, names: Sequence[str], size: int = BATCH_ROWS, on_bytes: BytesRead | None = None
    ) -> Iterator[Batch]:
        """The rows of the file, ``size`` rows at a time, with these columns only.

        Raises:
            ConfigError: a column is missing, or the file is damaged. A last JSON line that was cut off is left out,
                and :attr:`notes` says so.
        """
        missing = [name for name in names if name not in self.examples]
        if missing:
            raise ConfigError(f"{str(self.path)!r} has no column {missing[0]!r}; {listed(self.examples)}.")
        if self.is_parquet:
            yield from self._parquet_batches(names, size, on_bytes)
            return
        rows = ((number, [value_at(row, name) for name in names]) for number, row in self._rows(on_bytes))
        while some := list(islice(rows, size)):
            columns = zip(*(cells for _, cells in some), strict=True)
            yield Batch(self.path, dict(zip(names, map(list, columns), strict=True)), [number for number, _ in some])

    def _rows(self, on_bytes: BytesRead | None = None) -> Iterator[tuple[int, Row]]:
        """The rows of a text file with their numbers. An episode of verifiers gives a row for each response."""
        if self._delimiter is not None:
            yield from _csv_rows(self.path, self._delimiter, on_bytes)
            return
        for number, row in _json_rows(self.path, self._note, on_bytes):
            if not traces.is_record(row):
                yield number, row
                continue
            try:
                yield from [(number, response) for response in traces.responses(row, self._note)]
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{_place(self.path, number)}: this looks like an episode of verifiers, but is not as verifiers "
                    f"0.3 and 0.4 write them ({type(error).__name__}: {error})."
                ) from None

    @contextmanager
    def _parquet(self) -> Iterator[Any]:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        try:
            with ParquetFile(self.path, buffer_size=PARQUET_BUFFER, pre_buffer=False) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{str(self.path)!r} is a damaged parquet file: {_first_line(error)}.") from None

    def _parquet_batches(self, names: Sequence[str], size: int, on_bytes: BytesRead | None) -> Iterator[Batch]:
        start = 0
        with self._parquet() as file:
            stored = file.schema_arrow.names
            # An entry of a dict has a dotted name, and is stored in the column of the dict.
            roots = {
                name: name if name in stored else next(column for column in stored if name.startswith(f"{column}."))
                for name in names
            }
            bytes_per_row = self.path.stat().st_size / max(file.metadata.num_rows, 1)
            for arrow in file.iter_batches(batch_size=size, columns=list(set(roots.values()))):
                numbers = range(start, start + arrow.num_rows)
                for root, values in zip(arrow.schema.names, arrow.columns, strict=True):
                    try:
                        values.validate(full=True)
                    except ValueError as error:  # bytes that are not text
                        place = f"column {root!r} of {_place(self.path, start)}, or soon after,"
                        raise ConfigError(f"{place} can't be read: {error}") from None
                columns = {
                    name: arrow[root]
                    if name == root
                    else [value_at(row, name) for row in arrow.select([root]).to_pylist()]
                    for name, root in roots.items()
                }
                yield Batch(self.path, columns, numbers)
                start += arrow.num_rows
                if on_bytes is not None:
                    on_bytes(round(bytes_per_row * len(numbers)))

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def listed(names: Iterable[str]) -> str:
    """``its columns are 'a', 'b', 'c'``: all of them, because the user looks for one of them."""
    return f"its columns are {', '.join(map(repr, names))}"


def _delimiter(path: Path, head: bytes) -> str | None:
    """The delimiter of the cells of a CSV file; None for another file."""
    suffix = path.with_suffix("").suffix if path.suffix in PACKED else path.suffix
    if suffix != ".csv":
        return "\t" if suffix == ".tsv" else None
    header = head.split(b"\n", 1)[0]
    # The spreadsheets of some languages write semicolons.
    return "," if header.count(b",") >= header.count(b";") else ";"


def _example(type_: Any) -> Any:
    """A value of an Arrow type.

    >>> import pyarrow as pa
    >>> _example(pa.struct([("text", pa.string()), ("scores", pa.list_(pa.float64()))]))
    {'text': '', 'scores': [0]}
    """
    from pyarrow import types

    if types.is_struct(type_):
        return {field.name: _example(field.type) for field in type_}
    if hasattr(type_, "value_type"):  # a list, or a dictionary of texts
        inside = _example(type_.value_type)
        return inside if types.is_dictionary(type_) else [inside]
    if types.is_null(type_):
        return None
    # Times and bytes count as numbers. A user who names such a column sees the value in a message.
    return "" if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_) else 0


def _typed(cell: str | None) -> str | float | None:
    """A cell of CSV, as a number if it can be one."""
    try:
        return cell if cell is None else as_number(cell)
    except ValueError:
        return cell


def _place(path: Path, number: int) -> str:
    return f"{str(path)!r}, row {number + 1}"


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
def _unpacked(path: Path, on_bytes: BytesRead | None = None) -> Iterator[IO[bytes]]:
    """The content of a file, decompressed if its first bytes say that it is compressed."""
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
        raise ConfigError(f"{str(path)!r} {why}: {error.strerror or _first_line(error)}.") from None


def _json_rows(path: Path, note: Callable[[str], None], on_bytes: BytesRead | None) -> Iterator[tuple[int, Row]]:
    """The number, from 0, and the object of each line that is not blank; ``note`` is called with a sentence about a
    last line that was cut off."""
    number, broken = 0, None
    with _unpacked(path, on_bytes) as lines:
        filled = ((line_number, line) for line_number, line in enumerate(lines, start=1) if line.strip())
        for number, (line_number, line) in enumerate(filled):
            if broken is not None:
                raise ConfigError(f"line {broken} of {str(path)!r} is not a JSON object; correct or remove it.")
            try:
                row = json.loads(line.removeprefix(BOM))
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield number, row
            else:
                broken = line_number  # an error, unless it turns out to be the last line
    if broken is not None and number == 0:
        raise ConfigError(f"line {broken} of {str(path)!r}, its only one, is not a JSON object.")
    if broken is not None:
        note(f"The last line of {path.name} was cut off: it is left out. Is the run still writing?")


def _csv_rows(path: Path, delimiter: str, on_bytes: BytesRead | None) -> Iterator[tuple[int, Row]]:
    """The number, from 0, and the cells of each row. CSV has no null: an empty cell stands for it."""
    lines = _csv_lines(path, delimiter, on_bytes)
    _, header = next(lines)
    for number, (line_number, cells) in enumerate(lines):
        if len(cells) != len(header):
            raise ConfigError(
                f"line {line_number} of {str(path)!r} ends a row of {len(cells)} cells, and the header has "
                f"{len(header)}; correct or remove the row."
            )
        yield number, {name: cell or None for name, cell in zip(header, cells, strict=True)}


def _csv_lines(path: Path, delimiter: str, on_bytes: BytesRead | None = None) -> Iterator[tuple[int, list[str]]]:
    """The number of the last line, and the cells, of the header and of each row that is not blank."""
    csv.field_size_limit(sys.maxsize)
    with _unpacked(path, on_bytes) as lines:
        reader = csv.reader(io.TextIOWrapper(lines, "utf-8-sig", newline=""), delimiter=delimiter, strict=True)
        try:
            yield from ((reader.line_num, cells) for cells in reader if cells)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{str(path)!r} is not CSV near line {reader.line_num}: {error}.") from None


def _first_line(error: Exception) -> str:
    """The first line of an error's message, without its full stop."""
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
