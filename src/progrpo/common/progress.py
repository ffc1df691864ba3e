"""How a run shows its progress."""

from typing import Protocol


class Progress(Protocol):
    """A progress bar; the command line has one, and tests have others."""

    def stage(self, name: str, total: int, completed: int = 0) -> None:
        """Begin a stage of the run: ``train``, ``evaluate``."""

    def advance(self, amount: int = 1, **values: float) -> None:
        """Add to the part of the stage that is done; the values are the newest metrics."""
