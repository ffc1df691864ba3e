"""The arguments and options that several commands share, and a decorator that makes a command's options one object."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

from typer import Argument, Option

_OptionsT = TypeVar("_OptionsT")

RECIPE = Argument(metavar="RECIPE", help="A TOML file, or the name of a built-in recipe such as countdown_cpu.")
OVERRIDES = Argument(None, metavar="[KEY=VALUE]...", help="Overrides, e.g. training.steps=50.")
SKIP_BAD_ROWS = Option(False, "--skip-bad-rows", help="Leave out rows of the data that can't be used, and count them.")


def with_skip_bad_rows(overrides: list[str] | None, skip_bad_rows: bool) -> list[str]:
    """The overrides, and one more for ``--skip-bad-rows``."""
    return [*(overrides or []), *(["task.skip_bad_rows=true"] if skip_bad_rows else [])]


def options_from(dataclass: type[_OptionsT]) -> Callable[[Callable[[_OptionsT], None]], Callable[..., None]]:
    """Let a command take all its arguments and options as one object, whose fields Typer sees as parameters."""

    def decorate(command: Callable[[_OptionsT], None]) -> Callable[..., None]:
        @wraps(command)
        def with_parameters(**values: Any) -> None:
            command(dataclass(**values))

        with_parameters.__signature__ = signature(dataclass)  # type: ignore[attr-defined]
        with_parameters.__annotations__ = {}
        return with_parameters

    return decorate
