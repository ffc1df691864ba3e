"""Rows of a dataset: a JSONL, JSON or parquet file, or a Hugging Face dataset; bad rows are named by their place."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from progrpo.common.errors import ConfigError

Row = dict[str, Any]

FILE_TYPES = (".jsonl", ".json", ".parquet")
SHOWN_BAD_ROWS = 20


class Data(BaseModel):
    """Where rows come from, and which of their columns matter.

    A preset knows a public dataset: its Hugging Face id and split, and its columns. With ``path`` the same rows are
    read from a local file instead. Without a preset, ``path`` and the columns say it all.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    preset: str | None = Field(None, description="a name of the task's PRESETS")
    path: str | None = Field(None, description="a .jsonl, .json or .parquet file, or a Hugging Face dataset id")
    subset: str | None = Field(None, description="of a Hugging Face dataset")
    split: str | None = Field(None, description="of a Hugging Face dataset")
    problem: str | None = Field(None, description="the column with the problem, e.g. question or prompt.0.content")
    gold: str | None = Field(None, description="the column with the answer or the tests")
    limit: Annotated[int, Field(ge=1)] | None = Field(None, description="the first so many good rows; all by default")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="of the presets whose rows are made, not read")


class BadRowError(ValueError):
    """A row that can't be used; its text is the reason."""


class ForeignRowError(BadRowError):
    """A row of another dataset than the preset's, although it has the columns; its text says what gives it away."""


@dataclass(frozen=True)
class BadRow:
    """A row that was left out: where it stands, and why."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


class NotOnHubError(ConfigError):
    """A dataset of the hub that can't be loaded here; the text ends with the advice to give a file instead."""


def read_rows(
    path: str, subset: str | None = None, split: str | None = None, files: Sequence[str] = ()
) -> Iterator[tuple[str, Row | BadRow]]:
    """The rows of a file or of a Hugging Face dataset, each with its place (``train.jsonl:12``).

    A JSON line that can't be read comes as a :class:`BadRow`. With ``files``, these JSONL files of the dataset are
    read, one after the other, instead of a subset and split.

    Raises:
        ConfigError: there is nothing at ``path`` that can be read.
    """
    file = Path(path)
    if file.suffix not in FILE_TYPES:
        yield from _read_hub_files(path, files) if files else _read_hub(path, subset, split)
        return
    if not file.is_file():
        raise ConfigError(f"data file {path!r} does not exist; give a {', '.join(FILE_TYPES)} file.")
    read = {".jsonl": _read_jsonl, ".json": _read_json, ".parquet": _read_parquet}[file.suffix]
    yield from read(file)


def _read_jsonl(file: Path) -> Iterator[tuple[str, Row | BadRow]]:
    # Split on the newline byte alone: str.splitlines also breaks at U+2028, which JSON strings may hold.
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{file.name}:{number}"
                yield place, _parse_object(line, place)


def _parse_object(line: bytes, place: str) -> Row | BadRow:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRow(place, f"not valid JSON ({error})")
    return row if isinstance(row, dict) else BadRow(place, f"a JSON object is needed, not a {type(row).__name__}")


def _read_json(file: Path) -> Iterator[tuple[str, Row | BadRow]]:
    try:
        rows = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"data file {str(file)!r} is not valid JSON: {error}.") from None
    if not isinstance(rows, list):
        raise ConfigError(f"data file {str(file)!r} must hold a list of objects, not a {type(rows).__name__}.")
    for number, row in enumerate(rows, start=1):
        place = f"{file.name} row {number}"
        yield place, row if isinstance(row, dict) else BadRow(place, "not a JSON object")


def _read_parquet(file: Path) -> Iterator[tuple[str, Row | BadRow]]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        batches = ParquetFile(file).iter_batches(batch_size=1024)
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from ((f"{file.name} row {number}", row) for number, row in enumerate(rows, start=1))
    except ArrowInvalid as error:
        raise ConfigError(f"data file {str(file)!r} is not a parquet file: {str(error).rstrip('.')}.") from None


def _read_hub(path: str, subset: str | None, split: str | None) -> Iterator[tuple[str, Row | BadRow]]:
    from datasets import load_dataset

    try:
        dataset = load_dataset(path, subset, split=split or "train")
    except Exception as error:
        raise _not_loaded(path, error) from None
    name = f"{path} {subset}" if subset else path
    for number, row in enumerate(dataset, start=1):
        yield f"{name} row {number}", row


def _read_hub_files(path: str, files: Sequence[str]) -> Iterator[tuple[str, Row | BadRow]]:
    from huggingface_hub import hf_hub_download

    try:
        local = [Path(hf_hub_download(path, name, repo_type="dataset")) for name in files]
    except Exception as error:
        raise _not_loaded(path, error) from None
    for file in local:
        yield from _read_jsonl(file)


def _not_loaded(path: str, error: Exception) -> NotOnHubError:
    """The hub's client raises errors of many kinds: no network, no such dataset, no such split, no permission."""
    cause = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return NotOnHubError(
        f"dataset {path!r} is neither a {', '.join(FILE_TYPES)} file nor a Hugging Face dataset that can be loaded "
        f"here ({cause}); give a local file with its rows instead."
    )


def column(row: Row, path: str) -> Any:
    """The value at a column; dots go into objects and lists.

    Raises:
        BadRowError: it is not there.

    >>> column({"prompt": [{"role": "user", "content": "1 + 1?"}]}, "prompt.0.content")
    '1 + 1?'
    """
    value: Any = row
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise BadRowError(
                f"has no column {path!r} (its columns are {', '.join(map(str, row)) or 'none'})"
            ) from None
    return value


def text_column(row: Row, path: str) -> str:
    """The text at a column; a number is written as the shortest text for it.

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


def first_column(row: Row, *paths: str) -> str:
    """The text of the first of these columns that the row has."""
    present = [path for path in paths if path.split(".")[0] in row]
    return text_column(row, present[0] if present else paths[0])


def refuse_bad_rows(bad: list[BadRow], *, skip: bool) -> None:
    """Raise with the list of bad rows, unless they are to be skipped.

    Raises:
        ConfigError: there are bad rows, each on a line of its own.
    """
    if not bad or skip:
        return
    listed = "\n".join(f"  {row}" for row in islice(bad, SHOWN_BAD_ROWS))
    more = f"\n  and {len(bad) - SHOWN_BAD_ROWS} more" if len(bad) > SHOWN_BAD_ROWS else ""
    raise ConfigError(
        f"{len(bad)} bad row(s); mend them, or leave them out with --skip-bad-rows (task.skip_bad_rows = true):\n"
        f"{listed}{more}"
    )


def digest(*parts: str) -> str:
    """A short id of some texts, the same everywhere."""
    return hashlib.blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=8).hexdigest()
