"""Samples on disk, written as they come, so that an interrupted evaluation goes on where it stopped.

A store is a folder, ``NAME-samples`` beside the evaluation ``NAME.json``::

    _key.json            how the samples were made: model, backend, sampling settings, verifier
    part-000000.parquet  one row per sample; process 1 writes part-000000-1.parquet, and so on

A part is never half written. ``docs/run-folder.md`` describes the columns.
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

FLUSH_SECONDS = 5.0  # a process that is killed loses at most the samples of so many seconds
SUMMARY_COLUMNS = (
    "problem_id", "index", "prompt", "text", "status", "reason", "canonical",
    "tokens", "entropy", "surprisal", "answer_confidence", "truncated",
)  # fmt: skip
"""The last five are the last fields of :class:`Judged`, in their order."""
TOKEN_COLUMNS = ("token_ids", "logps", "entropies")


@dataclass(frozen=True)
class Judged:
    """A sample and the verdict on it, with means over its tokens, which are None if they are not known.

    Attributes:
        entropy: of the distribution that each token was drawn from, in nats.
        surprisal: -log p, in nats, which estimates the entropy from the drawn tokens.
        answer_confidence: c(o|q) at the default low_prob_fraction, 0.2.
    """

    text: str
    verdict: Verdict
    tokens: int
    entropy: float | None
    surprisal: float | None
    answer_confidence: float | None
    truncated: bool

    @classmethod
    def of(cls, sample: Sample, verdict: Verdict) -> "Judged":
        """The judged form of a sample.

        >>> judged = Judged.of(Sample("4", [7, 2], [-0.5, -1.5], [1.0, 2.0]), Verdict("correct", canonical="4"))
        >>> judged.tokens, judged.entropy, judged.surprisal
        (2, 1.5, 1.0)
        """
        entropy = surprisal = confidence = None
        if sample.entropies:
            entropy = math.fsum(sample.entropies) / len(sample.entropies)
        if sample.logps:
            surprisal = math.fsum(-logp for logp in sample.logps) / len(sample.logps)
            logps_1T = torch.tensor([sample.logps], dtype=torch.float64).clamp(max=0.0)
            confidence = answer_confidence(logps_1T, torch.ones_like(logps_1T, dtype=torch.bool)).item()
        return cls(sample.text, verdict, sample.tokens, entropy, surprisal, confidence, sample.truncated)


class SampleStore:
    """The samples of one evaluation: one model, one task, one way of sampling.

    ``key`` has the settings with which the samples were made, by name; raises ConfigError if the folder holds samples
    with another key. ``writer`` is the number of this process, if several write to the folder at the same time.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], *, writer: int = 0) -> None:
        self.folder, self._suffix = folder, f"-{writer}" if writer else ""
        self._rows: list[dict[str, Any]] = []
        self._flushed = time.monotonic()
        file = folder / "_key.json"
        if not file.exists():
            write_json(file, dict(key))
            return
        stored = read_json(file, "put it back from a copy, or remove its folder with all its samples")
        differences = ", ".join(
            f"{name} {stored.get(name)!r}, not {key.get(name)!r}"
            for name in {**stored, **key}
            if stored.get(name) != key.get(name)
        )
        if differences:
            raise ConfigError(
                f"{str(folder)!r} holds samples of another evaluation ({differences}); choose another --out, or remove "
                "it."
            )

    def judged(self, problems: Sequence[Problem]) -> dict[str, list[Judged]]:
        """The stored samples by problem: samples 0, 1, 2, ... up to the first that is missing. Raises ConfigError if a
        problem's prompt has changed, or a part is damaged."""
        prompts = {problem["problem_id"]: prompt_text(problem["prompt"]) for problem in problems}
        stored: dict[str, dict[int, Judged]] = {}
        for row in (row for batch in _batches(self.folder, SUMMARY_COLUMNS) for row in batch.to_pylist()):
            problem, index, prompt, text, *verdict = (row[name] for name in SUMMARY_COLUMNS[:7])
            if problem not in prompts:
                continue
            if prompt != prompts[problem]:
                raise ConfigError(
                    f"{str(self.folder)!r} holds samples of another prompt for problem {problem!r}; choose another "
                    "--out, or remove it."
                )
            sample = Judged(text, Verdict(*verdict), *(row[name] for name in SUMMARY_COLUMNS[7:]))
            # If a sample was written twice, the first counts.
            stored.setdefault(problem, {}).setdefault(index, sample)
        missing = {problem: next(i for i in count() if i not in samples) for problem, samples in stored.items()}
        return {problem: [stored[problem][i] for i in range(end)] for problem, end in missing.items()}

    def append(
        self, problem: Problem, first: int, samples: Sequence[Sample], verdicts: Sequence[Verdict]
    ) -> list[Judged]:
        """Add a problem's samples ``first``, ``first + 1``, ... with their verdicts. They are on disk soon after."""
        judged = [Judged.of(sample, verdict) for sample, verdict in zip(samples, verdicts, strict=True)]
        prompt = prompt_text(problem["prompt"])
        for i, (sample, summary) in enumerate(zip(samples, judged, strict=True), start=first):
            row = {"problem_id": problem["problem_id"], "index": i, "prompt": prompt} | asdict(summary)
            row |= row.pop("verdict") | {name: getattr(sample, name) for name in TOKEN_COLUMNS}
            self._rows.append(row)
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

        types = {"index": pa.int32(), "tokens": pa.int32(), "truncated": pa.bool_(), "token_ids": pa.list_(pa.int32())}
        types |= dict.fromkeys(("entropy", "surprisal", "answer_confidence"), pa.float64())
        types |= dict.fromkeys(("logps", "entropies"), pa.list_(pa.float32()))
        schema = pa.schema([(name, types.get(name, pa.string())) for name in (*SUMMARY_COLUMNS, *TOKEN_COLUMNS)])
        with write_file(self.next_part()) as beside:
            write_table(pa.Table.from_pylist(self._rows, schema=schema), beside)
        self._rows = []

    def next_part(self) -> Path:
        """The file for this writer's next samples."""
        numbers = [int(part.stem.split("-")[1]) for part in self.folder.glob("part-*.parquet")]
        return self.folder / f"part-{max(numbers, default=-1) + 1:06d}{self._suffix}.parquet"


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
    """A store's samples as a table, each sample once. By default, the columns with a value per token are left out.

    ``columns`` are some of :data:`SUMMARY_COLUMNS` and :data:`TOKEN_COLUMNS`. With ``first``, only samples 0 to
    first - 1 of each problem are read. The store may still be written to.
    """
    import pandas as pd

    needed = list(dict.fromkeys(("problem_id", "index", *columns)))
    read = (batch.to_pandas() for batch in _batches(folder, needed))
    frames = [frame if first is None else frame[frame["index"] < first] for frame in read]
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=needed)
    return table.drop_duplicates(["problem_id", "index"])[list(columns)].reset_index(drop=True)
