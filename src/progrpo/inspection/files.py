"""Rollout files, read as a stream: batches of raw columns from parquet, JSON lines and CSV, packed or not.

Nothing here knows what a column means: that is :mod:`progrpo.inspection.columns`.
"""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any

from progrpo.common.errors import ConfigError
from progrpo.inspection import traces
from progrpo.inspection.batches import Batch
from progrpo.inspection.folders import PACKED, step_in_name
from progrpo.inspection.values import Kind, as_number, kinds_within, value_at

BATCH_ROWS = 512
"""Responses in memory at a time: 512 of 32,768 tokens with their log-probs are 130 MB."""
SPLIT_ROWS = 16
"""Rows in memory at a time where each holds the responses of a whole group."""
SAMPLED_ROWS = 64
"""What a column of JSON lines or CSV holds is looked up in so many rows."""
PARQUET_MAGIC = b"PAR1"
PARQUET_BUFFER = 1 << 20
"""Without a buffer, or with pre_buffer, pyarrow reads a row group whole, and it may well be all of the file."""
GZIP_MAGIC, ZSTD_MAGIC, BOM = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xef\xbb\xbf"
CSV_SUFFIXES = {".csv": ",", ".tsv": "\t"}

Progress = Callable[[int], None]
"""Called with the number of bytes read since the last call."""
Row = dict[str, Any]
Split = Callable[[Row, str], list[Row]]
"""Turns a row that holds several responses into one row a response; takes where it stands, for messages."""


class RolloutFile:
    """One file of rollouts.

    Raises:
        ConfigError: it is empty, or neither parquet nor JSON lines nor CSV.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self.step = step_in_name(path)
        """The step in its name, or in that of a folder that it lies in."""
        self.split: Split | None = None
        """Set where a row holds several responses."""
        try:
            with path.open("rb") as file:
                self._packing = {GZIP_MAGIC: "gzip", ZSTD_MAGIC[:2]: "zstd"}.get(file.read(2))
            with self._bytes() as (lines, _):
                head = lines.read(4096)
        except OSError as error:
            raise ConfigError(f"{str(path)!r} can't be read: {error.strerror or _first_line(error)}.") from None
        if not head.removeprefix(BOM).strip():
            raise ConfigError(f"{str(path)!r} is empty; give a file with at least one response.")
        self.is_parquet = self._packing is None and head.startswith(PARQUET_MAGIC)
        self._delimiter = _delimiter(path, head)
        if not self.is_parquet and self._delimiter is None and not head.removeprefix(BOM).lstrip().startswith(b"{"):
            hint = " (a JSON array: jq -c '.[]' turns it into lines)" if head.lstrip().startswith(b"[") else ""
            raise ConfigError(
                f"{str(path)!r} is neither parquet nor JSON lines, one object a response on a line of its own{hint}; "
                "a CSV file has the suffix .csv or .tsv."
            )

    @property
    def n_bytes(self) -> int:
        return self.path.stat().st_size

    @cached_property
    def columns(self) -> dict[str, Kind]:
        """The columns in order, and what each holds; the entries of dicts under dotted names."""
        if self.is_parquet:
            from progrpo.inspection.arrow_kinds import kinds_of_schema

            with self._parquet() as file:
                return kinds_of_schema(file.schema_arrow)
        kinds: dict[str, Kind] = dict.fromkeys(self._header, "none")
        for _, row in islice(self._rows(), SAMPLED_ROWS):
            for name, value in row.items():
                for dotted, kind in kinds_within(name, _typed(value) if self._delimiter else value):
                    # All cells of CSV are text: a column holds numbers if every one of them is a number.
                    if kinds.get(dotted, "none") == "none" or (self._delimiter and kind == "text"):
                        kinds[dotted] = kind
        return kinds

    def batches(self, columns: Sequence[str], on_progress: Progress | None = None) -> Iterator[Batch]:
        """The file's responses, :data:`BATCH_ROWS` at a time, with these columns only.

        Raises:
            ConfigError: a column is not there, or the file is damaged. A last JSON line that was cut off is left out,
                and :attr:`notes` says so.
        """
        missing = [name for name in columns if name not in self.columns]
        if missing:
            raise ConfigError(f"{str(self.path)!r} has no column {missing[0]!r}; {listed(self.columns)}.")
        read = self._arrow_batches if self.is_parquet and self.split is None else self._row_batches
        yield from read(columns, on_progress)

    def rows(self, columns: Sequence[str], wanted: Iterable[int]) -> dict[int, Row]:
        """The responses with these numbers (from 0), all other rows passed over unread where that can be done."""
        numbers = set(wanted)
        found: dict[int, Row] = {}
        if not numbers:
            return found
        start = 0
        if self.is_parquet and self.split is None:
            for batch in self._record_batches(columns):
                inside = sorted(number - start for number in numbers if start <= number < start + batch.num_rows)
                if inside:
                    taken = batch.take(inside).to_pylist()
                    found |= {start + i: _picked(row, columns) for i, row in zip(inside, taken, strict=True)}
                start += batch.num_rows
                if max(numbers) < start:
                    break
            return found
        for _, row in self._responses(columns, numbers):
            if start in numbers:
                found[start] = row
                if len(found) == len(numbers):
                    break
            start += 1
        return found

    def _arrow_batches(self, columns: Sequence[str], on_progress: Progress | None) -> Iterator[Batch]:
        with self._parquet() as file:
            share = self.n_bytes / max(file.metadata.num_rows, 1)
        start = 0
        for batch in self._record_batches(columns):
            named = {name: batch.column(name) for name in batch.schema.names}
            yield Batch(named, lambda i, start=start: self._place(start + i), batch.num_rows)  # type: ignore[misc]
            start += batch.num_rows
            if on_progress is not None:
                on_progress(round(share * batch.num_rows))

    def _row_batches(self, columns: Sequence[str], on_progress: Progress | None) -> Iterator[Batch]:
        responses = self._responses(columns, on_progress=on_progress)
        while some := list(islice(responses, BATCH_ROWS)):
            origins = [origin for origin, _ in some]
            yield Batch(
                {name: [row[name] for _, row in some] for name in columns},
                lambda i, origins=origins: self._place(origins[i]),  # type: ignore[misc]
                len(some),
                origins if self.split is not None else None,
            )

    def _responses(
        self, columns: Sequence[str], keep: set[int] | None = None, on_progress: Progress | None = None
    ) -> Iterator[tuple[int, Row]]:
        """Each response's row with these columns only, and the number of the file's row that it stands in.

        Where a row is one response, those not to keep may come empty.
        """
        keep = keep if self.split is None else None
        for number, row in self._rows(columns, keep, on_progress):
            picked = row if keep is not None and number not in keep else _picked(row, columns)
            if self.split is None:
                yield number, picked
            else:
                yield from ((number, response) for response in self.split(picked, self._place(number)))

    def _rows(
        self, columns: Sequence[str] | None = None, keep: set[int] | None = None, on_progress: Progress | None = None
    ) -> Iterator[tuple[int, Row]]:
        """Number and content of each row; of verifiers' traces each response's, with the number of its record."""
        if self.is_parquet:
            assert columns is not None
            yield from self._parquet_rows(columns, on_progress)
            return
        with self._bytes() as (lines, position):
            seen = 0
            is_csv = self._delimiter is not None
            for number, row in self._csv_rows(lines) if is_csv else self._parsed(lines, keep):
                if on_progress is not None and number % BATCH_ROWS == BATCH_ROWS - 1:
                    on_progress(-seen + (seen := position()))
                if traces.is_record(row):
                    yield from ((number, response) for response in self._of_trace(row, number))
                else:
                    yield number, row
            if on_progress is not None:
                on_progress(position() - seen)

    def _of_trace(self, record: Row, number: int) -> list[Row]:
        try:
            return list(traces.responses(record, self._note))
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._place(number)}: this looks like an episode of verifiers, but is not as verifiers 0.3 and 0.4 "
                f"write them ({type(error).__name__}: {error})."
            ) from None

    def _parquet_rows(self, columns: Sequence[str], on_progress: Progress | None) -> Iterator[tuple[int, Row]]:
        with self._parquet() as file:
            share = self.n_bytes / max(file.metadata.num_rows, 1)
        start = 0
        for batch in self._record_batches(columns, SPLIT_ROWS):
            yield from enumerate(batch.to_pylist(), start)
            start += batch.num_rows
            if on_progress is not None:
                on_progress(round(share * batch.num_rows))

    def _parquet(self) -> Any:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        try:
            return ParquetFile(self.path, buffer_size=PARQUET_BUFFER, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{str(self.path)!r} is a damaged parquet file: {_first_line(error)}.") from None

    def _record_batches(self, columns: Sequence[str], size: int = BATCH_ROWS) -> Iterator[Any]:
        """Arrow's batches of the top-level columns that these columns stand in."""
        import pyarrow as pa

        with self._parquet() as file:
            present = file.schema_arrow.names
            roots = dict.fromkeys(next(name for name in present if _stands_in(column, name)) for column in columns)
            try:
                yield from file.iter_batches(batch_size=size, columns=list(roots))
            except (pa.ArrowException, OSError) as error:
                raise ConfigError(f"{str(self.path)!r} is a damaged parquet file: {_first_line(error)}.") from None

    @contextmanager
    def _bytes(self) -> Iterator[tuple[IO[bytes], Callable[[], int]]]:
        """The file's content, unpacked, and how many of its bytes have been read."""
        with self.path.open("rb") as raw:
            try:
                yield _unpacked(raw, self._packing), raw.tell
            except (EOFError, OSError, zlib.error) as error:
                why = f"is a damaged {self._packing} file" if self._packing else "can't be read"
                raise ConfigError(f"{str(self.path)!r} {why}: {_first_line(error)}.") from None

    def _csv_rows(self, lines: IO[bytes]) -> Iterator[tuple[int, Row]]:
        header = self._header
        for number, (line_number, cells) in enumerate(islice(self._cells(lines), 1, None)):
            if len(cells) != len(header):
                raise ConfigError(
                    f"line {line_number} of {str(self.path)!r} ends a row of {len(cells)} cells, and the header has "
                    f"{len(header)}; mend or remove the row."
                )
            # CSV has no null: an empty cell stands for it.
            yield number, {name: cell or None for name, cell in zip(header, cells, strict=True)}

    @cached_property
    def _header(self) -> list[str]:
        """The names of a CSV file's columns; of a file of another kind none."""
        if self._delimiter is None:
            return []
        with self._bytes() as (lines, _):
            _, names = next(self._cells(lines))
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"{str(self.path)!r} has two columns {twice!r}; rename one of them in its first line.")
        return names

    def _cells(self, lines: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
        """The number of its last line and the cells of each row of a CSV file that is not blank."""
        csv.field_size_limit(sys.maxsize)
        text = io.TextIOWrapper(lines, "utf-8-sig", newline="")
        reader = csv.reader(text, delimiter=self._delimiter or ",", strict=True)
        try:
            yield from ((reader.line_num, cells) for cells in reader if cells)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{str(self.path)!r} is not CSV near line {reader.line_num}: {error}.") from None
        finally:
            text.detach()  # or it would close the file

    def _parsed(self, lines: Iterable[bytes], keep: set[int] | None = None) -> Iterator[tuple[int, Row]]:
        """Row number and object of each line that is not blank; one that is not to be kept is empty."""
        broken: int | None = None
        number = -1
        for line_number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if broken is not None:
                raise ConfigError(f"line {broken} of {str(self.path)!r} is not a JSON object; mend or remove it.")
            number += 1
            if keep is not None and number not in keep and not self._holds_traces:
                yield number, {}
                continue
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
                raise ConfigError(f"line {broken} of {str(self.path)!r}, its only one, is not a JSON object.")
            self._note(f"The last line of {self.path.name} was cut off: it is left out. Is the run still writing?")

    @cached_property
    def _holds_traces(self) -> bool:
        with self._bytes() as (lines, _):
            return any(traces.is_record(row) for _, row in islice(self._parsed(lines), 1))

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _place(self, number: int) -> str:
        return f"{str(self.path)!r}, row {number + 1}"


def listed(names: Iterable[str]) -> str:
    """``its columns are 'a', 'b', 'c'``: all of them, for the one that is wanted may be the last."""
    return f"its columns are {', '.join(map(repr, names))}"


def _unpacked(raw: IO[bytes], packing: str | None) -> IO[bytes]:
    if packing == "gzip":
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if packing == "zstd":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"))
    return raw


def _delimiter(path: Path, head: bytes) -> str | None:
    """What stands between a CSV file's cells; None for a file of another kind."""
    suffix = path.with_suffix("").suffix if path.suffix in PACKED else path.suffix
    if suffix not in CSV_SUFFIXES or head.startswith(PARQUET_MAGIC):
        return None
    header = head.split(b"\n", 1)[0]
    # Spreadsheets of some languages put semicolons, whatever the suffix.
    return CSV_SUFFIXES[suffix] if suffix == ".tsv" or header.count(b",") >= header.count(b";") else ";"


def _typed(cell: str | None) -> str | float | None:
    """A cell of CSV: a number, if it can be one."""
    try:
        return cell if cell is None else as_number(cell)
    except ValueError:
        return cell


def _picked(row: Row, columns: Sequence[str]) -> Row:
    return {name: value_at(row, name) for name in columns}


def _stands_in(column: str, name: str) -> bool:
    return column == name or column.startswith(f"{name}.")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
