"""Reading: run folders grouped by method, and evaluation folders grouped by benchmark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.common.files import damaged_file, read_json
from progrpo.evaluation.results import Evaluation
from progrpo.methods import METHODS
from progrpo.recipes.schema import Recipe
from progrpo.runs.folder import FINAL, RunFolder
from progrpo.runs.rollouts import read_rollout, recorded_steps


@dataclass(frozen=True)
class Samples:
    """The responses that an evaluation kept; ``label`` is their seed if a group has several evaluations."""

    label: str
    folder: Path
    run: RunFolder | None
    model: str


@dataclass(frozen=True)
class Run:
    """One run folder, read."""

    folder: RunFolder
    recipe: Recipe
    metrics: list[dict[str, Any]]
    evaluations: dict[int, Evaluation]
    """The evaluations during training, by step; step 0 is the base model."""
    final: Evaluation | None
    rollouts: list[dict[Any, Any]]
    """For each ``step`` with recorded rollouts, their mean c(o|q) by verdict, where there is one."""

    @property
    def label(self) -> str:
        """``GRPO, seed 0``."""
        return f"{METHODS[self.recipe.method].title}, seed {self.recipe.seed}"

    @property
    def last_step(self) -> int:
        """The newest step with metrics, 0 if there is none."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def remaining_work(self) -> str:
        """What a run without a final evaluation lacks, as the end of a sentence that begins with the run's name."""
        steps = self.recipe.training.steps
        if self.last_step < steps:
            return f"is not finished: {self.last_step} of {steps} steps are recorded, no final evaluation yet."
        return (
            f"has all its {steps} steps, but no final evaluation: it was interrupted, or its file was removed. To make "
            f"it, run: progrpo train --resume {self.folder.path}"
        )


@dataclass(frozen=True, kw_only=True)
class Group:
    """Evaluations that belong together: the seeds of a method on a run page, a model on an evaluation page."""

    name: str
    """The name of its mark in the figures."""
    title: str
    finals: list[Evaluation]
    samples: list[Samples]
    runs: Sequence[Run] = ()
    """All runs of a method, by seed, also unfinished ones. A model has none, so only problems are paired."""


def verdict_of(reward: float | None) -> str:
    """``right`` for a reward above 0, ``wrong`` for others, ``not judged`` where the verifier failed."""
    if reward is None or math.isnan(reward):
        return "not judged"
    return "right" if reward > 0 else "wrong"


def collect(folders: Sequence[RunFolder]) -> list[Group]:
    """Read the runs and group them by method, in the order of :data:`progrpo.methods.METHODS` (GRPO first).

    Raises:
        ConfigError: no run was given, or a folder is not a run folder.
    """
    if not folders:
        raise ConfigError("a report needs at least one run folder, got none.")
    by_method: dict[str, list[Run]] = {name: [] for name in METHODS}
    for run in sorted(map(_read, folders), key=lambda run: (run.recipe.seed, run.folder.path.name)):
        by_method[run.recipe.method].append(run)
    groups = []
    for name, runs in by_method.items():
        samples = []
        for run in runs:
            if run.final and run.folder.final_samples.is_dir():
                label = f"seed {run.recipe.seed}" if len(runs) > 1 else ""
                samples.append(Samples(label, run.folder.final_samples, run.folder, run.recipe.model.path))
        finals = [run.final for run in runs if run.final]
        groups.append(Group(name=name, title=METHODS[name].title, finals=finals, samples=samples, runs=runs))
    return [group for group in groups if group.runs]


def _read(folder: RunFolder) -> Run:
    recipe, metrics, final = folder.recipe(), folder.metrics(), folder.evaluations / f"{FINAL}.json"
    evaluations = {step: _read_evaluation(file) for step, file in folder.evaluation_files().items()}
    rollouts = []
    for step in recorded_steps(folder.rollouts):
        rows = read_rollout(folder.rollouts, step, ["reward", "answer_confidence"])
        confidence = rows["answer_confidence"].groupby(rows["reward"].map(verdict_of)).mean()
        rollouts.append({"step": step} | confidence.dropna().to_dict())
    return Run(folder, recipe, metrics, evaluations, _read_evaluation(final) if final.exists() else None, rollouts)


def _read_evaluation(file: Path) -> Evaluation:
    value = read_json(file)
    try:
        return Evaluation.from_json(value)
    except (KeyError, TypeError) as error:
        raise damaged_file(file, f"it is not an evaluation: {error}") from None


def base_evaluations(groups: Sequence[Group]) -> list[Evaluation]:
    """The evaluations of step 0, one for each seed: methods with the same model and seed drew the same samples."""
    runs = [run for group in groups for run in group.runs if 0 in run.evaluations]
    # A mean over two different starting models would mean nothing.
    if len({run.recipe.model.path for run in runs}) != 1:
        return []
    return list({run.recipe.seed: run.evaluations[0] for run in reversed(runs)}.values())


def is_evaluation_folder(folder: Path) -> bool:
    """Whether ``progrpo evaluate`` wrote the folder: it holds the JSON of an evaluation, and no recipe."""
    return folder.is_dir() and not (folder / "recipe.json").exists() and bool(_evaluations_in(folder))


def collect_models(folders: Sequence[Path]) -> dict[str, list[Group]]:
    """Read evaluation folders: by benchmark, the models in the order of the folders, whose names tell equal ones apart.

    Raises:
        ConfigError: a folder has no evaluation in it.
    """
    by_folder = {folder: _evaluations_in(folder) for folder in folders}
    for folder, evaluations in by_folder.items():
        if not evaluations:
            raise ConfigError(f"{str(folder)!r} has no evaluation in it; it should be an --out of progrpo evaluate.")
    titles = [str(next(iter(e.values())).settings.get("model", folder.name)) for folder, e in by_folder.items()]
    by_benchmark: dict[str, list[Group]] = {}
    for i, (folder, evaluations) in enumerate(by_folder.items()):
        title = f"{titles[i]} ({folder.name})" if titles.count(titles[i]) > 1 else titles[i]
        for name, evaluation in evaluations.items():
            store, model = folder / f"{name}-samples", str(evaluation.settings.get("model", ""))
            run = RunFolder(Path(model)) if model else None
            samples = [Samples("", store, run, model)] if store.is_dir() else []
            benchmark = str(evaluation.settings.get("benchmark") or name)
            group = Group(name=f"model-{i}", title=title, finals=[evaluation], samples=samples)
            by_benchmark.setdefault(benchmark, []).append(group)
    return by_benchmark


def _evaluations_in(folder: Path) -> dict[str, Evaluation]:
    return {
        path.stem: _read_evaluation(path)
        for path in sorted(folder.glob("*.json"))
        if (folder / f"{path.stem}-samples").is_dir() or {"settings", "problems"} <= _keys(path)
    }


def _keys(path: Path) -> set[str]:
    """The keys of a file's JSON object; none if it holds something else, because progrpo did not write it then."""
    try:
        return set(read_json(path))
    except ConfigError:
        return set()
