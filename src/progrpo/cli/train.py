"""``progrpo train``"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from progrpo.cli.processes import let_first_process_speak
from progrpo.common.environment import process_index
from progrpo.common.errors import ConfigError, Interrupted
from progrpo.recipes.schema import Recipe, builtin_recipes, load_recipe
from progrpo.runs.folder import RunFolder

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A TOML file, or the name of a built-in recipe such as countdown_cpu.")
]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, e.g. training.steps=50.")
]
SkipBadRowsOption = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Leave out rows of the data that can't be used, and count them.")
]


def overrides_with(overrides: list[str] | None, skip_bad_rows: bool) -> list[str]:
    """The overrides, and one more for ``--skip-bad-rows``."""
    return [*(overrides or []), *(["task.skip_bad_rows=true"] if skip_bad_rows else [])]


def train(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A TOML file, a built-in recipe's name, or with --resume a run folder."),
    ],
    overrides: OverridesArgument = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. By default runs/RECIPE-METHOD-seedSEED.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest good checkpoint in the folder.")
    ] = False,
    skip_bad_rows: SkipBadRowsOption = False,
    plan: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan: model, batch, memory, what to launch. Nothing is run.")
    ] = False,
) -> None:
    """Train as a recipe says, evaluate on held-out problems, and leave a run folder with a report.

    **Examples**

    `progrpo train countdown_cpu`

    `progrpo train my.toml method=grpo training.steps=50 --out runs/short`

    `progrpo train smollm2_word_problems_cpu`

    `progrpo train qwen2.5_7b_dapo_math engine=verl`

    `progrpo train --resume runs/short`

    `progrpo train qwen2.5_7b_dapo_math engine=verl --dry-run`
    """
    is_run_folder = resume and Path(recipe).is_dir()
    if resume and not is_run_folder and not Path(recipe).exists() and recipe not in builtin_recipes():
        raise ConfigError(
            f"there is no run to resume at {recipe!r}: give a run folder, or a recipe and the --out that it was "
            "trained with."
        )
    overrides = overrides_with(overrides, skip_bad_rows)
    if is_run_folder and (overrides or out):
        raise ConfigError(f"{recipe!r} is resumed as its recipe.json says; leave the overrides and --out away.")
    folder = RunFolder(Path(recipe)) if is_run_folder else None
    loaded = folder.recipe() if folder else load_recipe(recipe, overrides)
    folder = folder or RunFolder(out or Path("runs") / loaded.run_name)
    if plan:
        from progrpo.cli.dry_run import dry_run

        dry_run(loaded, recipe, [*overrides, *(["--resume"] if resume else [])], folder)
        return
    run(loaded, folder, resume=resume)


def run(recipe: Recipe, folder: RunFolder, *, resume: bool) -> None:
    """Train with a progress bar, then write the report and say where everything is: the first process does."""
    if resume and folder.is_finished() and folder.recipe() == recipe:
        if process_index() == 0:
            if not folder.report.exists():  # killed before it was written
                with folder.locked():
                    folder.remove_leftovers()
                    _report(folder)
            print(f"{folder.path} is finished; its report is {folder.report}")
        return
    folder.check_writable()  # before the imports, which take seconds
    from progrpo.cli.progress import Bars
    from progrpo.common.processes import LostProcessError, is_first_to_tell

    if recipe.engine == "verl":
        from progrpo.verl.run import train as train_recipe
    else:
        from progrpo.trl.run import train as train_recipe

    process = process_index()
    try:
        with Bars(Console(quiet=True) if process else None) as bars:
            evaluation = train_recipe(recipe, folder, bars.bar(""), resume=resume)
    except Interrupted as stop:
        let_first_process_speak()
        if process == 0:
            print(f"{stop}. Continue with: progrpo train --resume {folder.path}", flush=True)
        raise typer.Exit(128 + stop.signal_number) from None
    except LostProcessError:
        if is_first_to_tell(folder.path):
            raise
        raise typer.Exit(1) from None
    if process:
        return
    for name, value in evaluation.summary().items():
        print(f"{name:>10}  {value:.3f}")
    _report(folder)


def _report(folder: RunFolder) -> None:
    from progrpo.pages import write_page

    try:
        write_page([folder], folder.report)
    except ConfigError as error:  # the run is done, and its page can be written at any time
        print(f"{error} Then: progrpo report {folder.path}")
    else:
        print(folder.report)
