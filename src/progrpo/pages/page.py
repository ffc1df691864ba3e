"""The page of runs and the page of evaluations: everything that they show, as plain values for the templates."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.common.files import write_text
from progrpo.evaluation.results import Evaluation
from progrpo.pages import confidence, measures, plots, problems, summary
from progrpo.pages.collect import Group, base_evaluations, collect, collect_models, is_evaluation_folder
from progrpo.pages.figures import describe, mark, palette_css
from progrpo.pages.responses import reader
from progrpo.pages.summary import joined
from progrpo.recipes.build import steps_per_rollout
from progrpo.runs.folder import RunFolder

TEMPLATES = Path(__file__).parent / "templates"


def write_page(folders: Sequence[RunFolder | Path], out: Path, *, title: str | None = None) -> Path:
    """Write the report of runs, or of evaluations, as a single HTML file that loads nothing from anywhere.

    Runs are grouped by their recipe's method; runs of one method are its seeds. Runs may be unfinished: the page
    shows what is there and says what is missing. Each folder that ``progrpo evaluate`` wrote is one model, and models
    are compared benchmark by benchmark.

    Args:
        folders: run folders or evaluation folders, in any order.
        out: the file to write, which is returned; its folder is made. The file is never half written.
        title: the page's title; by default the methods and the task, or the models and the benchmarks.

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


def write_html(out: Path, template: str, view: dict[str, Any]) -> Path:
    """Write a template with plain values as a single HTML file that loads nothing. It is never half written.

    Every text is escaped, and no text can end the script element that holds the page's JSON. ``figures`` and
    ``tables`` of the view are what the page's script draws and exports, by id. Raises as :func:`write_page`.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ConfigError(f"a report needs {error.name}; install it with: pip install 'progrpo[report]'.") from None
    settings: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, **settings)
    # Jinja's tojson escapes <, >, & and ' (as \u003c, ...), so that no text of a response can close the script element.
    # NaN is refused here, not by the reader's browser.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "ensure_ascii": False}
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    page = environment.get_template(template).render(
        view,
        descriptions={name: describe(figure) for name, figure in view["figures"].items()},
        plotly_js=Markup(get_plotlyjs()),
        light_palette=Markup(palette_css(dark=False)),
        dark_palette=Markup(palette_css(dark=True)),
        mark=mark,
    )
    # JSON may hold one half of a surrogate pair, from a character that was cut in two. UTF-8 has no bytes for it.
    write_text(out, page.encode("utf-8", "replace").decode("utf-8"))
    return out


def assemble(methods: Sequence[Group], *, title: str | None = None) -> dict[str, Any]:
    """Everything that a page of runs shows."""
    runs = [run for method in methods for run in method.runs]
    tasks = ", ".join(dict.fromkeys(run.recipe.task.name for run in runs))
    in_training = [evaluation for run in runs for evaluation in run.evaluations.values()]
    shared, n = measures.common_problems(in_training), measures.samples_per_problem(in_training)
    table, panels = measures.method_table(methods), plots.training_panels(methods)
    per_run = measures.run_rows(methods, table["measures"])
    boards = []
    if measures.finals_of(methods):
        boards = [board(methods, title=f"held-out problems of {tasks}", base=base_evaluations(methods))]
    tables = {
        "results": measures.csv_table("results", table["measures"], table["rows"]),
        "results-by-run": measures.csv_table("results by run", table["measures"], per_run),
    }
    return {
        "title": title or f"{joined([method.title for method in methods])} on {tasks}",
        "subtitle": subtitle(methods),
        "kind": "Method",
        "methods": methods,
        "sentences": summary.sentences(methods),
        "table": table,
        "differences": boards[0]["differences"] if boards else [],
        "per_run": per_run,
        "seeds": min((len(method.finals) for method in methods if method.finals), default=0),
        "missing": summary.missing_from_runs(methods),
        "panels": panels,
        "smoothing": max((plots.window_for(len(run.metrics)) for run in runs), default=1),
        "training_evaluation": f"{len(shared)} problems × {n} samples" if shared else "",
        "reader": reader(methods),
        "runs": runs,
        "boards": boards,
        "figures": {panel.id: panel.figure for panel in panels} | _parts("figures", boards),
        "tables": tables | _parts("tables", boards),
    }


def assemble_models(benchmarks: Mapping[str, Sequence[Group]], *, title: str | None = None) -> dict[str, Any]:
    """Everything that a page of evaluations shows: benchmarks by models."""
    several, table = len(benchmarks) > 1, measures.benchmark_table(benchmarks)
    boards = [board(groups, i, title=name, several=several) for i, (name, groups) in enumerate(benchmarks.items())]
    rows = [row | {"title": f"{b['title']}: {row['title']}"} for b in table["benchmarks"] for row in b["rows"]]
    titles = list(dict.fromkeys(model.title for models in benchmarks.values() for model in models))
    return {
        "title": title or f"{joined(titles)} on {joined(list(benchmarks))}",
        "subtitle": subtitle_of_models(benchmarks),
        "kind": "Model",
        "sentences": model_sentences(benchmarks),
        "missing": summary.missing_from_models(benchmarks),
        "table": table,
        "benchmarks": benchmarks,
        "boards": boards,
        "figures": _parts("figures", boards),
        "tables": {"results": measures.csv_table("results", table["measures"], rows)} | _parts("tables", boards),
    }


def _parts(name: str, boards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {part: value for board in boards for part, value in board[name].items()}


def board(
    groups: Sequence[Group], place: int = 0, *, title: str, several: bool = False, base: Sequence[Evaluation] = ()
) -> dict[str, Any]:
    """What the page shows of the final evaluation on one benchmark. At least one of the groups has it.

    ``figures`` and ``tables`` have ids as keys, which end in the board's ``suffix``. ``data``, ``chunks`` and ``words``
    are for the page's script, and the rest is for the template. If there are ``several`` boards, each figure's title
    names the benchmark. ``base`` are evaluations of the model before training.
    """
    groups = [group for group in groups if group.finals]
    responses = problems.read_responses(groups)
    prompts = problems.prompts_by_problem(groups, responses)
    by_group = confidence.rows_by_group(groups, responses)
    separations, differences = confidence.separations(by_group), summary.differences(groups)
    figures = {
        "differences": plots.difference_figure(differences),
        "pass-at-k": plots.pass_at_k_figure(groups),
        "distinct-by-problem": plots.distinct_figure(groups),
        "coverage": plots.coverage_figure(groups, base),
        "confidence-share": confidence.share_right_figure(by_group),
        "confidence-spread": confidence.spread_figure(by_group),
        "confidence-problems": confidence.problems_figure(by_group),
    }
    suffix, on_benchmark = f"-{place + 1}" if place else "", f" on {title}" if several else ""
    first = problems.samples_in_page(responses)
    chunks, words = problems.chunks(prompts, groups, first)
    return {
        "title": title,
        "on_benchmark": on_benchmark,
        "suffix": suffix,
        "groups": groups,
        "has_seeds": any(len(group.finals) > 1 for group in groups),
        "samples": measures.samples_per_problem(measures.finals_of(groups)),
        "fewer": [f"{group.title}: {fewer}" for group in groups if (fewer := measures.fewer_problems(group.finals))],
        "differences": differences,
        "figures": {name + suffix: figure for name, figure in figures.items() if figure},
        "separations": separations,
        "confidence_sentences": confidence.sentences(separations),
        "most_points": confidence.MOST_POINTS if len(prompts) > confidence.MOST_POINTS else None,
        "tables": {f"confidence{suffix}": confidence.table(separations, on_benchmark)},
        "first": first,
        "data": {"title": title} | problems.table(prompts, groups, responses),
        "chunks": chunks,
        "words": words,
    }


def model_sentences(benchmarks: Mapping[str, Sequence[Group]]) -> list[str]:
    """What is clear and what is not, benchmark by benchmark."""
    sentences = {name: " ".join(summary.sentences(models)) for name, models in benchmarks.items()}
    return [f"{name}: {text}" if len(benchmarks) > 1 else text for name, text in sentences.items()]


def subtitle_of_models(benchmarks: Mapping[str, Sequence[Group]]) -> str:
    """The sampling settings that all evaluations share, in a line. The foot of the page has the settings of each."""
    settings = [model.finals[0].settings for models in benchmarks.values() for model in models]
    phrases = {"samples": "{} samples per problem", "temperature": "temperature {}", "top_p": "top_p {}"}
    phrases["max_new_tokens"] = "at most {} tokens"
    values = {key: {repr(each.get(key)) for each in settings} for key in phrases}
    return ", ".join(
        phrases[key].format(*found) for key, found in values.items() if len(found) == 1 and found != {"None"}
    )


def subtitle(methods: Sequence[Group]) -> str:
    """The budget in a line: ``200 steps of 32 prompts × 16 responses; 2 runs of GRPO, 2 runs of ProGRPO``."""
    recipe = methods[0].runs[0].recipe
    training = recipe.training
    runs = ", ".join(f"{len(m.runs)} run{'s' if len(m.runs) > 1 else ''} of {m.title}" for m in methods)
    budget = f"{training.steps} steps of {training.prompts_per_step} prompts × {training.group_size} responses"
    if (served := steps_per_rollout(recipe)) > 1:
        budget += f" a rollout, which serves {served} steps"
    return f"{budget}, starting from {recipe.model.path}; {runs}"
