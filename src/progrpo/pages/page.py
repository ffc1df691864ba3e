"""Rendering: run folders or evaluation folders in, one HTML file out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.common.files import write_text
from progrpo.pages import plots, responses, summary
from progrpo.pages.boards import board
from progrpo.pages.collect import (
    MethodRuns,
    Model,
    base_evaluations,
    collect,
    collect_models,
    common_problems,
    is_evaluation_folder,
    missing_parts,
    problem_notes,
    samples_per_problem,
)
from progrpo.pages.confidence import MOST_POINTS
from progrpo.recipes.build import steps_per_rollout
from progrpo.runs.folder import RunFolder

TEMPLATES = Path(__file__).parent / "templates"


def write_page(folders: Sequence[RunFolder | Path], out: Path, *, title: str | None = None) -> Path:
    """Write the report of runs, or of evaluations, as a single HTML file that loads nothing from anywhere.

    Runs are grouped by their recipe's method; runs of one method are its seeds. Runs may be unfinished: the page
    shows what is there and says what is missing. Folders that ``progrpo evaluate`` wrote are a model each, and are
    compared benchmark by benchmark.

    Args:
        folders: run folders or evaluation folders, in any order.
        out: the file to write; its folder is made. It is whole or not there.
        title: of the page; the methods and the task, or the models, by default.

    Returns:
        ``out``.

    Raises:
        ConfigError: no folder was given, runs and evaluations were given together, a folder is neither, or Plotly or
            Jinja2 is not installed.
    """
    runs, evaluations = _sorted_out(folders)
    if evaluations:
        write_text(out, render(assemble_models(collect_models(evaluations), title=title), "evaluations.html.j2"))
    else:
        write_text(out, render(assemble(collect(runs), title=title)))
    return out


def summary_text(folders: Sequence[RunFolder | Path]) -> str:
    """What the page says first, for a terminal. Raises as :func:`write_page`."""
    runs, evaluations = _sorted_out(folders)
    if evaluations:
        return "\n".join(model_sentences(collect_models(evaluations)))
    return summary.text(collect(runs))


def _sorted_out(folders: Sequence[RunFolder | Path]) -> tuple[list[RunFolder], list[Path]]:
    paths = [folder.path if isinstance(folder, RunFolder) else folder for folder in folders]
    evaluations = [path for path in paths if is_evaluation_folder(path)]
    runs = [RunFolder(path) for path in paths if path not in evaluations]
    if runs and evaluations:
        raise ConfigError(
            f"{str(runs[0].path)!r} is a run and {str(evaluations[0])!r} an evaluation: a page shows either; give "
            "folders of one kind."
        )
    return runs, evaluations


def assemble(methods: Sequence[MethodRuns], *, title: str | None = None) -> dict[str, Any]:
    """Everything that a page of runs shows, as plain values: what the templates and the page's script are given."""
    found = summary.differences(methods)
    table = summary.table(methods)
    per_run = summary.per_run(methods, table["measures"])
    panels = plots.training_panels(methods)
    figures = {panel["id"]: panel["figure"] for panel in panels}
    if differences := plots.difference_figure(found):
        figures["differences"] = differences
    heldout = f"held-out problems of {', '.join(tasks_of(methods))}"
    boards = (
        [board(methods, 0, title=heldout, base=base_evaluations(methods))] if any(m.finals for m in methods) else []
    )
    tables = {
        "results": results_table("results", table["measures"], table["rows"]),
        "results-by-run": results_table("results by run", table["measures"], per_run),
    }
    return {
        "title": title or default_title(methods),
        "subtitle": subtitle(methods),
        "kind": "Method",
        "methods": [{"name": m.name, "title": m.title, "seeds": [r.recipe.seed for r in m.runs]} for m in methods],
        "sentences": summary.sentences(methods),
        "table": table,
        "differences": found,
        "per_run": per_run,
        "seeds": min((len(m.finals) for m in methods if m.finals), default=0),
        "missing": missing_parts(methods),
        "panels": [{key: panel[key] for key in ("id", "title", "caption")} for panel in panels],
        "smoothing": max((plots.window_for(len(r.metrics)) for m in methods for r in m.runs), default=1),
        "training_evaluation": training_evaluation(methods),
        "reader": responses.reader(methods),
        "runs": run_records(methods),
    } | _with_boards(figures, tables, boards)


def assemble_models(benchmarks: Mapping[str, Sequence[Model]], *, title: str | None = None) -> dict[str, Any]:
    """Everything that a page of evaluations shows: benchmarks by models."""
    several = len(benchmarks) > 1
    boards = []
    for place, (name, models) in enumerate(benchmarks.items()):
        shown = board(models, place, title=name, several=several)
        found = summary.differences(models)
        if figure := plots.difference_figure(found):
            shown["ids"]["differences"] = f"differences-{place}"
            shown["figures"][f"differences-{place}"] = figure
        boards.append(shown | {"baseline": found[0].baseline.title if found else ""})
    table = summary.benchmark_table(benchmarks)
    rows = [row | {"title": f"{b['title']}: {row['title']}"} for b in table["benchmarks"] for row in b["rows"]]
    titles = list(dict.fromkeys(model.title for models in benchmarks.values() for model in models))
    return {
        "title": title or f"{joined(titles)} on {joined(list(benchmarks))}",
        "subtitle": subtitle_of_models(benchmarks),
        "kind": "Model",
        "sentences": model_sentences(benchmarks),
        "missing": missing_of_models(benchmarks),
        "table": table,
        "records": [
            {"label": f"{model.title} on {name}", "settings_text": _pretty(model.evaluation.settings)}
            for name, models in benchmarks.items()
            for model in models
        ],
    } | _with_boards({}, {"results": results_table("results", table["measures"], rows)}, boards)


def _with_boards(figures: dict[str, Any], tables: dict[str, Any], boards: list[dict[str, Any]]) -> dict[str, Any]:
    for one in boards:
        figures, tables = figures | one["figures"], tables | one["tables"]
    return {
        "boards": boards,
        "most_points": MOST_POINTS,
        "figures": figures,
        "tables": tables,
        "descriptions": {name: plots.describe(figure) for name, figure in figures.items()},
    }


def results_table(title: str, measures: Sequence[str], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The results for a CSV file: every measure with its intervals, unrounded, and over how many problems it is."""
    endings = ("", " low", " high", " low, sampling only", " high, sampling only", " problems")
    names = [measure + ending for measure in measures for ending in endings]
    kinds = [kind for kind in ("folder", "seeds", "size") if any(kind in row for row in rows)]
    told = [
        [
            row["title"],
            *(row.get(kind) for kind in kinds),
            *(x for cell in row["cells"] for x in (*cell["exact"], cell["problems"])),
        ]
        for row in rows
    ]
    return {"title": title, "header": ["title", *kinds, *names], "rows": told}


def model_sentences(benchmarks: Mapping[str, Sequence[Model]]) -> list[str]:
    """What is clear and what is not, benchmark by benchmark."""
    told = []
    for name, models in benchmarks.items():
        compared = summary.sentences_compared(models) or [s for model in models for s in summary.alone(model)]
        told.append(f"{name}: {' '.join(compared)}" if len(benchmarks) > 1 else " ".join(compared))
    return told


def subtitle_of_models(benchmarks: Mapping[str, Sequence[Model]]) -> str:
    """The sampling in a line; what differs is told with each evaluation at the foot."""
    settings = [model.evaluation.settings for models in benchmarks.values() for model in models]
    words = {
        "samples": "samples a problem",
        "temperature": "temperature",
        "top_p": "top_p",
        "max_new_tokens": "tokens at most",
    }
    shared = [(key, {repr(one.get(key)) for one in settings}) for key in words]
    numbers_first = ("samples", "max_new_tokens")
    told = []
    for key, values in shared:
        if len(values) == 1 and (value := values.pop()) != "None":
            told.append(f"{value} {words[key]}" if key in numbers_first else f"{words[key]} {value}")
    return ", ".join(told)


def missing_of_models(benchmarks: Mapping[str, Sequence[Model]]) -> list[str]:
    """What the evaluations lack and what makes them hard to compare, a sentence each."""
    notes = []
    every = dict.fromkeys(model.title for models in benchmarks.values() for model in models)
    for name, models in benchmarks.items():
        absent = [title for title in every if title not in {model.title for model in models}]
        if absent:
            notes.append(f"{name}: not evaluated for {joined(absent)}.")
        for key in ("samples", "temperature", "top_p", "max_new_tokens"):
            values = {model.title: model.evaluation.settings.get(key) for model in models}
            if len({repr(value) for value in values.values()}) > 1:
                each = ", ".join(f"{title} {value}" for title, value in values.items())
                notes.append(f"{name}: the models were sampled with different {key} ({each}).")
        if len({frozenset(p.problem_id for p in model.evaluation.problems) for model in models}) > 1:
            notes.append(
                f"{name}: the evaluations are not on the same problems; differences are over those they share."
            )
        for model in models:
            notes += problem_notes(f"{name}, {model.title}", model.evaluation)
            if model.kept is None:
                notes.append(f"{name}: the samples of {model.title} are not kept, so there is nothing to read.")
    return notes


def joined(titles: Sequence[str]) -> str:
    """``A, B and C``."""
    *first, last = titles
    return f"{', '.join(first)}{' and ' if first else ''}{last}"


def tasks_of(methods: Sequence[MethodRuns]) -> list[str]:
    """The tasks of the runs, each once."""
    return list(dict.fromkeys(run.recipe.task.name for method in methods for run in method.runs))


def default_title(methods: Sequence[MethodRuns]) -> str:
    """``GRPO and ProGRPO on countdown``."""
    return f"{joined([method.title for method in methods])} on {', '.join(tasks_of(methods))}"


def subtitle(methods: Sequence[MethodRuns]) -> str:
    """The budget in a line: ``200 steps of 32 prompts × 16 responses; 2 runs of GRPO, 2 runs of ProGRPO``."""
    recipe = methods[0].runs[0].recipe
    training = recipe.training
    runs = ", ".join(f"{len(m.runs)} run{'s' if len(m.runs) > 1 else ''} of {m.title}" for m in methods)
    budget = f"{training.steps} steps of {training.prompts_per_step} prompts × {training.group_size} responses"
    if (served := steps_per_rollout(recipe)) > 1:
        budget += f" a rollout, which serves {served} steps"
    return f"{budget}, starting from {recipe.model.path}; {runs}"


def training_evaluation(methods: Sequence[MethodRuns]) -> str:
    """``30 problems × 8 samples``: what the evaluations in training are of; empty if there are none."""
    evaluations = [e for m in methods for r in m.runs for e in r.evaluations.values()] or base_evaluations(methods)
    problems, samples = len(common_problems(evaluations)), samples_per_problem(evaluations)
    return f"{problems} problems × {samples} samples" if problems else ""


def run_records(methods: Sequence[MethodRuns]) -> list[dict[str, Any]]:
    """Each run's resolved recipe and versions, for the foot of the page."""
    return [
        {
            "label": run.label,
            "folder": run.folder.path.name,
            "recipe_text": _pretty(run.recipe.model_dump()),
            "settings_text": _pretty(run.recipe.method_settings()),
            "versions_text": _pretty(run.environment),
        }
        for method in methods
        for run in method.runs
    ]


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def render(view: dict[str, Any], template: str = "page.html.j2") -> str:
    """A page's HTML from its template and plain values (the report's: :func:`assemble`).

    Every text is escaped; the JSON can't end its script element.

    Raises:
        ConfigError: Plotly or Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ConfigError(f"a report needs {error.name}; install it with: pip install 'progrpo[report]'.") from None
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Jinja's tojson writes <, >, & and ' as \u003c and the like: no text of a response can close the script element.
    # NaN is refused here, not by the reader's browser.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "ensure_ascii": False}
    return environment.get_template(template).render(
        view,
        plotly_js=Markup(get_plotlyjs()),
        light_palette=Markup(plots.palette_css(dark=False)),
        dark_palette=Markup(plots.palette_css(dark=True)),
        colour=plots.colour,
        glyph=plots.glyph,
    )
