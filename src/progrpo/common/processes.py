"""The processes of one run, as ``accelerate launch`` starts them: who speaks, who decides, who evaluates what."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from progrpo.common.errors import ConfigError, RunError

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


class LostProcessError(RunError):
    """Another process of the run has ended, or the launcher is ending them all."""

    def __init__(self, what: str, run: Path) -> None:
        super().__init__(
            f"{what}; go on from the last checkpoint with the same launcher and: progrpo train --resume {run}"
        )


@contextmanager
def a_lost_process_is_told(run: Path) -> Iterator[None]:
    """Say in words that help what the loss of another process looks like from here: a collective operation that fails,
    or a SIGTERM by the launcher.

    Raises:
        LostProcessError: see there.
    """
    state = PartialState()
    if state.num_processes == 1:
        yield
        return
    of_all = f"process {state.process_index} of {state.num_processes}"
    afterwards: Any = signal.getsignal(signal.SIGTERM)

    def ended(number: int, frame: Any) -> None:
        nonlocal afterwards
        afterwards = signal.SIG_IGN
        raise LostProcessError(
            f"the launcher has ended {of_all} (SIGTERM): it was stopped itself, or another process has ended", run
        )

    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        signal.signal(signal.SIGTERM, ended)
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, LostProcessError) or not _is_of_collective(error):
            raise
        afterwards = signal.SIG_IGN  # the launcher's SIGTERM is on its way, and would come before the last word
        raise LostProcessError(
            f"another process of this run has ended, and {of_all} can't go on alone; why is in its own output", run
        ) from error
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, afterwards)


def _is_of_collective(error: RuntimeError) -> bool:
    """Of torch.distributed: NCCL's and the store's have a class, gloo's are named in their text alone."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def is_first_to_tell(run: Path) -> bool:
    """Whether no other process has asked: of those that lost one, any may be the first, and one sentence is enough."""
    try:
        (run / ".told.tmp").touch(exist_ok=False)  # as all that begins and ends so, it goes when the run is resumed
    except OSError:
        return False
    return True
