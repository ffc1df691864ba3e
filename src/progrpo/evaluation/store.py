"""Samples on disk: appended as they come, so that an interrupted evaluation goes on where it stopped.

A store is a folder, ``NAME-samples`` beside the evaluation ``NAME.json``::

    _key.json            what the samples are of: model, backend, sampling settings, verifier
    part-000000.parquet  one row a sample; each part is whole or not there; part-000000-1.parquet is of process 1

``docs/run-folder.md`` describes the columns.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from progrpo.common.errors import ConfigError
from progrpo.common.files import read_json, write_file, write_json
from progrpo.core import answer_confidence
from progrpo.sampling import Sample
from progrpo.tasks import Problem
from progrpo.tasks.templates import prompt_text
from progrpo.verify import Verdict

if TYPE_CHECKING:
    import pandas as pd

FLUSH_SECONDS = 5.0
"""A killed process loses at most the samples of so many seconds."""


@dataclass(frozen=True)
class Judged:
    """A sample and the verdict on it, with its tokens summed up."""

    text: str
    verdict: Verdict
    tokens: int
    entropy: float | None
    """Mean over its tokens of the entropy of the distribution that each was drawn from, in nats; None if not known."""
    surprisal: float | None
    """Mean over its tokens of -log p, in nats: an estimate of the same from the tokens that were drawn."""
    answer_confidence: float | None
    """c(o|q) at the default low_prob_fraction, 0.2."""
    truncated: bool

    @classmethod
    def of(cls, sample: Sample, verdict: Verdict) -> "Judged":
        """The sample, summed up.

        >>> judged = Judged.of(Sample("4", [7, 2], [-0.5, -1.5], [1.0, 2.0]), Verdict("correct", canonical="4"))
        >>> judged.tokens, judged.entropy, judged.surprisal
        (2, 1.5, 1.0)
        """
        entropy = _mean(sample.entropies) if sample.entropies is not None else None
        surprisal = _mean([-logp for logp in sample.logps])
        return cls(sample.text, verdict, sample.tokens, entropy, surprisal, _confidence(sample.logps), sample.truncated)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _confidence(logps: Sequence[float]) -> float | None:
    if not logps:
        return None
    logps_1T = torch.tensor([logps], dtype=torch.float64).clamp(max=0.0)
    return answer_confidence(logps_1T, torch.ones_like(logps_1T, dtype=torch.bool)).item()


SUMMARY_COLUMNS = (
    "problem_id",
    "index",
    "prompt",
    "text",
    "status",
    "reason",
    "canonical",
    "tokens",
    "entropy",
    "surprisal",
    "answer_confidence",
    "truncated",
)
TOKEN_COLUMNS = ("token_ids", "logps", "entropies")


class SampleStore:
    """The samples of one evaluation: one model, one task, one way of sampling.

    Args:
        folder: made if it is not there.
        key: what tells these samples from others, by name.
        writer: tells those apart who write to the folder at the same time.

    Raises:
        ConfigError: the folder holds samples with another key.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], *, writer: int = 0) -> None:
        self.folder, self._writer = folder, f"-{writer}" if writer else ""
        self._rows: list[dict[str, Any]] = []
        self._flushed = time.monotonic()
        file = folder / "_key.json"
        if not file.exists():
            write_json(file, dict(key))
            return
        found = read_json(file, "put it back from a copy, or remove the folder that it is in, samples and all")
        differing = [name for name in {**found, **key} if found.get(name) != key.get(name)]
        if differing:
            told = ", ".join(f"{name} {found.get(name)!r}, not {key.get(name)!r}" for name in differing)
            raise ConfigError(
                f"{str(folder)!r} holds samples of another evaluation ({told}); choose another --out, or remove it."
            )

    def judged(self, problems: Sequence[Problem]) -> dict[str, list[Judged]]:
        """The samples that are there, by problem: samples 0, 1, 2, ..., as far as none is missing.

        Raises:
            ConfigError: a problem's prompt is another now, or a part is damaged.
        """
        found: dict[str, dict[int, Judged]] = {}
        prompts = {problem["problem_id"]: prompt_text(problem["prompt"]) for problem in problems}
        for row in self._read():
            problem = row["problem_id"]
            if prompts.get(problem, row["prompt"]) != row["prompt"]:
                raise ConfigError(
                    f"{str(self.folder)!r} holds samples of another prompt for problem {problem!r}; choose another "
                    "--out, or remove it."
                )
            verdict = Verdict(row["status"], row["reason"], row["canonical"])
            summed = {name: row[name] for name in _JUDGED_COLUMNS}
            # The first of two counts: none is ever counted twice.
            found.setdefault(problem, {}).setdefault(row["index"], Judged(verdict=verdict, **summed))
        return {
            problem: [by_index[i] for i in range(_gap(by_index))]
            for problem, by_index in found.items()
            if problem in prompts
        }

    def append(
        self, problem: Problem, first: int, samples: Sequence[Sample], verdicts: Sequence[Verdict]
    ) -> list[Judged]:
        """Add a problem's samples ``first``, ``first + 1``, ... with their verdicts; they are on disk soon after."""
        judged = [Judged.of(sample, verdict) for sample, verdict in zip(samples, verdicts, strict=True)]
        for i, (sample, one) in enumerate(zip(samples, judged, strict=True), start=first):
            place = {"problem_id": problem["problem_id"], "index": i, "prompt": prompt_text(problem["prompt"])}
            summed = {name: getattr(one, name) for name in _JUDGED_COLUMNS}
            tokens = {name: value for name, value in asdict(sample).items() if name in TOKEN_COLUMNS}
            self._rows.append(place | summed | tokens | asdict(one.verdict))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()
        return judged

    def flush(self) -> None:
        """Write what was appended."""
        self._flushed = time.monotonic()
        if not self._rows:
            return
        import pyarrow as pa
        from pyarrow.parquet import write_table

        table = pa.Table.from_pylist(self._rows, schema=_schema())
        with write_file(self.next_part()) as beside:
            write_table(table, beside)
        self._rows = []

    def next_part(self) -> Path:
        """The file that this writer's samples go to next."""
        number = max((_number(part) for part in self._parts()), default=-1) + 1
        return self.folder / f"part-{number:06d}{self._writer}.parquet"

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))

    def _read(self) -> Iterator[dict[str, Any]]:
        for row in _batches(self.folder, SUMMARY_COLUMNS):
            yield from row.to_pylist()


_FLOATS = ("entropy", "surprisal", "answer_confidence")
_JUDGED_COLUMNS = ("text", "tokens", *_FLOATS, "truncated")
"""The fields of :class:`Judged` that are columns; its verdict is three more."""


def _schema() -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    types = {"index": pa.int32(), "tokens": pa.int32(), "truncated": pa.bool_()} | dict.fromkeys(_FLOATS, number)
    types |= {"token_ids": pa.list_(pa.int32()), "logps": pa.list_(pa.float32()), "entropies": pa.list_(pa.float32())}
    return pa.schema([(name, types.get(name, text)) for name in (*SUMMARY_COLUMNS, *TOKEN_COLUMNS)])


def _batches(folder: Path, columns: Sequence[str]) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    for part in sorted(folder.glob("part-*.parquet")):
        try:
            with ParquetFile(part) as file:
                yield from file.iter_batches(batch_size=1024, columns=list(columns))
        except (OSError, ValueError) as error:  # ValueError: pyarrow's ArrowInvalid
            raise ConfigError(
                f"{str(part)!r} is damaged ({str(error).splitlines()[0]}); remove it, and its samples are drawn again."
            ) from None


def read_samples(folder: Path, columns: Sequence[str] = SUMMARY_COLUMNS, *, first: int | None = None) -> "pd.DataFrame":
    """A store's samples as a table, each once, without the columns over tokens unless they are asked for.

    Args:
        folder: of a :class:`SampleStore`; it may still be written to.
        columns: of :data:`SUMMARY_COLUMNS` and :data:`TOKEN_COLUMNS`.
        first: read only samples 0 to first - 1 of each problem; all by default.
    """
    import pandas as pd

    needed = list(dict.fromkeys(("problem_id", "index", *columns)))
    read = (batch.to_pandas() for batch in _batches(folder, needed))
    frames = [frame if first is None else frame[frame["index"] < first] for frame in read]
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=needed)
    return table.drop_duplicates(["problem_id", "index"])[list(columns)].reset_index(drop=True)


def _gap(by_index: Mapping[int, Any]) -> int:
    """The first index that is missing."""
    return next(i for i in count() if i not in by_index)


def _number(part: Path) -> int:
    return int(part.stem.split("-")[1])
