"""The processes of one run, as ``accelerate launch`` starts them: who speaks, who decides, who evaluates what."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from progrpo.errors import ConfigError, RunError

T = TypeVar("T")


class Share:
    """This process's share of an evaluation, which is a :class:`progrpo.evaluation.evaluate.Share`."""

    def __init__(self) -> None:
        state = PartialState()
        self.process, self.processes = state.process_index, state.num_processes

    def own(self, problems: Sequence[T]) -> Sequence[T]:
        """Every so many-th problem: hard ones lie beside each other in many benchmarks."""
        return problems[self.process :: self.processes]

    def join(self, judged: dict[str, Any]) -> dict[str, Any]:
        """What all processes found."""
        of_all = gather_object([judged]) if self.processes > 1 else [judged]
        return {problem: samples for found in of_all for problem, samples in found.items()}


def first_decides(decide: Callable[[], T]) -> T:
    """What the first process decides, on every process; what it refuses is refused on all.

    Raises:
        ConfigError: the first process raised it.
    """
    state = PartialState()
    told: list[Any] = [None, None]
    if state.is_main_process:
        try:
            told[0] = decide()
        except ConfigError as error:
            told[1] = error
    if state.num_processes > 1:
        broadcast_object_list(told)
    if told[1] is not None:
        raise told[1]
    return told[0]


@contextmanager
def a_lost_process_is_told(run: Path) -> Iterator[None]:
    """What a collective operation says when another process is gone, in words that help.

    Raises:
        RunError: another process of the run has ended.
    """
    try:
        yield
    except RuntimeError as error:
        state = PartialState()
        is_of_collective = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if state.num_processes == 1 or not is_of_collective:
            raise
        raise RunError(
            f"another process of this run has ended, and process {state.process_index} of {state.num_processes} can't "
            f"go on alone; what ended it is in its own output; go on from the last checkpoint with the same launcher "
            f"and: progrpo train --resume {run}"
        ) from error
