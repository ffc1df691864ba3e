"""Worker processes with a deadline that the parent enforces.

A worker is a script that is started as a separate program. It is not a fork of a process that may have threads, CUDA or
Ray, and it does not import the caller's main module again. So a pool works from any thread, inside Ray and asyncio, in
a REPL, and again after a fork. The script defines ``handle(task)``; :mod:`progrpo.verify.workers.worker` runs it, one
task at a time. Tasks and answers are JSON. A worker that exceeds its deadline is killed with SIGKILL and replaced: a
task can neither cancel a signal handler nor escape by holding the interpreter's lock.
"""

import json
import os
import queue
import select
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

START_SECONDS = 120.0
"""A worker imports its libraries first, which takes a while on a busy machine with a cold disk."""
_IDLE, _STARTING = -1, -2
"""These stand in place of the index of a worker's task."""
ATTEMPTS = 2
"""A worker may be lost through no fault of its task: the kernel's out-of-memory killer takes any process."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a task: ``deadline`` if it took too long, ``lost`` if every worker that tried it ended.

    The value is what ``handle`` returned, or the exit code of the last worker that was lost, negative for a signal.
    """

    status: Literal["done", "deadline", "lost"]
    value: Any = None


class WorkerStartError(RuntimeError):
    """Workers can't be started, whatever the task."""


class _Worker:
    """One process. It first reports that it is ready, so that its start never counts against a task's deadline."""

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
        self._pipes = (self.process.stdin, self.process.stdout)
        self._stdin, self.stdout = (pipe.fileno() for pipe in self._pipes)
        self._read = bytearray()
        self.task = _STARTING
        self.num_tasks = 0
        self.deadline = self.late_at = time.monotonic() + START_SECONDS

    @property
    def is_late(self) -> bool:
        """Whether a quarter of the task's time is over. Most tasks take a thousandth: this one will probably fail."""
        return self.task >= 0 and time.monotonic() > self.late_at

    def send(self, index: int, task: Any, seconds: float) -> None:
        self.task, self.num_tasks, now = index, self.num_tasks + 1, time.monotonic()
        self.late_at, self.deadline = now + seconds / 4, now + seconds
        line = json.dumps([seconds, task]).encode() + b"\n"
        with suppress(BrokenPipeError):  # step() then finds that the worker is lost
            while line:
                line = line[os.write(self._stdin, line) :]

    def step(self, has_sent: bool) -> Outcome | None:
        """The outcome of the task, or of the start; None as long as it is not known."""
        if has_sent:
            part = os.read(self.stdout, 1 << 16)
            if not part:
                return Outcome("lost", self.process.wait())
            self._read += part
        if not self._read.endswith(b"\n"):
            return Outcome("deadline") if time.monotonic() > self.deadline else None
        answer = json.loads(self._read)
        self._read.clear()
        self.task = _IDLE
        return Outcome("done", answer)

    def kill(self) -> None:
        """Kill the process without waiting for its end, which takes a while if it uses much memory."""
        self.process.kill()
        self.close_pipes()

    def close_pipes(self) -> None:
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.close()


class WorkerPool:
    """Workers that are started when they are first needed, and shared by all threads.

    Args:
        script: a Python file that defines ``handle(task)``; it is run outside any package.
        workers: the greatest number of processes, at least 1; up to as many more stand in for late ones.
        memory_mb: the address space of each, in MB (Linux only).
        recycle_after: a worker is replaced after this number of tasks, so that a memory leak can't grow.
    """

    def __init__(self, script: Path, *, workers: int, memory_mb: int = 2048, recycle_after: int = 20_000) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}.")
        self.script, self.workers, self.memory_mb, self.recycle_after = script, workers, memory_mb, recycle_after
        self._forget_workers()
        os.register_at_fork(after_in_child=self._after_fork)

    def run(self, tasks: Sequence[Any], seconds: float) -> list[Outcome]:
        """Do all tasks, each within this number of seconds, and return their outcomes in order.

        A lost worker is replaced, and its task or its start is tried once more; a WorkerStartError says that no worker
        became ready. A late worker gets a successor, which goes on with the other tasks while the late one uses the
        rest of its time.
        """
        waiting, outcomes = deque(range(len(tasks))), dict[int, Outcome]()
        attempts, failed_starts = Counter[int](), 0
        slots, active = self._take_slots(len(tasks))
        dying: list[_Worker] = []
        try:
            while len(outcomes) < len(tasks):
                num_late = sum(worker.is_late for worker in active)
                while waiting and len(active) < slots + min(num_late, self.workers):
                    active.append(_Worker(self.script, self.memory_mb))
                for worker in active:
                    if waiting and worker.task == _IDLE:
                        worker.send(waiting[0], tasks[waiting.popleft()], seconds)
                busy = [worker for worker in active if worker.task != _IDLE]
                have_sent = _wait(busy)
                for worker in busy:
                    task, is_surplus = worker.task, worker.is_late and len(active) > slots
                    outcome = worker.step(worker.stdout in have_sent)
                    if outcome is None:
                        continue
                    if is_surplus or outcome.status != "done" or worker.num_tasks >= self.recycle_after:
                        worker.kill()
                        active.remove(worker)
                        dying = [ended for ended in (*dying, worker) if ended.process.poll() is None]
                    attempts[task] += outcome.status == "lost"
                    if task == _STARTING:
                        failed_starts += outcome.status != "done"
                        if failed_starts >= ATTEMPTS * slots:
                            raise WorkerStartError(f"{self.script.name} did not start as a worker: {outcome}.")
                    elif outcome.status == "lost" and attempts[task] < ATTEMPTS:
                        waiting.appendleft(task)
                    else:
                        outcomes[task] = outcome
        finally:  # keep idle workers; an exception may leave others behind
            idle = [worker for worker in active if worker.task < 0][:slots]
            self._give_back(slots, idle, [*(worker for worker in active if worker not in idle), *dying])
        return [outcomes[i] for i in range(len(tasks))]

    def close(self) -> None:
        """End the idle workers; the next task starts new ones."""
        slots, idle = self._take_slots(self.workers)
        self._give_back(slots, [], idle)

    def _take_slots(self, wanted: int) -> tuple[int, list[_Worker]]:
        """Take at least one slot, and as many more as are free and wanted; their workers that have not ended."""
        slots = [self._slots.get()] if wanted else []
        with suppress(queue.Empty):
            while len(slots) < min(wanted, self.workers):
                slots.append(self._slots.get_nowait())
        workers = list(filter(None, slots))
        for worker in workers:
            if worker.process.poll() is not None:
                worker.close_pipes()
        return len(slots), [worker for worker in workers if worker.process.returncode is None]

    def _give_back(self, slots: int, kept: Sequence[_Worker], ended: Sequence[_Worker]) -> None:
        for worker in ended:
            worker.kill()
        for worker in ended:
            worker.process.wait()
        for place in range(slots):
            self._slots.put(kept[place] if place < len(kept) else None)

    def _forget_workers(self) -> None:
        # A slot holds an idle worker, or None if none was started yet. The last used worker comes first.
        self._slots: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self.workers):
            self._slots.put(None)

    def _after_fork(self) -> None:
        """In a forked child, start without workers: they are the parent's, and a thread may have held the lock."""
        parents = list(self._slots.queue)
        self._forget_workers()
        for worker in filter(None, parents):
            worker.close_pipes()


def _wait(workers: Sequence[_Worker]) -> set[int]:
    """Wait until workers have sent something, a worker is late, or a deadline has passed; the pipes with something."""
    poll = select.poll()  # select.select can't take file numbers above 1023
    for worker in workers:
        poll.register(worker.stdout, select.POLLIN)
    left = min(worker.deadline if worker.is_late else worker.late_at for worker in workers) - time.monotonic()
    return {stdout for stdout, _ in poll.poll(max(0.0, left) * 1000 + 1)}
