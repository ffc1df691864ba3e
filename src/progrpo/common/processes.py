"""The processes of one run, as ``accelerate launch`` starts them: which one decides, evaluates what, and reports."""

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
    """This process's share of an evaluation. Sample i of a problem has a seed of its own, so that results do not depend
    on which process evaluates which problem."""

    def __init__(self) -> None:
        state = PartialState()
        self.process, self.processes = state.process_index, state.num_processes

    def own(self, problems: Sequence[T]) -> Sequence[T]:
        """The problems of this process: every n-th one, because in many benchmarks hard problems stand together."""
        return problems[self.process :: self.processes]

    def join(self, judged: dict[str, Any]) -> dict[str, Any]:
        """The results of all processes, by problem; every process calls it."""
        parts = gather_object([judged]) if self.processes > 1 else [judged]
        return {problem: samples for part in parts for problem, samples in part.items()}


def first_decides(decide: Callable[[], T]) -> T:
    """Return on every process what the first one decides, or raise the ConfigError that it raises."""
    state = PartialState()
    result: list[Any] = [None, None]
    if state.is_main_process:
        try:
            result[0] = decide()
        except ConfigError as error:
            result[1] = error
    if state.num_processes > 1:
        broadcast_object_list(result)
    decision, refusal = result
    if refusal is not None:
        raise refusal
    return decision


class LostProcessError(RunError):
    """Another process of the run has ended, or the launcher is ending them all."""

    def __init__(self, what: str, run: Path) -> None:
        super().__init__(
            f"{what}; go on from the last checkpoint with the same launcher and: progrpo train --resume {run}"
        )


@contextmanager
def explain_lost_process(run: Path) -> Iterator[None]:
    """Raise a LostProcessError if another process was lost: an exchange fails, or the launcher sends a SIGTERM."""
    state = PartialState()
    if state.num_processes == 1:
        yield
        return
    this = f"process {state.process_index} of {state.num_processes}"
    afterwards: Any = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: Any) -> None:
        nonlocal afterwards
        afterwards = signal.SIG_IGN
        raise LostProcessError(
            f"the launcher has ended {this} (SIGTERM): it was stopped itself, or another process has ended", run
        )

    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, LostProcessError) or not _is_collective(error):
            raise
        afterwards = signal.SIG_IGN  # else the launcher's SIGTERM would end this process before it reports
        raise LostProcessError(
            f"another process of this run has ended, and {this} can't go on alone; the output of the ended process "
            "says why",
            run,
        ) from error
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, afterwards)


def _is_collective(error: RuntimeError) -> bool:
    """Whether torch.distributed raised an error. Errors of NCCL and of the store have a class, gloo's only a text."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def is_first_to_report(run: Path) -> bool:
    """Whether this process is the first to ask: only one of the remaining processes should report a lost one."""
    try:
        # Like all hidden .tmp files, this one is removed when the run is resumed.
        (run / ".reported.tmp").touch(exist_ok=False)
    except OSError:
        return False
    return True
