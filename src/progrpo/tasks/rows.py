"""Rows of a dataset: a JSONL, JSON or parquet file, or a Hugging Face dataset; bad rows are named by their place."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from progrpo.common.errors import ConfigError

Row = dict[str, Any]


class Data(BaseModel):
    """Where rows come from, and which of their columns matter.

    A preset knows a public dataset: its Hugging Face id and split, and its columns. With ``path``, the same rows are
    read from a local file instead. Without a preset, ``path`` and the names of the columns are needed.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    preset: str | None = Field(None, description="a name of the task's PRESETS")
    path: str | None = Field(None, description="a .jsonl, .json or .parquet file, or a Hugging Face dataset id")
    subset: str | None = Field(None, description="the subset of a Hugging Face dataset")
    split: str | None = Field(None, description="the split of a Hugging Face dataset")
    problem: str | None = Field(None, description="the column with the problem, e.g. question or prompt.0.content")
    gold: str | None = Field(None, description="the column with the answer or the tests")
    limit: Annotated[int, Field(ge=1)] | None = Field(
        None, description="the number of good rows to take, from the first on; by default all"
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="the seed of presets that make their rows")


class BadRowError(ValueError):
    """A row can't be used: the reason, and its place if that is known."""

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(f"{place}: {reason}" if place else reason)
        self.place = place


class ForeignRowError(BadRowError):
    """A row has the columns, but belongs to another dataset than the preset's; the text says what shows this."""


class NotOnHubError(ConfigError):
    """A dataset of the hub can't be loaded here; the text ends with the advice to give a file instead."""


Rows = Iterator[tuple[str, Row | BadRowError]]
"""Rows with their places, such as ``train.jsonl:12``. For a row that can't be read there is an error, not raised."""


def read_rows(path: str, subset: str | None = None, split: str | None = None, files: Sequence[str] = ()) -> Rows:
    """The rows of a file or of a Hugging Face dataset; raises ConfigError if nothing at ``path`` can be read. With
    ``files``, these JSONL files of the dataset are read, one after the other, instead of a subset and split."""
    file = Path(path)
    if file.suffix not in _READERS:
        yield from _read_hub(path, subset, split, files)
    elif file.is_file():
        yield from _READERS[file.suffix](file)
    else:
        raise ConfigError(f"data file {path!r} does not exist; give a {', '.join(_READERS)} file.")


def _read_jsonl(file: Path) -> Rows:
    # Only the newline byte ends a line: str.splitlines also breaks at U+2028, which JSON strings may hold.
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{file.name}:{number}"
                try:
                    yield place, _check_object(place, json.loads(line))
                except (ValueError, RecursionError) as error:
                    yield place, BadRowError(f"not valid JSON ({error})", place)


def _read_json(file: Path) -> Rows:
    try:
        rows = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"data file {str(file)!r} is not valid JSON: {error}.") from None
    if not isinstance(rows, list):
        raise ConfigError(f"data file {str(file)!r} must hold a list of objects, not a {type(rows).__name__}.")
    for place, row in numbered_rows(file.name, rows):
        yield place, _check_object(place, row)


def _check_object(place: str, row: Any) -> Row | BadRowError:
    return row if isinstance(row, dict) else BadRowError(f"a JSON object is needed, not a {type(row).__name__}", place)


def _read_parquet(file: Path) -> Rows:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        batches = ParquetFile(file).iter_batches(batch_size=1024)
        yield from numbered_rows(file.name, (row for batch in batches for row in batch.to_pylist()))
    except ArrowInvalid as error:
        raise ConfigError(f"data file {str(file)!r} is not a parquet file: {str(error).rstrip('.')}.") from None


_READERS = {".jsonl": _read_jsonl, ".json": _read_json, ".parquet": _read_parquet}


def _read_hub(path: str, subset: str | None, split: str | None, files: Sequence[str]) -> Rows:
    from datasets import load_dataset
    from huggingface_hub import hf_hub_download

    try:
        if files:
            local = [Path(hf_hub_download(path, name, repo_type="dataset")) for name in files]
            rows: Rows = chain.from_iterable(map(_read_jsonl, local))
        else:
            dataset = load_dataset(path, subset, split=split or "train")
            rows = numbered_rows(f"{path} {subset}" if subset else path, dataset)
    except Exception as error:  # of many kinds: no network, no such dataset, no such split, no permission
        cause = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise NotOnHubError(
            f"dataset {path!r} is neither a {', '.join(_READERS)} file nor a Hugging Face dataset that can be loaded "
            f"here ({cause}); give a local file with its rows instead."
        ) from None
    yield from rows


def numbered_rows(name: str, rows: Iterable[Row]) -> Iterator[tuple[str, Row]]:
    """Each row with its place: the name, and the row's number from 1 on."""
    return ((f"{name} row {number}", row) for number, row in enumerate(rows, start=1))


def column(row: Row, path: str) -> Any:
    """The value of a column; dots lead into objects and lists. Raises BadRowError if it is missing.

    >>> column({"prompt": [{"role": "user", "content": "1 + 1?"}]}, "prompt.0.content")
    '1 + 1?'
    """
    value: Any = row
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError):
            columns = ", ".join(map(str, row)) or "none"
            raise BadRowError(f"has no column {path!r} (its columns are {columns})") from None
    return value


def text_column(row: Row, path: str) -> str:
    """The text of a column; a number is written in its shortest form. Raises BadRowError if there is no text.

    >>> text_column({"answer": 27.0}, "answer")
    '27'
    """
    value = column(row, path)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    if not text.strip():
        raise BadRowError(f"column {path!r} is {value!r}, where a text is needed")
    return text


def json_column(row: Row, path: str) -> Any:
    """The value of a column of JSON, which may be parsed already. Raises BadRowError if it is not valid JSON."""
    value = column(row, path)
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise BadRowError(f"column {path!r} is not valid JSON: {error}") from None


def first_column(row: Row, *paths: str) -> str:
    """The text of the first of these columns that the row has."""
    return text_column(row, next((path for path in paths if path.split(".")[0] in row), paths[0]))


def digest(*parts: str) -> str:
    """A short id of some texts, the same on every machine."""
    return hashlib.blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=8).hexdigest()
