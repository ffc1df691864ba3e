"""Anybody's problems: a prompt, a gold, and the name of a verifier in each row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from progrpo.tasks.dataset import DatasetTask, Item
from progrpo.tasks.rows import Data, Row, text_column
from progrpo.verify.registry import VERIFIERS


@dataclass(frozen=True)
class JsonlTask(DatasetTask):
    """Rows of ``{"prompt": ..., "gold": ..., "verifier": ...}``: each is verified by the verifier that it names.

    Args:
        default_verifier: of the rows that name none; a name of :data:`progrpo.verify.registry.VERIFIERS`.
    """

    template: str = "plain"
    default_verifier: str = "math"

    name: ClassVar[str] = "jsonl"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.default_verifier not in VERIFIERS:
            raise ValueError(f"default_verifier must be one of {', '.join(VERIFIERS)}, got {self.default_verifier!r}.")

    @property
    def verifier(self) -> str:
        return self.default_verifier

    def read_columns(self, data: Data) -> Callable[[Row], Item]:
        def read(row: Row) -> Item:
            verifier = text_column(row, "verifier") if row.get("verifier") else ""
            prompt = text_column(row, data.problem or "prompt")
            return Item(prompt, text_column(row, data.gold or "gold"), verifier=verifier)

        return read
