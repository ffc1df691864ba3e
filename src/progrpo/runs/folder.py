"""The run folder: everything that a run leaves behind. ``docs/run-folder.md`` describes it for readers.

::

    recipe.json           the resolved recipe
    environment.json      versions, seed, device
    metrics.jsonl         one line a step
    rollouts/             step-000010-rank0.parquet: every response of a step
    evaluations/          step-000050.json, final.json, and final-samples/
    checkpoints/          checkpoint-50: in transformers' own format, sealed with digests.json
    events.jsonl          what happened to the run: one line for each start, stop and fault
    failed-step-000012/   the batch of a step whose loss or gradient was not finite
    report.html
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from progrpo.common.environment import process_index
from progrpo.common.errors import ConfigError
from progrpo.common.files import append_line, check_writable, damaged_file, locked, read_json, write_json, write_text
from progrpo.recipes.schema import Recipe, load_recipe
from progrpo.runs.checkpoints import EVERYTHING, fault, in_folder, set_aside, step_of
from progrpo.runs.rollouts import step_of_file

logger = logging.getLogger(__name__)

FINAL = "final"
_HIDDEN = ".recorded"


class RunFolder:
    """Paths and records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / "recipe.json"
        self.environment_file = path / "environment.json"
        self.metrics_file = path / "metrics.jsonl"
        self.events_file = path / "events.jsonl"
        self.checkpoints = path / "checkpoints"
        self.rollouts = path / "rollouts"
        self.evaluations = path / "evaluations"
        self.final_samples = self.evaluations / f"{FINAL}-samples"
        self.report = path / "report.html"

    # Holding the folder, and beginning

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process and those launched with it, as two runs would overwrite each other's files.

        A ConfigError is raised if another run holds it, or it can't be written.
        """
        if process_index():
            yield  # the first process holds it for all
            return
        is_new = not self.path.exists()
        with locked(self.path):
            try:
                self.check_writable()
                yield
            finally:
                if is_new and not self.recipe_file.exists():  # a run that was refused leaves nothing behind
                    shutil.rmtree(self.path, ignore_errors=True)

    def check_writable(self) -> None:
        """Raise a ConfigError unless the run can write its files; the first process does this for all."""
        if process_index():
            return
        check_writable(self.path)
        for folder in (self.checkpoints, self.rollouts, self.evaluations):
            if folder.exists():
                check_writable(folder)

    def open(self, recipe: Recipe, *, resume: bool, check: Callable[[Path], None] | None = None) -> int:
        """The step to start from, 0 in a new folder; a run that is resumed goes back to it (:meth:`rewind`).

        A ConfigError is raised if the folder already holds a run, or one of another recipe, or by :meth:`rewind`.
        """
        if not self.recipe_file.exists():
            return 0
        if not resume:
            raise ConfigError(
                f"{str(self.path)!r} already holds a run; continue it with --resume, or choose another folder with "
                "--out."
            )
        if self.recipe() != recipe:
            raise ConfigError(
                f"{str(self.path)!r} holds a run of another recipe; resume it as it is, without overrides."
            )
        return self.rewind(check)

    def start(self, recipe: Recipe, environment: dict[str, Any]) -> None:
        """Write the recipe and the environment, before the run begins."""
        write_json(self.recipe_file, recipe.model_dump())
        write_json(self.environment_file, environment)

    # Records

    def recipe(self) -> Recipe:
        """The resolved recipe; a ConfigError if the folder is not a run folder."""
        if not self.recipe_file.exists():
            raise ConfigError(f"{str(self.path)!r} is not a run folder: it has no recipe.json.")
        return load_recipe(str(self.recipe_file))

    def environment(self) -> dict[str, Any]:
        """The run's versions, seed and device; empty before it has started."""
        return read_json(self.environment_file) if self.environment_file.exists() else {}

    def note(self, event: str, text: str = "", **values: Any) -> None:
        """Add a line to events.jsonl; a text is for people, and is logged as well."""
        if process_index():
            return
        record = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event} | values
        append_line(self.events_file, json.dumps(record | ({"text": text} if text else {})))
        if text:
            logger.warning(text)

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl, whole or not at all."""
        append_line(self.metrics_file, json.dumps(record, allow_nan=False))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, each with its ``step``; a ConfigError if one is damaged.

        A last line without a line end is still being written, and is left out.
        """
        try:
            text = self.metrics_file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise damaged_file(self.metrics_file, error) from None
        records = []
        for number, line in enumerate(text.split("\n")[:-1], start=1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict) or not isinstance(record.get("step"), int):
                raise ConfigError(
                    f"line {number} of {str(self.metrics_file)!r} is damaged; put the file back from a copy, or remove "
                    "the line."
                )
            records.append(record)
        return records

    def evaluation_files(self) -> dict[int, Path]:
        """The files of the evaluations that were made during training, by step."""
        return {step_of_file(path): path for path in sorted(self.evaluations.glob("step-*.json"))}

    def is_finished(self) -> bool:
        """Whether the run has its final evaluation, the last thing that it writes."""
        return (self.evaluations / f"{FINAL}.json").exists()

    # Checkpoints

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint, which may be damaged: see :meth:`good_checkpoint`."""
        return next(iter(in_folder(self.checkpoints)), None)

    def good_checkpoint(self, parts: Sequence[str] = EVERYTHING) -> tuple[Path | None, list[tuple[Path, str]]]:
        """The newest checkpoint in whose ``parts`` :func:`fault` finds none, and each newer one with its fault."""
        faults: list[tuple[Path, str]] = []
        for checkpoint in in_folder(self.checkpoints):
            if (reason := fault(checkpoint, parts)) is None:
                return checkpoint, faults
            faults.append((checkpoint, reason))
        return None, faults

    def rewind(self, check: Callable[[Path], None] | None = None) -> int:
        """Go back to the newest good checkpoint, from which a resumed run continues, and return its step.

        Damaged checkpoints are set aside, and the records after the good one are removed. Two kinds of records stay,
        so that nothing is scored twice: rollouts, under the hidden names of :meth:`recorded_rollouts`, and samples of
        evaluations. Before anything is changed, a ConfigError is raised if checkpoints were written and none is good,
        or by ``check`` for a checkpoint from which training can't continue.
        """
        checkpoint, faults = self.good_checkpoint()
        if checkpoint is not None and check is not None:
            check(checkpoint)
        metrics = self.metrics()
        if checkpoint is None:
            self._refuse_lost_checkpoints(faults, metrics[-1]["step"] if metrics else 0)
        for damaged, reason in faults:
            assert checkpoint is not None, "or else the run was refused"
            aside, good = set_aside(damaged).name, checkpoint.name
            text = f"{damaged.name} can't be used: {reason}; it is kept as {aside}, and the run goes on from {good}."
            self.note("fell back", text, checkpoint=good)
        step = step_of(checkpoint) if checkpoint else 0
        if self.metrics_file.exists():
            kept = [record for record in metrics if record["step"] <= step]
            write_text(self.metrics_file, "".join(json.dumps(record) + "\n" for record in kept))
        for path in self.rollouts.glob("step-*.parquet"):
            if step_of_file(path) > step:
                path.rename(path.with_name(f".{path.stem}{_HIDDEN}"))
        for path in self.recorded_rollouts():
            if step_of_file(path) <= step:
                path.unlink()
        for file_step, path in self.evaluation_files().items():
            if file_step > step:
                path.unlink()
        self.remove_leftovers()
        return step

    def recorded_rollouts(self) -> list[Path]:
        """The rollouts of steps that will be repeated. The verdicts in them still hold."""
        return sorted(self.rollouts.glob(f".step-*{_HIDDEN}"))

    def _refuse_lost_checkpoints(self, faults: list[tuple[Path, str]], step: int) -> None:
        if faults:
            reasons = "; ".join(f"{checkpoint.name}: {reason}" for checkpoint, reason in faults)
            raise ConfigError(
                f"no checkpoint of {str(self.path)!r} can be used ({reasons}); put one back from a copy, or train "
                "again in another folder with --out."
            )
        if step and step > self.recipe().training.checkpoint_every:
            raise ConfigError(
                f"{str(self.path)!r} has metrics up to step {step} but no checkpoint in checkpoints/, where one was "
                "written; put it back, or train again in another folder with --out."
            )

    def remove_leftovers(self) -> None:
        """Remove the temporary files and folders of a process that was killed."""
        stores = self.evaluations.glob("*-samples")
        for folder in (self.path, self.checkpoints, self.rollouts, self.evaluations, *stores):
            for leftover in folder.glob(".*.tmp"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
