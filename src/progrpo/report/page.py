"""Rendering: run folders in, one HTML file out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from progrpo.errors import ConfigError
from progrpo.files import write_text
from progrpo.report import plots, responses, summary
from progrpo.report.collect import (
    MethodRuns,
    base_evaluations,
    collect,
    common_problems,
    missing_parts,
    samples_per_problem,
)
from progrpo.run_folder import RunFolder

TEMPLATES = Path(__file__).parent / "templates"


def write_page(runs: Sequence[RunFolder], out: Path, *, title: str | None = None) -> Path:
    """Write the report of one or several runs as a single HTML file that loads nothing from anywhere.

    Runs are grouped by their recipe's method; runs of one method are its seeds. Runs may be unfinished: the page
    shows what is there and says what is missing.

    Args:
        runs: the run folders, in any order.
        out: the file to write; its folder is made. It is whole or not there.
        title: of the page; the methods and the task by default.

    Returns:
        ``out``.

    Raises:
        ConfigError: no run was given, a folder is not a run folder, or Plotly or Jinja2 is not installed.
    """
    write_text(out, render(assemble(collect(runs), title=title)))
    return out


def summary_text(runs: Sequence[RunFolder]) -> str:
    """What the page says first, for a terminal. Raises as :func:`write_page`."""
    return summary.text(collect(runs))


def assemble(methods: Sequence[MethodRuns], *, title: str | None = None) -> dict[str, Any]:
    """Everything that the page shows, as plain values: what the templates and the page's script are given."""
    found = summary.differences(methods)
    table = summary.table(methods)
    panels = plots.training_panels(methods)
    figures = {panel["id"]: panel["figure"] for panel in panels}
    single = {
        "differences": plots.difference_figure(found),
        "pass-at-k": plots.pass_at_k_figure(methods),
        "distinct-by-problem": plots.distinct_figure(methods),
        "coverage": plots.coverage_figure(methods),
    }
    figures |= {name: figure for name, figure in single.items() if figure}
    return {
        "title": title or default_title(methods),
        "subtitle": subtitle(methods),
        "methods": [{"name": m.name, "title": m.title, "seeds": [r.recipe.seed for r in m.runs]} for m in methods],
        "sentences": summary.sentences(methods),
        "table": table,
        "differences": found,
        "per_run": summary.per_run(methods, table["measures"]),
        "seeds": min((len(m.finals) for m in methods if m.finals), default=0),
        "missing": missing_parts(methods),
        "panels": [{key: panel[key] for key in ("id", "title", "caption")} for panel in panels],
        "figures": figures,
        "descriptions": {name: plots.describe(figure) for name, figure in figures.items()},
        "smoothing": max((plots.window_for(len(r.metrics)) for m in methods for r in m.runs), default=1),
        "training_evaluation": training_evaluation(methods),
        "final_samples": samples_per_problem([e for m in methods for e in m.finals]),
        "reader": responses.reader(methods),
        "runs": run_records(methods),
    }


def default_title(methods: Sequence[MethodRuns]) -> str:
    """``GRPO and ProGRPO on countdown``."""
    *first, last = [method.title for method in methods]
    tasks = dict.fromkeys(run.recipe.task.name for method in methods for run in method.runs)
    return f"{', '.join(first)}{' and ' if first else ''}{last} on {', '.join(tasks)}"


def subtitle(methods: Sequence[MethodRuns]) -> str:
    """The budget in a line: ``200 steps of 32 prompts × 16 responses; 2 runs of GRPO, 2 runs of ProGRPO``."""
    recipe = methods[0].runs[0].recipe
    training = recipe.training
    runs = ", ".join(f"{len(m.runs)} run{'s' if len(m.runs) > 1 else ''} of {m.title}" for m in methods)
    budget = f"{training.steps} steps of {training.prompts_per_step} prompts × {training.group_size} responses"
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
    )
