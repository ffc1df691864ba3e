"""Rollout files as streams: batches of raw columns from parquet, JSON lines and CSV.

Nothing here knows what a column means: :mod:`progrpo.inspection.columns` does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progrpo.common.errors import ConfigError
from progrpo.inspection import traces
from progrpo.inspection.folders import PACKED
from progrpo.inspection.text_files import BOM, BytesRead, Row, first_line, json_rows, read_csv, unpacked
from progrpo.inspection.values import as_list, as_number, is_empty, value_at, with_entries

BATCH_ROWS = 512
"""Rows in memory at a time: 512 responses of 32,768 tokens with their log-probs are 130 MB."""
SAMPLED_ROWS = 64
"""The example of a column of JSON lines or CSV is its first value in so many rows."""
PARQUET_MAGIC = b"PAR1"
PARQUET_BUFFER = 1 << 20
"""Without a buffer, or with pre_buffer, pyarrow reads a whole row group, which may be the whole file."""


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
        column = self._column(name)
        return column if isinstance(column, list) else list(column.to_pylist())

    def _column(self, name: str) -> Any:
        if name in self.columns:
            return self.columns[name]
        root = next(column for column in self.columns if name.startswith(f"{column}."))
        return [value_at(value, name.removeprefix(f"{root}.")) for value in self[root]]

    def numbers(self, name: str, dtype: type = np.float32) -> list[NDArray[Any]]:
        """A column of lists of numbers, as an array for each response. Null is an empty list; within a list it is NaN.

        Raises:
            ConfigError: the column holds something else.
        """
        column = self._column(name)
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
        with unpacked(path) as content:
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
            examples = dict.fromkeys(read_csv(self.path, self._delimiter)[0])
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
            yield from read_csv(self.path, self._delimiter, on_bytes)[1]
            return
        for number, row in json_rows(self.path, self._note, on_bytes):
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
            raise ConfigError(f"{str(self.path)!r} is a damaged parquet file: {first_line(error)}.") from None

    def _parquet_batches(self, names: Sequence[str], size: int, on_bytes: BytesRead | None) -> Iterator[Batch]:
        """Batches of the top-level columns that hold these columns."""
        start = 0
        with self._parquet() as file:
            roots = {root for root in file.schema_arrow.names for name in names if f"{name}.".startswith(f"{root}.")}
            bytes_per_row = self.path.stat().st_size / max(file.metadata.num_rows, 1)
            for arrow in file.iter_batches(batch_size=size, columns=list(roots)):
                columns = dict(zip(arrow.schema.names, arrow.columns, strict=True))
                batch = Batch(self.path, columns, range(start, start + arrow.num_rows))
                for name, values in columns.items():
                    try:
                        values.validate(full=True)
                    except ValueError as error:  # bytes that are not text
                        place = batch.place(0)
                        raise ConfigError(
                            f"column {name!r} of {place}, or soon after, can't be read: {error}"
                        ) from None
                yield batch
                start += batch.size
                if on_bytes is not None:
                    on_bytes(round(bytes_per_row * batch.size))

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
