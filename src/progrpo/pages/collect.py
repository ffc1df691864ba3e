"""Run folders and evaluation folders, read and grouped by method or by model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from progrpo.common.errors import ConfigError
from progrpo.common.files import damaged_file, read_json
from progrpo.evaluation.evaluate import Evaluation
from progrpo.evaluation.intervals import Estimate, mean_over_problems
from progrpo.evaluation.results import fewer_problems as problems_by_k
from progrpo.methods import METHODS
from progrpo.recipes.schema import Recipe
from progrpo.runs.folder import FINAL, RunFolder
from progrpo.runs.rollouts import read_rollout, recorded_steps

MOST_NAMED = 5
"""Problems without a judged sample that a note names."""


@dataclass(frozen=True)
class Samples:
    """The responses of one evaluation, as they are kept."""

    label: str
    """``seed 0``; empty where a group has one evaluation."""
    folder: Path
    """Of a :class:`progrpo.evaluation.store.SampleStore`."""
    tokenizers: tuple[str | Path, ...]
    """Where the tokenizer of the model may be, the likeliest place first."""


class Group(Protocol):
    """Evaluations that belong together: the seeds of a method on a run page, a model on an evaluation page."""

    @property
    def name(self) -> str:
        """Has a colour and a mark in the plots."""
        ...

    @property
    def title(self) -> str: ...

    @property
    def finals(self) -> list[Evaluation]: ...

    @property
    def finals_by_seed(self) -> Mapping[int, Evaluation]:
        """Evaluations of the same key in two groups are pairs."""
        ...

    @property
    def samples(self) -> list[Samples]: ...


@dataclass(frozen=True)
class Run:
    """One run folder, read."""

    folder: RunFolder
    recipe: Recipe
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluations: dict[int, Evaluation]
    """Those made in training, by step; 0 is the base model."""
    final: Evaluation | None
    rollout_steps: list[int]
    rollout_confidence: dict[int, tuple[float, float]]
    """By step, the mean c(o|q) of the right and of the wrong rollouts; NaN where there is none."""

    @property
    def label(self) -> str:
        """``GRPO, seed 0``."""
        return f"{METHODS[self.recipe.method].title}, seed {self.recipe.seed}"

    @property
    def last_step(self) -> int:
        """The newest step with metrics, 0 if there is none."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def what_is_left(self) -> str:
        """Of a run without a final evaluation: the rest of a sentence that begins with the run."""
        steps = self.recipe.training.steps
        if self.last_step < steps:
            return f"is not finished: {self.last_step} of {steps} steps are recorded, no final evaluation yet."
        return (
            f"has all its {steps} steps, but no final evaluation: that was interrupted, or its file is gone. To make "
            f"it: progrpo train --resume {self.folder.path}"
        )

    @property
    def tokenizers(self) -> tuple[str | Path, ...]:
        """Where its tokenizer may be: the last checkpoint, then the model that it starts from."""
        checkpoint = self.folder.last_checkpoint()
        return (*([checkpoint] if checkpoint else []), self.recipe.model.path)


@dataclass(frozen=True)
class MethodRuns:
    """The runs of one method, by seed."""

    name: str
    runs: list[Run]

    @property
    def title(self) -> str:
        return METHODS[self.name].title

    @property
    def finished(self) -> list[Run]:
        """The runs with a final evaluation."""
        return [run for run in self.runs if run.final is not None]

    @property
    def finals(self) -> list[Evaluation]:
        return [run.final for run in self.runs if run.final is not None]

    @property
    def finals_by_seed(self) -> dict[int, Evaluation]:
        return {run.recipe.seed: run.final for run in self.runs if run.final is not None}

    @property
    def samples(self) -> list[Samples]:
        """Those of the finished runs that keep them."""
        kept = [(run, run.folder.evaluations / f"{FINAL}-samples") for run in self.finished]
        return [
            Samples(f"seed {run.recipe.seed}" if len(self.runs) > 1 else "", folder, run.tokenizers)
            for run, folder in kept
            if folder.is_dir()
        ]


@dataclass(frozen=True)
class Model:
    """One model's evaluation on one benchmark."""

    name: str
    title: str
    evaluation: Evaluation
    kept: Samples | None

    @property
    def finals(self) -> list[Evaluation]:
        return [self.evaluation]

    @property
    def finals_by_seed(self) -> dict[int, Evaluation]:
        # Sampling seeds of two models pair nothing: only problems do.
        return {}

    @property
    def samples(self) -> list[Samples]:
        return [self.kept] if self.kept else []


def collect(folders: Sequence[RunFolder]) -> list[MethodRuns]:
    """Read the runs and group them by method, in the order of :data:`progrpo.methods.METHODS` (GRPO first).

    Raises:
        ConfigError: no run was given, or a folder is not a run folder.
    """
    if not folders:
        raise ConfigError("a report needs at least one run folder, got none.")
    runs = sorted((_read(folder) for folder in folders), key=lambda run: (run.recipe.seed, run.folder.path.name))
    grouped = ((name, [run for run in runs if run.recipe.method == name]) for name in METHODS)
    return [MethodRuns(name, members) for name, members in grouped if members]


def _read(folder: RunFolder) -> Run:
    recipe = folder.recipe()
    final = folder.evaluations / f"{FINAL}.json"
    rollout_steps = recorded_steps(folder.rollouts)
    return Run(
        folder=folder,
        recipe=recipe,
        environment=folder.environment(),
        metrics=folder.metrics(),
        evaluations={step: read_evaluation(file) for step, file in folder.evaluation_files().items()},
        final=read_evaluation(final) if final.exists() else None,
        rollout_steps=rollout_steps,
        rollout_confidence={step: _confidence_by_verdict(folder, step) for step in rollout_steps},
    )


def read_evaluation(file: Path) -> Evaluation:
    """One evaluation, as it was written.

    Raises:
        ConfigError: the file is damaged.
    """
    value = read_json(file)
    try:
        return Evaluation.from_json(value)
    except (KeyError, TypeError) as error:
        raise damaged_file(file, f"it is no evaluation: {error}") from None


def _confidence_by_verdict(folder: RunFolder, step: int) -> tuple[float, float]:
    rows = read_rollout(folder.rollouts, step, ["reward", "answer_confidence"])
    right, wrong = rows[rows["reward"] > 0], rows[rows["reward"] <= 0]
    return float(right["answer_confidence"].mean()), float(wrong["answer_confidence"].mean())


def is_evaluation_folder(folder: Path) -> bool:
    """Whether ``progrpo evaluate`` wrote it: an evaluation's JSON lies in it, and no recipe."""
    return folder.is_dir() and not (folder / "recipe.json").exists() and bool(_evaluations_in(folder))


def collect_models(folders: Sequence[Path]) -> dict[str, list[Model]]:
    """Read evaluation folders: by benchmark, the models in the order of the folders.

    Raises:
        ConfigError: a folder has no evaluation in it.
    """
    read = {folder: _evaluations_in(folder) for folder in folders}
    for folder, found in read.items():
        if not found:
            raise ConfigError(f"{str(folder)!r} has no evaluation in it; it should be an --out of progrpo evaluate.")
    titles = {
        folder: str(next(iter(found.values())).settings.get("model", folder.name)) for folder, found in read.items()
    }
    doubled = {title for title in titles.values() if list(titles.values()).count(title) > 1}
    by_benchmark: dict[str, list[Model]] = {}
    for i, (folder, found) in enumerate(read.items()):
        title = f"{titles[folder]} ({folder.name})" if titles[folder] in doubled else titles[folder]
        for name, evaluation in found.items():
            store, path = folder / f"{name}-samples", str(evaluation.settings.get("model", ""))
            checkpoint = RunFolder(Path(path)).last_checkpoint() if path else None
            places: tuple[str | Path, ...] = (*([checkpoint] if checkpoint else []), path)
            kept = Samples("", store, places) if store.is_dir() else None
            model = Model(f"model-{i}", title, evaluation, kept)
            by_benchmark.setdefault(str(evaluation.settings.get("benchmark") or name), []).append(model)
    return by_benchmark


def _evaluations_in(folder: Path) -> dict[str, Evaluation]:
    found = {}
    for path in sorted(folder.glob("*.json")):
        if (folder / f"{path.stem}-samples").is_dir() or {"settings", "problems"} <= _keys(path):
            found[path.stem] = read_evaluation(path)
    return found


def _keys(path: Path) -> set[str]:
    """The keys of an object; none of a file that holds no object: it is not one of ours, and none of our business."""
    try:
        return set(read_json(path))
    except ConfigError:
        return set()


def common_problems(evaluations: Sequence[Evaluation]) -> list[str]:
    """Ids of the problems that all the evaluations share, in the first one's order."""
    shared = set.intersection(*({p.problem_id for p in e.judged} for e in evaluations)) if evaluations else set()
    return [p.problem_id for p in evaluations[0].judged if p.problem_id in shared] if shared else []


def samples_per_problem(evaluations: Sequence[Evaluation]) -> int:
    """n, of the evaluation that has the fewest, 0 if there is nothing. Single problems may have fewer judged ones."""
    return min((e.samples for e in evaluations if e.judged), default=0)


def fewer_problems(evaluations: Sequence[Evaluation]) -> str:
    """Over how many of the common problems a measure at k is, where that depends on k; empty where it does not."""
    fewest: dict[str, int] = {}
    for evaluation in evaluations:
        for p in evaluation.judged:
            fewest[p.problem_id] = min(p.samples, fewest.get(p.problem_id, p.samples))
    n = samples_per_problem(evaluations)
    return problems_by_k([min(n, fewest[problem]) for problem in common_problems(evaluations)])


def problem_notes(label: str, evaluation: Evaluation) -> list[str]:
    """What a reader must know of an evaluation's samples, a sentence each: samples that were not judged, warnings."""
    notes = [f"{label}: {warning}" for warning in evaluation.settings.get("warnings", [])]
    errors = sum(p.errors for p in evaluation.problems)
    if errors:
        fewer = problems_by_k([p.samples for p in evaluation.judged])
        at_k = f" Measures at k are over {fewer}." if fewer else ""
        notes.append(f"{label}: the verifier failed on {errors} samples; they are left out.{at_k}")
    if lost := evaluation.unjudged:
        shown = ", ".join(lost[:MOST_NAMED]) + (", ..." if len(lost) > MOST_NAMED else "")
        told = (
            "1 problem has no judged sample and is"
            if len(lost) == 1
            else f"{len(lost)} problems have no judged sample and are"
        )
        notes.append(f"{label}: {told} left out of every mean: {shown}.")
    return notes


def values_of(evaluations: Sequence[Evaluation], measure: str, problems: Sequence[str]) -> NDArray[np.float64]:
    """A measure by evaluation and problem, shape (runs, problems), in the order of ``problems``."""
    rows = []
    for evaluation in evaluations:
        by_problem = dict(zip((p.problem_id for p in evaluation.judged), evaluation.values(measure), strict=True))
        rows.append([by_problem[problem] for problem in problems])
    return np.asarray(rows, dtype=np.float64).reshape(len(evaluations), len(problems))


def estimate(evaluations: Sequence[Evaluation], measure: str) -> Estimate | None:
    """A measure's mean over seeds and problems, its interval over problems; None if it can't be known.

    That is so without evaluations, for a k above n, and for coverage where no problem's solutions are counted. A
    measure at k is over the problems that have k judged samples in every one of the evaluations.
    """
    values = known_values(evaluations, measure)
    return None if values is None else mean_over_problems(values)


def known_values(evaluations: Sequence[Evaluation], measure: str) -> NDArray[np.float64] | None:
    """A measure by evaluation and problem, of the problems where all of the evaluations know it; None if none."""
    problems = common_problems(evaluations)
    _, at, k = measure.partition("@")
    if not problems or (at and int(k) > samples_per_problem(evaluations)):
        return None
    values = values_of(evaluations, measure, problems)
    known = np.isfinite(values).all(axis=0)
    return values[:, known] if known.any() else None


def sampling_estimate(evaluations: Sequence[Evaluation], measure: str) -> Estimate | None:
    """The same mean with its interval over sampling only: these problems and runs, with responses drawn anew.

    None where that can't be known: a k for which one of the problems has no more than k samples, and measures that are
    no mean over samples.
    """
    name, at, k = measure.partition("@")
    n = samples_per_problem(evaluations)
    if (
        name not in ("pass", "maj", "distinct", "avg")
        or (name == "distinct" and not at)
        or n < 2
        or (at and int(k) >= n)
    ):
        return None
    least = int(k or 1)
    enough = [{p.problem_id for p in e.judged if p.samples >= least} for e in evaluations]
    shared = set.intersection(*enough)
    if not shared:
        return None
    of_shared = [Evaluation({}, [p for p in e.judged if p.problem_id in shared]) for e in evaluations]
    each = [evaluation.sampling_estimate(measure) for evaluation in of_shared]
    if not all(math.isfinite(one.mean) and math.isfinite(one.low) for one in each):
        return None
    # Runs are sampled independently: the variance of their mean is the sum of theirs over the square of their number.
    mean = sum(one.mean for one in each) / len(each)
    half = sum(((one.high - one.low) / 2) ** 2 for one in each) ** 0.5 / len(each)
    found = Estimate(mean, mean - half, mean + half, "sampling", len(shared))
    return found if name == "distinct" else found.of_share()


def base_evaluations(methods: Sequence[MethodRuns]) -> list[Evaluation]:
    """The evaluations of step 0, one a seed: methods that start from the same model and seed sampled the same."""
    by_start: dict[tuple[str, int], Evaluation] = {}
    for method in methods:
        for run in method.runs:
            if 0 in run.evaluations:
                by_start.setdefault((run.recipe.model.path, run.recipe.seed), run.evaluations[0])
    # Two different starting models have no mean worth showing.
    return list(by_start.values()) if len({path for path, _ in by_start}) == 1 else []


def missing_parts(methods: Sequence[MethodRuns]) -> list[str]:
    """What the runs lack and what makes them hard to compare, a sentence each."""
    notes = [note for method in methods for run in method.runs for note in _missing_of(run)]
    runs = [run for method in methods for run in method.runs]
    differing = differing_keys([run.recipe for run in runs])
    if differing:
        notes.append(f"The recipes differ in {', '.join(differing)}: differences in results may come from there.")
    finals = [evaluation for method in methods for evaluation in method.finals]
    if len({frozenset(p.problem_id for p in e.problems) for e in finals}) > 1:
        notes.append(
            "The final evaluations are not on the same problems: each number is over those that its runs share."
        )
    if len({e.settings.get("samples") for e in finals}) > 1:
        notes.append(
            "The final evaluations have different numbers of samples: distinct solutions and coverage don't compare."
        )
    return notes


def _missing_of(run: Run) -> list[str]:
    notes = []
    if run.final is None:
        notes.append(f"{run.label} {run.what_is_left}")
    else:
        notes += problem_notes(f"{run.label}, final evaluation", run.final)
    if not run.metrics:
        notes.append(f"{run.label}: no training metrics.")
    if not run.evaluations:
        why = " (evaluation.every is 0)" if run.recipe.evaluation.every == 0 else ""
        notes.append(f"{run.label}: no evaluations during training{why}.")
    if not run.rollout_steps:
        notes.append(f"{run.label}: no rollouts, so there are no responses to read.")
    return notes


def differing_keys(recipes: Sequence[Recipe]) -> list[str]:
    """The recipe keys, other than name, method, seed and methods' own settings, in which the recipes differ."""
    flat = [_flatten(recipe.model_dump(exclude={"name", "method", "seed", "methods"})) for recipe in recipes]
    keys = dict.fromkeys(key for values in flat for key in values)
    return [key for key in keys if len({repr(values.get(key)) for values in flat}) > 1]


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
