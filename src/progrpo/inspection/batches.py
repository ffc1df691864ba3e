"""Some consecutive rows of a rollout file, column by column."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progrpo.common.errors import ConfigError
from progrpo.inspection.values import as_list, value_at


@dataclass(frozen=True)
class Ragged:
    """A list of numbers a row, laid end to end: ``values`` (sum of lengths,), ``lengths`` (rows,)."""

    values: NDArray[Any]
    lengths: NDArray[np.int64]

    def rows(self) -> list[NDArray[Any]]:
        """One array a row."""
        return np.split(self.values, np.cumsum(self.lengths)[:-1]) if len(self.lengths) else []


class Batch:
    """Responses one after the other: ``batch["text"]`` is a list, ``batch.ragged(...)`` numbers.

    Args:
        columns: by name, lists or Arrow arrays. An entry of a dict has a dotted name, such as ``completion.text``.
        place: where response i stands, for messages: ``"rollouts.jsonl, row 12"``.
        size: responses.
        origins: the number of the row that each response stands in, where one row of the file holds several.
    """

    def __init__(
        self, columns: Mapping[str, Any], place: Callable[[int], str], size: int, origins: Sequence[int] | None = None
    ) -> None:
        self._columns, self.place, self.size, self.origins = columns, place, size, origins

    def __getitem__(self, name: str) -> list[Any]:
        column = self._column(name)
        if isinstance(column, list):
            return column
        try:
            values: list[Any] = column.to_pylist()
        except ValueError as error:  # bytes that are no text
            raise ConfigError(f"column {name!r} of {self.place(0)}, or soon after, can't be read: {error}.") from None
        return values

    def _column(self, name: str) -> Any:
        if name in self._columns:
            return self._columns[name]
        root = next(known for known in self._columns if name.startswith(f"{known}."))
        return [value_at(value, name.removeprefix(f"{root}.")) for value in self[root]]

    def ragged(self, name: str, dtype: type = np.float32) -> Ragged:
        """A column of lists of numbers; null is an empty list, a null within a list NaN.

        Raises:
            ConfigError: it holds something else.
        """
        column = self._column(name)
        try:
            if isinstance(column, list):
                lists = [as_list(value) for value in column]
                values = np.array(list(chain.from_iterable(lists)), dtype=np.float64)
                lengths = np.array([len(value) for value in lists], dtype=np.int64)
            else:
                values = column.flatten().to_numpy(zero_copy_only=False)
                lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            with np.errstate(over="ignore"):  # becomes infinite, which does not count
                values = values.astype(dtype)
            if values.shape != (int(lengths.sum()),):
                raise ValueError("lists of lists")
            return Ragged(values, lengths)
        except (TypeError, ValueError, OverflowError, AttributeError):
            raise ConfigError(
                f"column {name!r} must hold a list of numbers for each response, one a token; it does not in "
                f"{self.place(0)} or soon after."
            ) from None

    def lengths(self, name: str) -> NDArray[np.int64]:
        """How many entries each list of a column has."""
        column = self._column(name)
        try:
            if isinstance(column, list):
                return np.array([len(as_list(value)) for value in column], dtype=np.int64)
            return column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        except (TypeError, ValueError, AttributeError):
            raise ConfigError(f"column {name!r} of {self.place(0)} must hold a list for each response.") from None
