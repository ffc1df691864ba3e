"""The run folder: everything that a run leaves behind. ``docs/run-folder.md`` describes it for readers.

::

    recipe.json           the resolved recipe
    environment.json      versions, seed, device
    metrics.jsonl         one line a step
    rollouts/             step-000010-rank0.parquet: every response of a step
    evaluations/          step-000050.json, final.json, and final-samples/
    checkpoints/          checkpoint-50: in transformers' own format, sealed with digests.json
    events.jsonl          what happened to the run: one line a start, a stop, a fault
    failed-step-000012/   the batch of a step whose loss or gradient was no number
    report.html
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from progrpo.common.environment import process_index
from progrpo.common.errors import ConfigError
from progrpo.common.files import append_line, check_writable, damaged_file, locked, read_json, write_json, write_text
from progrpo.recipes.schema import Recipe, load_recipe
from progrpo.runs.checkpoints import EVERYTHING, fault, in_folder, set_aside, step_of

logger = logging.getLogger(__name__)

FINAL = "final"


@dataclass(frozen=True)
class RunFolder:
    """Paths and records of one run."""

    path: Path

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations"

    @property
    def final_samples(self) -> Path:
        return self.evaluations / f"{FINAL}-samples"

    def failed_step(self, step: int) -> Path:
        """Where the batch of a step whose loss or gradient was no number is kept."""
        return self.path / f"failed-step-{step:06d}"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def recipe(self) -> Recipe:
        """The resolved recipe.

        Raises:
            ConfigError: the folder is not a run folder.
        """
        if not self.recipe_file.exists():
            raise ConfigError(f"{str(self.path)!r} is not a run folder: it has no recipe.json.")
        return load_recipe(str(self.recipe_file))

    def environment(self) -> dict[str, Any]:
        """What the run ran on, empty before it has."""
        file = self.path / "environment.json"
        return read_json(file) if file.exists() else {}

    def start(self, recipe: Recipe, environment: dict[str, Any]) -> None:
        """Write down what the run is, before it runs."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.recipe_file, recipe.model_dump())
        write_json(self.path / "environment.json", environment)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process, or the processes that were launched with it: two runs in one folder would
        write over each other.

        Raises:
            ConfigError: another run is in it, or it can't be written.
        """
        if process_index():
            yield  # the first one holds it for all
            return
        is_new = not self.path.exists()
        with locked(self.path):
            try:
                self.check_writable()
                yield
            finally:
                if is_new and not self.recipe_file.exists():  # what was refused leaves nothing behind
                    shutil.rmtree(self.path, ignore_errors=True)

    def check_writable(self) -> None:
        """See that files can be written where the run will write them; the first process does, for all.

        Raises:
            ConfigError: they can't.
        """
        if process_index():
            return
        check_writable(self.path)
        for folder in (self.checkpoints, self.rollouts, self.evaluations):
            if folder.exists():
                check_writable(folder)

    def note(self, event: str, text: str = "", **values: Any) -> None:
        """One more line of events.jsonl; a text is for people, and goes to the terminal as well."""
        if process_index():
            return
        record = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event} | values
        append_line(self.events_file, json.dumps(record | ({"text": text} if text else {})))
        if text:
            logger.warning(text)

    def events(self) -> list[dict[str, Any]]:
        """The lines of events.jsonl."""
        return _lines(self.events_file)

    def append_metrics(self, record: dict[str, Any]) -> None:
        """One more line of metrics.jsonl, whole or not at all."""
        append_line(self.metrics_file, json.dumps(record, allow_nan=False))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, each with its ``step``.

        Raises:
            ConfigError: a line is damaged.
        """
        return _lines(self.metrics_file, of_steps=True)

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint, as it is: see :meth:`good_checkpoint`."""
        return next(iter(in_folder(self.checkpoints)), None)

    def good_checkpoint(self, parts: Sequence[str] = EVERYTHING) -> tuple[Path | None, list[tuple[Path, str]]]:
        """The newest checkpoint whose files are what was written, and what is wrong with each newer one.

        Args:
            parts: the files that matter, as in :func:`progrpo.runs.checkpoints.fault`.
        """
        faults: list[tuple[Path, str]] = []
        for checkpoint in in_folder(self.checkpoints):
            reason = fault(checkpoint, parts)
            if reason is None:
                return checkpoint, faults
            faults.append((checkpoint, reason))
        return None, faults

    def rewind(self, check: Callable[[Path], None] | None = None) -> int:
        """Go back to the newest checkpoint that is whole, so that a resumed run goes on from there; its step.

        Checkpoints that are damaged are set aside, and what was recorded after the good one is dropped. Two things are
        kept, so that nothing is scored a second time: rollouts, under the hidden names that
        :meth:`recorded_rollouts` finds, and samples of evaluations.

        Args:
            check: raises for a checkpoint that can't be gone on from; nothing has been touched then.

        Raises:
            ConfigError: checkpoints were written, and none is whole.
        """
        checkpoint, faults = self.good_checkpoint()
        if checkpoint is not None and check is not None:
            check(checkpoint)
        recorded = self.metrics()
        if checkpoint is None:
            self._check_none_was_lost(faults, recorded[-1]["step"] if recorded else 0)
        for damaged, reason in faults:
            assert checkpoint is not None, "or else there was an error"
            aside = set_aside(damaged)
            self.note(
                "fell back",
                f"{damaged.name} can't be used: {reason}; it is kept as {aside.name}, and the run goes on from "
                f"{checkpoint.name}.",
                checkpoint=checkpoint.name,
            )
        step = step_of(checkpoint) if checkpoint else 0
        if self.metrics_file.exists():
            kept = [record for record in recorded if record["step"] <= step]
            write_text(self.metrics_file, "".join(json.dumps(record) + "\n" for record in kept))
        for path in self.rollouts.glob("step-*.parquet"):
            if _step(path) > step:
                path.rename(path.with_name(f".{path.stem}{_RECORDED}"))
        for path in self.recorded_rollouts():
            if _step(path) <= step:
                path.unlink()
        for path in self.evaluations.glob("step-*.json"):
            if _step(path) > step:
                path.unlink()
        self.remove_leftovers()
        return step

    def recorded_rollouts(self) -> list[Path]:
        """Rollouts of steps that were taken back: the steps come again, and the verdicts in them still hold."""
        return sorted(self.rollouts.glob(f".step-*{_RECORDED}"))

    def _check_none_was_lost(self, faults: list[tuple[Path, str]], step: int) -> None:
        if faults:
            told = "; ".join(f"{checkpoint.name}: {reason}" for checkpoint, reason in faults)
            raise ConfigError(
                f"no checkpoint of {str(self.path)!r} can be used ({told}); put one back from a copy, or train again "
                "in another folder with --out."
            )
        if step and step > self.recipe().training.checkpoint_every:
            raise ConfigError(
                f"{str(self.path)!r} has metrics up to step {step} and no checkpoint in checkpoints/, where one "
                "was written; put it back, or train again in another folder with --out."
            )

    def is_finished(self) -> bool:
        """Whether the run's final evaluation is there: it is the last thing that a run writes."""
        return (self.evaluations / f"{FINAL}.json").exists()

    def evaluation(self, name: str) -> dict[str, Any] | None:
        """An evaluation by name (``final``, ``step-000050``), None if there is none.

        Raises:
            ConfigError: its file is damaged.
        """
        path = self.evaluations / f"{name}.json"
        return read_json(path) if path.exists() else None

    def evaluation_files(self) -> dict[int, Path]:
        """The files of the evaluations made in training, by step."""
        return {_step(path): path for path in sorted(self.evaluations.glob("step-*.json"))}

    def remove_leftovers(self) -> None:
        """Remove what a killed process was writing: hidden files and folders beside what they would have become."""
        stores = self.evaluations.glob("*-samples")
        for folder in (self.path, self.checkpoints, self.rollouts, self.evaluations, *stores):
            for leftover in folder.glob(".*.tmp"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


_RECORDED = ".recorded"


def _step(path: Path) -> int:
    """50 of ``step-000050.json`` and of ``step-000050-rank0.parquet``."""
    return int(path.name.split("-")[1].split(".")[0])


def _lines(file: Path, *, of_steps: bool = False) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a last line without its end is not one yet.

    Raises:
        ConfigError: a line is damaged.
    """
    if not file.exists():
        return []
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise damaged_file(file, error) from None
    found = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or (of_steps and not isinstance(record.get("step"), int)):
            raise ConfigError(
                f"line {number} of {str(file)!r} is damaged; put the file back from a copy, or remove the line."
            )
        found.append(record)
    return found
