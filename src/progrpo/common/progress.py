"""What a run tells whoever watches it."""

from typing import Protocol


class Progress(Protocol):
    """What a run tells whoever watches it."""

    def stage(self, name: str, total: int, completed: int = 0) -> None:
        """A stage of the run begins: ``train``, ``evaluate``."""
        ...

    def advance(self, amount: int = 1, **values: float) -> None:
        """So much more of the stage is done; the values are the newest metrics."""
        ...
