"""The page of runs and the page of evaluations: everything that they show, as plain values for the templates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.evaluation.results import Evaluation
from progrpo.pages import confidence, plots, problems, summary, tables
from progrpo.pages.collect import Group, MethodRuns, base_evaluations, collect, collect_models, is_evaluation_folder
from progrpo.pages.figures import Figure
from progrpo.pages.measures import common_problems, fewer_problems, samples_per_problem
from progrpo.pages.missing import missing_from_models, missing_from_runs
from progrpo.pages.render import write_html
from progrpo.pages.responses import reader
from progrpo.pages.summary import joined
from progrpo.recipes.build import steps_per_rollout
from progrpo.runs.folder import RunFolder


def write_page(folders: Sequence[RunFolder | Path], out: Path, *, title: str | None = None) -> Path:
    """Write the report of runs, or of evaluations, as a single HTML file that loads nothing from anywhere.

    Runs are grouped by their recipe's method; runs of one method are its seeds. Runs may be unfinished: the page
    shows what is there and says what is missing. Each folder that ``progrpo evaluate`` wrote is one model, and models
    are compared benchmark by benchmark.

    Args:
        folders: run folders or evaluation folders, in any order.
        out: the file to write; its folder is made. The file is never half written.
        title: the page's title; by default the methods and the task, or the models and the benchmarks.

    Returns:
        ``out``.

    Raises:
        ConfigError: no folder was given, runs and evaluations were given together, a folder is neither, or Plotly or
            Jinja2 is not installed.
    """
    runs, evaluations = _sort_folders(folders)
    if evaluations:
        return write_html(out, "evaluations.html.j2", assemble_models(collect_models(evaluations), title=title))
    return write_html(out, "page.html.j2", assemble(collect(runs), title=title))


def summary_text(folders: Sequence[RunFolder | Path]) -> str:
    """The sentences at the top of the page, for a terminal. Raises the same as :func:`write_page`."""
    runs, evaluations = _sort_folders(folders)
    return "\n".join(model_sentences(collect_models(evaluations))) if evaluations else summary.text(collect(runs))


def _sort_folders(folders: Sequence[RunFolder | Path]) -> tuple[list[RunFolder], list[Path]]:
    paths = [folder.path if isinstance(folder, RunFolder) else folder for folder in folders]
    evaluations = [path for path in paths if is_evaluation_folder(path)]
    runs = [RunFolder(path) for path in paths if path not in evaluations]
    if runs and evaluations:
        raise ConfigError(
            f"{str(runs[0].path)!r} is a run and {str(evaluations[0])!r} is an evaluation, and a page can't show both; "
            "give folders of one kind."
        )
    return runs, evaluations


def assemble(methods: Sequence[MethodRuns], *, title: str | None = None) -> dict[str, Any]:
    """Everything that a page of runs shows."""
    runs = [run for method in methods for run in method.runs]
    tasks = ", ".join(dict.fromkeys(run.recipe.task.name for run in runs))
    evaluations = [evaluation for run in runs for evaluation in run.evaluations.values()]
    evaluation_size = f"{len(common_problems(evaluations))} problems × {samples_per_problem(evaluations)} samples"
    table, differences, panels = tables.table(methods), summary.differences(methods), plots.training_panels(methods)
    per_run = tables.per_run(methods, table["measures"])
    figures = {panel.id: panel.figure for panel in panels} | {"differences": plots.difference_figure(differences)}
    csv = {
        "results": tables.results_table("results", table["measures"], table["rows"]),
        "results-by-run": tables.results_table("results by run", table["measures"], per_run),
    }
    boards = []
    if any(method.finals for method in methods):
        boards = [board(methods, 0, title=f"held-out problems of {tasks}", base=base_evaluations(methods))]
    return {
        "title": title or f"{joined([method.title for method in methods])} on {tasks}",
        "subtitle": subtitle(methods),
        "kind": "Method",
        "methods": methods,
        "sentences": summary.sentences(methods),
        "table": table,
        "differences": differences,
        "per_run": per_run,
        "seeds": min((len(method.finals) for method in methods if method.finals), default=0),
        "missing": missing_from_runs(methods),
        "panels": panels,
        "smoothing": max((plots.window_for(len(run.metrics)) for run in runs), default=1),
        "training_evaluation": evaluation_size if common_problems(evaluations) else "",
        "reader": reader(methods),
        "runs": runs,
    } | _with_boards(figures, csv, boards)


def assemble_models(benchmarks: Mapping[str, Sequence[Group]], *, title: str | None = None) -> dict[str, Any]:
    """Everything that a page of evaluations shows: benchmarks by models."""
    boards = []
    figures: dict[str, Figure | None] = {}
    for place, (name, models) in enumerate(benchmarks.items()):
        differences, figure_id = summary.differences(models), f"differences-{place}"
        figures[figure_id] = plots.difference_figure(differences)
        baseline = differences[0].baseline.title if differences else ""
        shown = board(models, place, title=name, several=len(benchmarks) > 1)
        boards.append(shown | {"baseline": baseline, "differences": figure_id})
    table = tables.benchmark_table(benchmarks)
    rows = [row | {"title": f"{b['title']}: {row['title']}"} for b in table["benchmarks"] for row in b["rows"]]
    titles = list(dict.fromkeys(model.title for models in benchmarks.values() for model in models))
    return {
        "title": title or f"{joined(titles)} on {joined(list(benchmarks))}",
        "subtitle": subtitle_of_models(benchmarks),
        "kind": "Model",
        "sentences": model_sentences(benchmarks),
        "missing": missing_from_models(benchmarks),
        "table": table,
        "benchmarks": benchmarks,
    } | _with_boards(figures, {"results": tables.results_table("results", table["measures"], rows)}, boards)


def board(
    groups: Sequence[Group], place: int, *, title: str, several: bool = False, base: Sequence[Evaluation] = ()
) -> dict[str, Any]:
    """What the page shows of the final evaluation on one benchmark. At least one of the groups has it.

    ``figures`` and ``tables`` have ids as keys, and ``ids`` gives a figure's id by its name. ``data``, ``chunks`` and
    ``words`` are for the page's script, and the rest is for the template. If there are ``several`` boards, each
    figure's title names the benchmark. ``base`` are evaluations of the model before training.
    """
    groups = [group for group in groups if group.finals]
    responses = problems.read_responses(groups)
    prompts = problems.prompts_by_problem(groups, responses)
    separations = confidence.separations(groups, responses)
    figures = {
        "pass-at-k": plots.pass_at_k_figure(groups),
        "distinct-by-problem": plots.distinct_figure(groups),
        "coverage": plots.coverage_figure(groups, base),
    } | confidence.confidence_figures(groups, responses)
    suffix = f"-{place + 1}" if place else ""
    ids = {name.replace("-", "_"): name + suffix for name, figure in figures.items() if figure}
    first = problems.samples_in_page(responses)
    chunks, words = problems.chunks(prompts, groups, first)
    on_benchmark = f" on {title}" if several else ""
    return {
        "title": title,
        "on_benchmark": on_benchmark,
        "groups": groups,
        "has_seeds": any(len(group.finals) > 1 for group in groups),
        "samples": samples_per_problem([e for group in groups for e in group.finals]),
        "fewer": [f"{group.title}: {fewer}" for group in groups if (fewer := fewer_problems(group.finals))],
        "figures": {name + suffix: figure for name, figure in figures.items() if figure},
        "ids": ids | {"separations": f"confidence{suffix}"},
        "separations": separations,
        "confidence_sentences": confidence.sentences(separations),
        "most_points": confidence.MOST_POINTS if len(prompts) > confidence.MOST_POINTS else None,
        "tables": {f"confidence{suffix}": confidence.table(separations, on_benchmark)},
        "first": first,
        "data": {"title": title} | problems.table(prompts, groups, responses),
        "chunks": chunks,
        "words": words,
    }


def _with_boards(
    figures: dict[str, Figure | None], csv: dict[str, Any], boards: list[dict[str, Any]]
) -> dict[str, Any]:
    for shown in boards:
        figures, csv = figures | shown["figures"], csv | shown["tables"]
    return {"boards": boards, "figures": {name: figure for name, figure in figures.items() if figure}, "tables": csv}


def model_sentences(benchmarks: Mapping[str, Sequence[Group]]) -> list[str]:
    """What is clear and what is not, benchmark by benchmark."""
    lines = []
    for name, models in benchmarks.items():
        sentences = summary.sentences_compared(models) or [summary.sentence_alone(model) for model in models]
        lines.append((f"{name}: " if len(benchmarks) > 1 else "") + " ".join(sentences))
    return lines


def subtitle_of_models(benchmarks: Mapping[str, Sequence[Group]]) -> str:
    """The sampling settings that all evaluations share, in a line. The foot of the page has the settings of each."""
    settings = [model.finals[0].settings for models in benchmarks.values() for model in models]
    phrases = {"samples": "{} samples per problem", "temperature": "temperature {}", "top_p": "top_p {}"}
    shown = []
    for key, phrase in (phrases | {"max_new_tokens": "at most {} tokens"}).items():
        values = {repr(each.get(key)) for each in settings}
        shown += [phrase.format(value) for value in values if len(values) == 1 and value != "None"]
    return ", ".join(shown)


def subtitle(methods: Sequence[MethodRuns]) -> str:
    """The budget in a line: ``200 steps of 32 prompts × 16 responses; 2 runs of GRPO, 2 runs of ProGRPO``."""
    recipe = methods[0].runs[0].recipe
    training = recipe.training
    runs = ", ".join(f"{len(m.runs)} run{'s' if len(m.runs) > 1 else ''} of {m.title}" for m in methods)
    budget = f"{training.steps} steps of {training.prompts_per_step} prompts × {training.group_size} responses"
    if (served := steps_per_rollout(recipe)) > 1:
        budget += f" a rollout, which serves {served} steps"
    return f"{budget}, starting from {recipe.model.path}; {runs}"
