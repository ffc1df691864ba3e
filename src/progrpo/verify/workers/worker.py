"""The worker's side of :mod:`progrpo.verify.workers.pool`: ``python worker.py SCRIPT MEMORY_MB``.

It runs as a file, not as a module of the package, so that a worker loads only what its script needs. torch would take
seconds and, with CUDA, more address space than a worker may have.
"""

import json
import os
import resource
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def main(script: str, memory_mb: int) -> None:
    """Load the script, report that it is ready, and answer tasks until the parent is gone. An exception in ``handle``
    ends the worker, and the parent counts the task as lost."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # the prints of a library must not become an answer
    end_with_parent()
    handle: Callable[[Any], Any] = runpy.run_path(script)["handle"]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the address space can't be limited
        # The worker gets a MemoryError before the machine runs out of memory.
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    answers.write(b"true\n")
    for line in sys.stdin.buffer:
        seconds, task = json.loads(line)
        # If the parent is gone, the kernel ends even a task that never lets go of the interpreter.
        signal.alarm(int(2 * seconds) + 2)
        answers.write(json.dumps(handle(task)).encode() + b"\n")
        signal.alarm(0)


def end_with_parent() -> None:
    """End soon after the parent, even in the middle of a task; the end of stdin is noticed only between tasks.

    The kernel's parent-death signal is useless here: it is sent when the *thread* that started the worker ends.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
