"""The run folder: everything that a run leaves behind. ``docs/run-folder.md`` describes it for readers.

::

    recipe.json           the resolved recipe
    environment.json      versions, seed, device
    metrics.jsonl         one line a step
    rollouts/             step-000010-rank0.parquet: every response of a step
    evaluations/          step-000050.json, final.json, and final-samples/
    checkpoints/          checkpoint-50: in transformers' own format
    report.html
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from progrpo.config import Recipe, load_recipe
from progrpo.errors import ConfigError
from progrpo.files import write_json, write_text

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

    def start(self, recipe: Recipe, environment: dict[str, Any]) -> None:
        """Write down what the run is, before it runs."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.recipe_file, recipe.model_dump())
        write_json(self.path / "environment.json", environment)

    def append_metrics(self, record: dict[str, Any]) -> None:
        """One more line of metrics.jsonl, in one write: a killed process leaves whole lines."""
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        handle = os.open(self.metrics_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line without its end is not one yet."""
        if not self.metrics_file.exists():
            return []
        lines = self.metrics_file.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint."""
        found = {_step(path): path for path in self.checkpoints.glob("checkpoint-*")}
        return found[max(found)] if found else None

    def rewind(self) -> int:
        """Drop what was recorded after the newest checkpoint, so that a resumed run writes it again; its step."""
        checkpoint = self.last_checkpoint()
        step = _step(checkpoint) if checkpoint else 0
        kept = [record for record in self.metrics() if record["step"] <= step]
        if self.metrics_file.exists():
            write_text(self.metrics_file, "".join(json.dumps(record) + "\n" for record in kept))
        for path in (*self.rollouts.glob("step-*"), *self.evaluations.glob("step-*")):
            if _step(path) > step:
                path.unlink()
        for leftover in self._leftovers():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        return step

    def is_finished(self) -> bool:
        """Whether the run's final evaluation is there: it is the last thing that a run writes."""
        return (self.evaluations / f"{FINAL}.json").exists()

    def evaluation(self, name: str) -> dict[str, Any] | None:
        """An evaluation by name (``final``, ``step-000050``), None if there is none."""
        path = self.evaluations / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def evaluations_by_step(self) -> dict[int, dict[str, Any]]:
        """The evaluations made in training, by step."""
        names = sorted(path.stem for path in self.evaluations.glob("step-*.json"))
        return {_step(Path(name)): self.evaluation(name) or {} for name in names}

    def _leftovers(self) -> Iterator[Path]:
        """What a killed process was writing: hidden files and folders beside the ones they would have become."""
        for folder in (self.path, self.checkpoints, self.rollouts, self.evaluations):
            yield from folder.glob(".*.tmp")


def _step(path: Path) -> int:
    """50 of ``checkpoint-50`` and of ``step-000050-rank0.parquet``."""
    return int(path.name.split("-")[1].split(".")[0])
