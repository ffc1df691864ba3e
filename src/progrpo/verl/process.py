"""Starts verl's process, ends it with everything that it started, and finds the last error in its log."""

import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from progrpo.common.signals import end_with_parent

STOP_SECONDS = 60.0
"""How long verl and Ray may take to end after they were asked to; then they are killed."""
MARK = "PROGRPO_VERL_RUN"
"""The environment variable that marks the processes of a run: Ray's outlive a driver that was killed."""
LOG_TAIL = 200_000
"""How many bytes of the log's end are searched for the last error."""

_ERROR = re.compile(r"^(?:[\w.]*\.)?\w*(?:Error|Exception|Interrupt|Failed)\b(?:\([\w.]*\))?: \S.*")
_PREFIX = re.compile(r"^(?:\x1b\[[0-9;]*m)*\((?:[^()]|\([^()]*\))*pid=\d+[^)]*\)(?:\x1b\[[0-9;]*m)* ?")
"""Ray writes this before a line of a worker: ``(TaskRunnerV1 pid=123)``, in colour."""


@contextmanager
def running(command: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command with its output appended to ``log``; no process that it started outlives the block."""
    mark = uuid.uuid4().hex
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {MARK: mark, "PYTHONUNBUFFERED": "1", "HYDRA_FULL_ERROR": "1"},
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
            # Without this, verl would go on after a run that was killed, and write to its folder.
            preexec_fn=end_with_parent,  # noqa: PLW1509 (one system call)
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        left = [other for other in psutil.process_iter(["environ"]) if (other.info["environ"] or {}).get(MARK) == mark]
        for other in left:
            with suppress(psutil.NoSuchProcess):
                other.kill()
        psutil.wait_procs(left, timeout=10)


def last_error(log: Path) -> str:
    """The last line of a log that names an error, as a sentence; without one, the last line.

    Ray repeats a worker's error: ``RayTaskError(ValueError)`` wraps the cause, ``ValueError: ...``.
    """
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - LOG_TAIL, 0))
        lines = [_PREFIX.sub("", line).strip() for line in file.read().decode(errors="replace").splitlines()]
    errors = [line for line in lines if _ERROR.match(line)]
    causes = [line for line in errors if "ray::" not in line and "RayTaskError" not in line]
    last = (causes or errors or list(filter(None, lines)) or ["it wrote nothing"])[-1]
    return last if last.endswith(".") else f"{last}."
