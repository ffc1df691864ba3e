"""Rollout files, read as a stream: batches of raw columns from parquet and from JSON lines.

Nothing here knows what a column means: that is :mod:`progrpo.inspection.columns`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progrpo.errors import ConfigError

BATCH_ROWS = 512
"""Responses in memory at a time: 512 of 32,768 tokens with their log-probs are 130 MB."""
PARQUET_MAGIC = b"PAR1"
PARQUET_BUFFER = 1 << 20
"""Without a buffer, or with pre_buffer, pyarrow reads a row group whole, and it may well be all of the file."""
SHOWN_NAMES = 12

Progress = Callable[[int], None]
"""Called with the number of bytes read since the last call."""


@dataclass(frozen=True)
class Ragged:
    """A list of numbers a row, laid end to end: ``values`` (sum of lengths,), ``lengths`` (rows,)."""

    values: NDArray[Any]
    lengths: NDArray[np.int64]

    def rows(self) -> list[NDArray[Any]]:
        """One array a row."""
        return np.split(self.values, np.cumsum(self.lengths)[:-1]) if len(self.lengths) else []


class Batch:
    """Some consecutive rows of one file, column by column: ``batch["text"]`` is a list, ``batch.ragged(...)`` numbers.

    Args:
        columns: by name, lists or Arrow arrays.
        places: of row i, for messages: ``"rollouts.jsonl, line 12"``.
        size: rows.
    """

    def __init__(self, columns: Mapping[str, Any], place: Callable[[int], str], size: int) -> None:
        self._columns, self.place, self.size = columns, place, size

    def __getitem__(self, name: str) -> list[Any]:
        column = self._columns[name]
        return column if isinstance(column, list) else column.to_pylist()

    def ragged(self, name: str, dtype: type = np.float32) -> Ragged:
        """A column of lists of numbers; null is an empty list, a null within a list NaN.

        Raises:
            ConfigError: it holds something else.
        """
        column = self._columns[name]
        try:
            if isinstance(column, list):
                lists = [value if value is not None else [] for value in column]
                values = np.array(list(chain.from_iterable(lists)), dtype=np.float64)
                lengths = np.array([len(value) for value in lists], dtype=np.int64)
            else:
                values = column.flatten().to_numpy(zero_copy_only=False)
                lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            return Ragged(values.astype(dtype), lengths)
        except (TypeError, ValueError, AttributeError):
            raise ConfigError(
                f"column {name!r} must hold a list of numbers for each response, one a token; it does not in "
                f"{self.place(0)} or soon after."
            ) from None

    def lengths(self, name: str) -> NDArray[np.int64]:
        """How many entries each list of a column has."""
        column = self._columns[name]
        if isinstance(column, list):
            return np.array([len(value) if isinstance(value, list) else 0 for value in column], dtype=np.int64)
        try:
            return column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        except AttributeError:
            raise ConfigError(f"column {name!r} of {self.place(0)} must hold a list for each response.") from None


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The rollout files that the paths stand for, files of a folder in the order of the numbers in their names.

    A folder is a run folder of progrpo (its ``rollouts``), TRL's output folder (its ``completions``), or holds
    parquet or JSON-lines files itself.

    Raises:
        ConfigError: nothing is there, or nothing that can be read.
    """
    return [file for path in paths for file in _files_of(path)]


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"{str(path)!r} does not exist; give a parquet or JSON-lines file of rollouts, or a folder.")
    for folder in (path / "rollouts", path / "completions", path):
        for pattern in ("*.parquet", "*.jsonl"):
            found = [file for file in folder.glob(pattern) if file.is_file() and not file.name.startswith(".")]
            # metrics.jsonl lies in a run folder that has no rollouts (yet).
            found = [file for file in found if file.name != "metrics.jsonl"]
            if found:
                return sorted(found, key=_natural)
    raise ConfigError(
        f"folder {str(path)!r} holds no rollouts: no .parquet and no .jsonl file in it, nor in rollouts/ (a run of "
        "progrpo) or completions/ (TRL with log_completions=True)."
    )


def _natural(file: Path) -> list[tuple[int, str]]:
    """``9.jsonl`` before ``10.jsonl``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)]


class RolloutFile:
    """One file of rollouts.

    Raises:
        ConfigError: it is empty, or neither parquet nor JSON lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        try:
            with path.open("rb") as file:
                head = file.read(4096)
        except OSError as error:
            raise ConfigError(f"{str(path)!r} can't be read: {error.strerror}.") from None
        if not head.strip():
            raise ConfigError(f"{str(path)!r} is empty; give a file with at least one response.")
        self.is_parquet = head.startswith(PARQUET_MAGIC)
        if not self.is_parquet and not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
            hint = " (a JSON array: jq -c '.[]' turns it into lines)" if head.lstrip().startswith(b"[") else ""
            raise ConfigError(
                f"{str(path)!r} is neither parquet nor JSON lines, one object a response on a line of its own{hint}."
            )

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size

    def numeric_columns(self) -> dict[str, bool]:
        """The columns in order, and whether each holds numbers; of JSON lines, those of the first line."""
        if self.is_parquet:
            from pyarrow import types

            with self._parquet() as file:
                schema = file.schema_arrow
            numeric = (types.is_floating, types.is_integer, types.is_boolean, types.is_null)
            return {field.name: any(test(field.type) for test in numeric) for field in schema}
        first = next(self._objects(), None)
        assert first is not None, "the head of the file is the start of an object"
        return {name: isinstance(value, (int, float)) for name, value in first[1].items()}

    def batches(self, columns: Sequence[str], on_progress: Progress | None = None) -> Iterator[Batch]:
        """The file's rows, :data:`BATCH_ROWS` at a time, with these columns only.

        Raises:
            ConfigError: a column is not there, or the file is damaged. A last JSON line that was cut off is left out,
                and :attr:`notes` says so.
        """
        read = self._parquet_batches if self.is_parquet else self._jsonl_batches
        yield from read(columns, on_progress)

    def rows(self, columns: Sequence[str], wanted: Iterable[int]) -> dict[int, dict[str, Any]]:
        """The rows with these numbers (from 0), all other rows passed over unread where that can be done."""
        numbers = sorted(set(wanted))
        if not numbers:
            return {}
        found: dict[int, dict[str, Any]] = {}
        if not self.is_parquet:
            keep = set(numbers)
            for number, row in self._objects(keep):
                found[number] = {name: row.get(name) for name in columns}
                if len(found) == len(keep):
                    break
            return found
        start = 0
        for batch in self._record_batches(columns):
            inside = [number - start for number in numbers if start <= number < start + batch.num_rows]
            if inside:
                found |= dict(zip((start + i for i in inside), batch.take(inside).to_pylist(), strict=True))
            start += batch.num_rows
            if numbers[-1] < start:
                break
        return found

    def _parquet(self) -> Any:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        try:
            return ParquetFile(self.path, buffer_size=PARQUET_BUFFER, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{str(self.path)!r} is a damaged parquet file: {_first_line(error)}.") from None

    def _record_batches(self, columns: Sequence[str]) -> Iterator[Any]:
        import pyarrow as pa

        with self._parquet() as file:
            self._check(columns, file.schema_arrow.names)
            try:
                yield from file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns))
            except (pa.ArrowException, OSError) as error:
                raise ConfigError(f"{str(self.path)!r} is a damaged parquet file: {_first_line(error)}.") from None

    def _parquet_batches(self, columns: Sequence[str], on_progress: Progress | None) -> Iterator[Batch]:
        with self._parquet() as file:
            share = self.bytes / max(file.metadata.num_rows, 1)
        start = 0
        for batch in self._record_batches(columns):
            yield Batch(
                {name: batch.column(name) for name in columns},
                lambda i, start=start: f"{str(self.path)!r}, row {start + i + 1}",  # type: ignore[misc]
                batch.num_rows,
            )
            start += batch.num_rows
            if on_progress is not None:
                on_progress(round(share * batch.num_rows))

    def _jsonl_batches(self, columns: Sequence[str], on_progress: Progress | None) -> Iterator[Batch]:
        rows: list[dict[str, Any]] = []
        start = size = 0
        for number, row, length in self._parsed():
            rows.append(row)
            size += length
            if len(rows) == BATCH_ROWS:
                yield self._as_batch(rows, columns, start)
                if on_progress is not None:
                    on_progress(size)
                rows, start, size = [], number + 1, 0
        if rows:
            yield self._as_batch(rows, columns, start)
            if on_progress is not None:
                on_progress(size)

    def _as_batch(self, rows: list[dict[str, Any]], columns: Sequence[str], start: int) -> Batch:
        if start == 0:  # later lines may leave out what is not known of them
            self._check(columns, rows[0])
        return Batch(
            {name: [row.get(name) for row in rows] for name in columns},
            lambda i: f"{str(self.path)!r}, row {start + i + 1}",
            len(rows),
        )

    def _objects(self, keep: set[int] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Row numbers and objects; those not to keep are not parsed."""
        for number, row, _ in self._parsed(keep):
            yield number, row

    def _parsed(self, keep: set[int] | None = None) -> Iterator[tuple[int, dict[str, Any], int]]:
        """Row number, object and length in bytes of each line that is not blank."""
        broken: int | None = None
        number = -1
        with self.path.open("rb") as lines:
            for line_number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                if broken is not None:
                    raise ConfigError(f"line {broken} of {str(self.path)!r} is not a JSON object; mend or remove it.")
                number += 1
                if keep is not None and number not in keep:
                    continue
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if isinstance(row, dict):
                    yield number, row, len(line)
                else:
                    broken = line_number  # an error, unless it turns out to be the last line
        if broken is not None:
            if number == 0:
                raise ConfigError(f"line {broken} of {str(self.path)!r}, its only one, is not a JSON object.")
            self.notes.append(
                f"The last line of {self.path.name} was cut off: it is left out. Is the run still writing?"
            )

    def _check(self, columns: Sequence[str], present: Iterable[str]) -> None:
        present = list(present)
        missing = [name for name in columns if name not in present]
        if missing:
            raise ConfigError(f"{str(self.path)!r} has no column {missing[0]!r}; {listed(present)}.")


def listed(names: Sequence[str]) -> str:
    """``its columns are a, b, c``; of very many, the first."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return f"its columns are {', '.join(map(repr, names[:SHOWN_NAMES]))}{more}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
