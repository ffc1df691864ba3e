"""``progrpo train``"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from typer import Argument, Option

from progrpo.cli.options import OVERRIDES, SKIP_BAD_ROWS, with_skip_bad_rows
from progrpo.common.environment import process_index
from progrpo.common.errors import ConfigError, Interrupted

if TYPE_CHECKING:
    from progrpo.recipes.schema import Recipe
    from progrpo.runs.folder import RunFolder

HEAD_START = 3.0
"""Seconds that the first process has to report. The launcher ends all processes as soon as one has ended."""


def train(
    recipe: str = Argument(metavar="RECIPE", help="A TOML file, a built-in recipe, or with --resume a run folder."),
    overrides: list[str] | None = OVERRIDES,
    out: Path | None = Option(None, help="The run folder. By default runs/RECIPE-METHOD-seedSEED."),
    resume: bool = Option(False, "--resume", help="Continue from the newest good checkpoint in the folder."),
    skip_bad_rows: bool = SKIP_BAD_ROWS,
    dry_run: bool = Option(False, "--dry-run", help="Run nothing; print the plan: model, batch, memory, commands."),
) -> None:
    """Train as a recipe says, evaluate on held-out problems, and leave a run folder with a report.

    **Examples**

    - `progrpo train countdown_cpu`
    - `progrpo train my.toml method=grpo training.steps=50 --out runs/short`
    - `progrpo train smollm2_word_problems_cpu`
    - `progrpo train qwen2.5_7b_dapo_math engine=verl`
    - `progrpo train --resume runs/short`
    - `progrpo train qwen2.5_7b_dapo_math engine=verl --dry-run`
    """
    from progrpo.recipes.schema import builtin_recipes, load_recipe
    from progrpo.runs.folder import RunFolder

    changes = with_skip_bad_rows(overrides, skip_bad_rows)
    if resume and Path(recipe).is_dir():
        if changes or out:
            raise ConfigError(f"{recipe!r} is resumed as its recipe.json says; leave out the overrides and --out.")
        folder = RunFolder(Path(recipe))
        loaded = folder.recipe()
    elif resume and not Path(recipe).exists() and recipe not in builtin_recipes():
        raise ConfigError(
            f"there is no run to resume at {recipe!r}: give a run folder, or a recipe and the --out that it was "
            "trained with."
        )
    else:
        loaded = load_recipe(recipe, changes)
        folder = RunFolder(out or Path("runs") / loaded.run_name)
    if dry_run:
        from progrpo.cli.dry_run import print_plan
        from progrpo.launch.plan import make_plan

        print_plan(make_plan(loaded, recipe, [*changes, *(["--resume"] if resume else [])], folder))
    else:
        _run(loaded, folder, resume)


def let_first_process_speak() -> None:
    """Wait before this process fails, unless it is the first one, which reports the failure for all."""
    if process_index():
        time.sleep(HEAD_START)


def _run(recipe: "Recipe", folder: "RunFolder", resume: bool) -> None:
    """Train. The first process shows a progress bar, writes the report, and says where everything is."""
    is_first = process_index() == 0
    if resume and folder.is_finished() and folder.recipe() == recipe:
        if is_first:
            if not folder.report.exists():  # the run was killed before it was written
                with folder.locked():
                    folder.remove_leftovers()
                    _write_report(folder)
            print(f"{folder.path} is finished; its report is {folder.report}")
        return
    folder.check_writable()  # before the imports, which take seconds
    from rich.console import Console

    from progrpo.cli.progress import Bars
    from progrpo.common.processes import LostProcessError, is_first_to_report
    from progrpo.launch.engines import ENGINES

    try:
        with Bars(None if is_first else Console(quiet=True)) as bars:
            evaluation = ENGINES[recipe.engine].train(recipe, folder, bars.bar(""), resume=resume)
    except Interrupted as stop:
        let_first_process_speak()
        if is_first:
            print(f"{stop}. Continue with: progrpo train --resume {folder.path}", flush=True)
        raise typer.Exit(128 + stop.signal_number) from None
    except LostProcessError:
        if is_first_to_report(folder.path):
            raise
        raise typer.Exit(1) from None
    if is_first:
        for name, value in evaluation.summary().items():
            print(f"{name:>10}  {value:.3f}")
        _write_report(folder)


def _write_report(folder: "RunFolder") -> None:
    from progrpo.pages import write_page

    try:
        write_page([folder], folder.report)
    except ConfigError as error:  # the run is done, and its page can be written at any time
        print(f"{error} Then: progrpo report {folder.path}")
    else:
        print(folder.report)
