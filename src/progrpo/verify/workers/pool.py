"""Worker processes with a deadline that the parent keeps.

A worker is a script that is started as a program of its own: no fork of a process that may hold threads, CUDA or Ray,
and no second import of the caller's main module. So a pool works from any thread, inside Ray and asyncio, in a REPL,
and again after a fork. The script defines ``handle(task)``; :mod:`progrpo.verify.workers.worker` runs it, with one
task in flight. Tasks and answers are JSON. What exceeds its deadline is killed with SIGKILL and another worker
takes its place: there is no signal handler that a task could cancel, and no lock of the interpreter that it could hold.
"""

import json
import os
import queue
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

START_SECONDS = 120.0
"""A worker imports its libraries first; on a busy machine with a cold disk that takes a while."""
ATTEMPTS = 2
"""A worker may be lost by no fault of its task: the kernel's out-of-memory killer takes any process."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task.

    Attributes:
        status: ``"done"``; ``"deadline"``: it took too long; ``"lost"``: every worker that tried it ended.
        value: what ``handle`` returned; of a lost task the last worker's exit code, negative for a signal.
    """

    status: Literal["done", "deadline", "lost"]
    value: Any = None


class WorkerStartError(RuntimeError):
    """Workers can't be started, whatever the task."""


class _WorkerLostError(Exception):
    """The process has ended."""


class _Worker:
    """One process. It says that it is ready first: its start never counts against a task's deadline."""

    def __init__(self, script: Path, memory_mb: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), str(script), str(memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C at the terminal is for the trainer, which ends its workers itself
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        self._read = bytearray()
        self.task: int | None = None
        self.is_ready = False
        self.tasks_done = 0
        self.deadline = self.late_at = time.monotonic() + START_SECONDS

    @property
    def is_late(self) -> bool:
        """A quarter of its task's time is over: most tasks take a thousandth, so it will probably be killed."""
        return self.task is not None and time.monotonic() > self.late_at

    @property
    def is_busy(self) -> bool:
        return self.task is not None or not self.is_ready

    def send(self, index: int, task: Any, seconds: float) -> None:
        self.task, now = index, time.monotonic()
        self.late_at, self.deadline = now + seconds / 4, now + seconds
        line = json.dumps([seconds, task]).encode() + b"\n"
        with suppress(BrokenPipeError):  # found out when its answer is read
            while line:
                line = line[os.write(self._stdin, line) :]

    def step(self) -> Outcome | None:
        """What its task came to, if it came to anything by now."""
        try:
            line = self._receive()
        except _WorkerLostError:
            return Outcome("lost", self.process.wait())
        if line is None:
            return Outcome("deadline") if time.monotonic() > self.deadline else None
        if not self.is_ready:
            self.is_ready = True
            return None
        self.task = None
        self.tasks_done += 1
        return Outcome("done", json.loads(line))

    def _receive(self) -> bytes | None:
        """The next line; None while it is not whole yet."""
        poll = select.poll()
        poll.register(self.stdout, select.POLLIN)
        if not poll.poll(0):
            return None
        read = os.read(self.stdout, 1 << 16)
        if not read:
            raise _WorkerLostError
        self._read += read
        if not read.endswith(b"\n"):
            return None
        line = bytes(self._read)
        self._read.clear()
        return line

    def end(self) -> None:
        self.kill()
        self.process.wait()

    def kill(self) -> None:
        """Without waiting until it is gone, which takes a while for one with much memory."""
        self.process.kill()
        self.let_go()

    def let_go(self) -> None:
        """Close this process's ends of the pipes."""
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(OSError):
                stream.close()


class WorkerPool:
    """Workers that are started when they are first needed, and shared by all threads.

    Args:
        script: a Python file that defines ``handle(task)``; it is run outside any package.
        workers: how many processes at most, and as many again while some are late.
        memory_mb: address space that each may have, in MB (Linux only).
        recycle_after: tasks after which a worker is replaced by a new one, so that a leaking library can't grow.

    Raises:
        ValueError: fewer than one worker.
    """

    def __init__(self, script: Path, *, workers: int, memory_mb: int = 2048, recycle_after: int = 20_000) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}.")
        self.script, self.workers, self.memory_mb, self.recycle_after = script, workers, memory_mb, recycle_after
        self._forget_workers()
        os.register_at_fork(after_in_child=self._after_fork)

    def run(self, tasks: Sequence[Any], seconds: float) -> list[Outcome]:  # noqa: PLR0912 - one loop, in plain sight
        """Do all tasks, each within so many seconds, and return what became of them, in order.

        A worker that is lost is replaced, and its task or its start tried once more. One that is late gets a successor,
        which goes on with the other tasks while the late one has the rest of its time.

        Raises:
            WorkerStartError: a worker did not get ready.
        """
        outcomes: dict[int, Outcome] = {}
        waiting = deque(range(len(tasks)))
        attempts = [0] * len(tasks)
        failed_starts = 0
        slots = self._take(len(tasks))
        late: list[_Worker] = []
        dying: list[_Worker] = []
        try:
            while len(outcomes) < len(tasks):
                for i, worker in enumerate(slots):
                    if waiting and worker is not None and worker.is_late and len(late) < self.workers:
                        late.append(worker)
                        slots[i] = None
                for i, idle in enumerate(slots):
                    if not waiting or (idle is not None and idle.is_busy):
                        continue
                    worker = slots[i] = self._alive(idle)
                    if worker.is_ready:
                        index = waiting.popleft()
                        attempts[index] += 1
                        worker.send(index, tasks[index], seconds)
                busy = [*late, *(worker for worker in slots if worker is not None and worker.is_busy)]
                _wait(busy)
                for worker in busy:
                    task = worker.task
                    outcome = worker.step()
                    if outcome is None:
                        continue
                    if worker in late or outcome.status != "done" or worker.tasks_done >= self.recycle_after:
                        worker.kill()
                        dying = [ended for ended in (*dying, worker) if ended.process.poll() is None]
                        late = [other for other in late if other is not worker]
                        slots = [None if slot is worker else slot for slot in slots]
                    if task is None and (failed_starts := failed_starts + 1) < ATTEMPTS * len(slots):
                        continue
                    if task is None:
                        raise WorkerStartError(f"{self.script.name} did not start as a worker: {outcome}.")
                    if outcome.status == "lost" and attempts[task] < ATTEMPTS:
                        waiting.appendleft(task)
                    else:
                        outcomes[task] = outcome
        finally:
            for worker in late:  # an exception came in between
                worker.kill()
            for worker in (*late, *dying):
                worker.process.wait()
            for slot in slots:
                if slot is None or slot.task is None:
                    self._slots.put(slot)
                else:
                    slot.end()
                    self._slots.put(None)
        return [outcomes[i] for i in range(len(tasks))]

    def close(self) -> None:
        """End the workers that wait for work; the next task starts new ones."""
        for worker in self._take(self.workers):
            if worker is not None:
                worker.end()
            self._slots.put(None)

    def _alive(self, idle: "_Worker | None") -> _Worker:
        """The worker, or a new one if there is none or it has ended while it waited."""
        if idle is not None and idle.process.poll() is None:
            return idle
        if idle is not None:
            idle.let_go()
        return _Worker(self.script, self.memory_mb)

    def _take(self, wanted: int) -> list["_Worker | None"]:
        """At least one slot, and as many more as are free and wanted."""
        if wanted == 0:
            return []
        slots = [self._slots.get()]
        with suppress(queue.Empty):
            while len(slots) < min(wanted, self.workers):
                slots.append(self._slots.get_nowait())
        return slots

    def _forget_workers(self) -> None:
        # A slot is a worker that waits for work, or None where none was started yet: the last one used comes first.
        self._slots: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self.workers):
            self._slots.put(None)

    def _after_fork(self) -> None:
        """In a forked child the workers are the parent's, and a thread of the parent may have held the queue's lock."""
        parents = list(self._slots.queue)
        self._forget_workers()
        for worker in parents:
            if worker is not None:
                worker.let_go()


def _wait(workers: Sequence[_Worker]) -> None:
    """Until one of them has something to say, or one is late, or its deadline has passed."""
    poll = select.poll()  # select.select can't take file numbers above 1023
    for worker in workers:
        poll.register(worker.stdout, select.POLLIN)
    left = min(worker.deadline if worker.is_late else worker.late_at for worker in workers) - time.monotonic()
    poll.poll(max(0.0, left) * 1000 + 1)
