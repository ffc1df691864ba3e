"""The helper: a small process that was started beforehand and forks one shut-in process for each job.

Started as ``python -S -s -P helper.py SETTINGS`` with an empty environment and one socket. For each job it receives a
line of limits and the job's descriptors, which it hands on: it never sees a program or an input, so that one job's
process, a copy of it, holds nothing of another's.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from inside import isolation, runner  # type: ignore[import-not-found]

# Imported once for all: what programs mostly use.
COMMON = (
    "abc array bisect calendar cmath collections copy dataclasses datetime decimal enum fractions functools hashlib "
    "heapq io itertools json math numbers operator queue random re statistics string textwrap time typing"
).split()
JOB_DESCRIPTORS = 5
"""Control, channel, stdin, stdout, stderr."""
CHANNEL = 3


def main() -> None:
    settings = json.loads(sys.argv[1])
    sys.path.extend(settings["path"])
    for name in (*COMMON, *settings["preload"]):
        importlib.import_module(name)
    sys.path.pop(0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what has ended leaves no zombie
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # the copies share these pages as long as nobody writes to them
    missing = {layer: "switched off" for layer in isolation.LAYERS if layer not in settings["layers"]}
    isolation.drop_root(tuple(settings["readable"]))
    _try("namespaces", isolation.enter_network, missing)
    jobs = socket.socket(fileno=0)
    jobs.sendall(b"ready\n")
    while True:
        line, descriptors, _, _ = socket.recv_fds(jobs, 1 << 16, JOB_DESCRIPTORS)
        if not line:
            return  # the parent has gone
        if os.fork() == 0:
            _guard(json.loads(line), settings, descriptors, missing, jobs)
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


def _try(layer: str, apply: Callable[[], None], missing: dict[str, str]) -> None:
    """Apply a part of a layer, or note why it could not be had."""
    if layer not in missing:
        try:
            apply()
        except (OSError, ValueError) as error:
            missing[layer] = str(error)


def _guard(
    limits: dict[str, Any],
    settings: dict[str, Any],
    descriptors: list[int],
    missing: dict[str, str],
    jobs: socket.socket,
) -> None:
    """Make the namespaces, fork the shut-in process into them, tell the parent how to kill it, and wait for its end."""
    jobs.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    _try("namespaces", isolation.enter_namespaces, missing)
    isolation.die_with_parent()
    control, channel, *standard = descriptors
    child = os.fork()
    if child == 0:
        os.close(control)
        _shut_in(limits, settings, channel, standard, missing)
    with socket.socket(fileno=control) as tell:
        handle = os.pidfd_open(child)
        socket.send_fds(tell, [b"started\n"], [handle])
        os.close(handle)
        for descriptor in (channel, *standard):
            os.close(descriptor)
        status = os.waitpid(child, 0)[1]
        tell.sendall(json.dumps(os.waitstatus_to_exitcode(status)).encode() + b"\n")


def _shut_in(
    limits: dict[str, Any], settings: dict[str, Any], channel: int, standard: list[int], missing: dict[str, str]
) -> None:
    isolation.die_with_parent()
    channel = _arrange(channel, standard)
    _try("namespaces", lambda: isolation.mount_own_tmp(limits["file_mb"]), missing)
    has_own_tmp = "namespaces" not in missing
    os.chdir("/tmp" if has_own_tmp else "/")
    os.environ.clear()
    os.environ.update({"HOME": "/tmp", "PATH": "/nowhere", "LANG": "C.UTF-8"})
    own = {name: limits[name] for name in ("seconds", "memory_mb", "file_mb")}
    _try("rlimits", lambda: isolation.limit_resources(**own), missing)
    readable = tuple(settings["readable"])
    writable = ("/tmp",) if has_own_tmp else ()
    _try("landlock", lambda: isolation.restrict_files(readable, writable), missing)
    isolation.hide_memory()
    _try("seccomp", isolation.restrict_calls, missing)
    reached = [layer for layer in isolation.LAYERS if layer not in missing]
    messages = runner.Channel(channel)
    messages.send({"layers": reached, "missing": missing})
    runner.run(messages)


def _arrange(channel: int, standard: list[int]) -> int:
    """The standard descriptors in their places, the channel at 3, and no other open."""
    high = [os.dup(descriptor) for descriptor in (*standard, channel)]
    # Above all of the four places, so that none is overwritten before it is moved.
    spare = [descriptor if descriptor > CHANNEL else _above(descriptor) for descriptor in high]
    for place, descriptor in enumerate(spare):
        os.dup2(descriptor, place)
    os.closerange(CHANNEL + 1, 4096)
    return CHANNEL


def _above(descriptor: int) -> int:
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD, CHANNEL + 1)


if __name__ == "__main__":
    main()
