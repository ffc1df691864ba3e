"""The arguments and options that several commands share."""

from typing import Annotated

from typer import Argument, Option

RecipeArgument = Annotated[
    str, Argument(metavar="RECIPE", help="A TOML file, or the name of a built-in recipe such as countdown_cpu.")
]
OverridesArgument = Annotated[
    list[str] | None, Argument(metavar="[KEY=VALUE]...", help="Overrides, e.g. training.steps=50.")
]
SkipBadRowsOption = Annotated[
    bool, Option("--skip-bad-rows", help="Leave out rows of the data that can't be used, and count them.")
]


def with_skip_bad_rows(overrides: list[str] | None, skip_bad_rows: bool) -> list[str]:
    """The overrides, and one more for ``--skip-bad-rows``."""
    return [*(overrides or []), *(["task.skip_bad_rows=true"] if skip_bad_rows else [])]
