"""What runs or evaluations lack, and what makes them hard to compare: a sentence each."""

from collections.abc import Mapping, Sequence

from progrpo.evaluation.results import Evaluation, fewer_problems
from progrpo.pages.collect import Group, MethodRuns, Run
from progrpo.pages.summary import joined
from progrpo.recipes.schema import Recipe

MOST_NAMED = 5
"""The most problems without a judged sample that a note names."""


def missing_from_runs(methods: Sequence[MethodRuns]) -> list[str]:
    """What a reader must know before the numbers of runs are compared."""
    runs = [run for method in methods for run in method.runs]
    notes = [note for run in runs for note in _missing_from_run(run)]
    if differing := differing_keys([run.recipe for run in runs]):
        notes.append(f"The recipes differ in {', '.join(differing)}, which may be why the results differ.")
    finals = [(run.label, run.final) for run in runs if run.final is not None]
    return notes + _hard_to_compare("final evaluations", finals)


def _missing_from_run(run: Run) -> list[str]:
    if run.final is None:
        notes = [f"{run.label} {run.remaining_work}"]
    else:
        notes = _problem_notes(f"{run.label}, final evaluation", run.final)
    if not run.metrics:
        notes.append(f"{run.label}: no training metrics.")
    if not run.evaluations:
        why = " (evaluation.every is 0)" if run.recipe.evaluation.every == 0 else ""
        notes.append(f"{run.label}: no evaluations during training{why}.")
    if not run.rollout_steps:
        notes.append(f"{run.label}: no rollouts, so there are no responses to read.")
    return notes


def missing_from_models(benchmarks: Mapping[str, Sequence[Group]]) -> list[str]:
    """What a reader must know before the numbers of models are compared."""
    notes = []
    titles = dict.fromkeys(model.title for models in benchmarks.values() for model in models)
    for name, models in benchmarks.items():
        if absent := [title for title in titles if title not in {model.title for model in models}]:
            notes.append(f"{name}: not evaluated for {joined(absent)}.")
        notes += _hard_to_compare(name, [(model.title, model.finals[0]) for model in models])
        for model in models:
            notes += _problem_notes(f"{name}, {model.title}", model.finals[0])
            if not model.samples:
                notes.append(f"{name}: the samples of {model.title} are not kept, so there is nothing to read.")
    return notes


def _hard_to_compare(label: str, evaluations: Sequence[tuple[str, Evaluation]]) -> list[str]:
    """The sampling settings and the problems in which evaluations (with their titles) differ."""
    notes = []
    for key in ("samples", "temperature", "top_p", "max_new_tokens"):
        if len({repr(evaluation.settings.get(key)) for _, evaluation in evaluations}) > 1:
            by_title = ", ".join(f"{title} {evaluation.settings.get(key)}" for title, evaluation in evaluations)
            counts = "; distinct solutions and coverage can't be compared" if key == "samples" else ""
            notes.append(f"{label}: sampled with different {key} ({by_title}){counts}.")
    if len({frozenset(p.problem_id for p in evaluation.problems) for _, evaluation in evaluations}) > 1:
        notes.append(f"{label}: not on the same problems; differences are over the problems that they share.")
    return notes


def _problem_notes(label: str, evaluation: Evaluation) -> list[str]:
    """The evaluation's own warnings, and the samples and problems that were not judged."""
    notes = [f"{label}: {warning}" for warning in evaluation.settings.get("warnings", [])]
    if errors := sum(p.errors for p in evaluation.problems):
        fewer = fewer_problems([p.samples for p in evaluation.judged])
        at_k = f" Measures at k are over {fewer}." if fewer else ""
        notes.append(f"{label}: the verifier failed on {errors} samples; they are left out.{at_k}")
    if unjudged := evaluation.unjudged:
        named = ", ".join(unjudged[:MOST_NAMED]) + (", ..." if len(unjudged) > MOST_NAMED else "")
        subject = "1 problem has" if len(unjudged) == 1 else f"{len(unjudged)} problems have"
        notes.append(f"{label}: {subject} no judged sample and no part in any mean: {named}.")
    return notes


def differing_keys(recipes: Sequence[Recipe]) -> list[str]:
    """The recipe keys, other than name, method, seed and methods' own settings, in which the recipes differ."""
    import pandas as pd

    left_out = {"name", "method", "seed", "methods"}
    values = pd.json_normalize([recipe.model_dump(exclude=left_out) for recipe in recipes])
    return [str(key) for key in values if values[key].map(repr).nunique() > 1]
