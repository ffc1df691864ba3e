"""The helper: a small process that is started beforehand and forks one sandboxed process for each job.

It is started as ``python -S -s -P helper.py SETTINGS`` with an almost empty environment and one socket. For each job it
receives a line of limits and the job's descriptors, which it hands on. It never sees a program or an input, so the
processes, which are copies of it, hold nothing from other jobs.
"""

import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from inside import isolation, runner  # type: ignore[import-not-found]

# The modules that programs use most are imported once for all processes.
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    missing = {layer: "switched off" for layer in isolation.LAYERS if layer not in settings["layers"]}
    isolation.drop_root(tuple(settings["readable"]))
    _try("namespaces", isolation.enter_namespaces, missing)
    if "namespaces" not in missing and (first := os.fork()) != 0:
        os.close(0)  # the socket is the child's, the first process of the namespace
        os.waitpid(first, 0)
        return
    isolation.die_with_parent()
    _try("seccomp", isolation.prepare_filter, missing)
    gc.freeze()  # the copies share these pages as long as nobody writes to them
    _serve(socket.socket(fileno=0), settings, missing)


def _try(layer: str, apply: Callable[[], None], missing: dict[str, str]) -> None:
    """Apply a part of a layer, or note why it is missing."""
    if layer not in missing:
        try:
            apply()
        except (OSError, ValueError) as error:
            missing[layer] = str(error)


def _serve(jobs: socket.socket, settings: dict[str, Any], missing: dict[str, str]) -> None:
    """Fork a process for each job and report to the parent how each ended, until the parent is gone."""
    jobs.sendall(b"ready\n")
    running: dict[int, tuple[int, int]] = {}  # by pidfd: process id, control
    poll = select.poll()
    poll.register(jobs, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in running:
                poll.unregister(descriptor)
                child, control = running.pop(descriptor)
                _report_end(control, os.waitpid(child, 0)[1])
                os.close(descriptor)
                continue
            line, descriptors, _, _ = socket.recv_fds(jobs, 1 << 16, JOB_DESCRIPTORS)
            if not line:
                return
            control, *others = descriptors
            child = _fork(json.loads(line), settings, others, missing)
            handle = os.pidfd_open(child)
            running[handle] = (child, control)
            poll.register(handle, select.POLLIN)
            _report_start(control, handle)


def _fork(limits: dict[str, Any], settings: dict[str, Any], descriptors: list[int], missing: dict[str, str]) -> int:
    missing = dict(missing)
    _try("namespaces", isolation.new_process_ids, missing)
    child = os.fork()
    if child == 0:
        channel, *standard = descriptors
        _run_isolated(limits, settings, channel, standard, missing)
    for descriptor in descriptors:
        os.close(descriptor)
    return child


def _report_start(control: int, handle: int) -> None:
    """Send the parent a handle by which it can kill the process."""
    with socket.socket(fileno=os.dup(control)) as parent, suppress(OSError):  # the parent may have given up
        socket.send_fds(parent, [b"started\n"], [handle])


def _report_end(control: int, status: int) -> None:
    with socket.socket(fileno=control) as parent, suppress(OSError):
        parent.sendall(json.dumps(os.waitstatus_to_exitcode(status)).encode() + b"\n")


def _run_isolated(
    limits: dict[str, Any], settings: dict[str, Any], channel: int, standard: list[int], missing: dict[str, str]
) -> None:
    os.setsid()
    isolation.die_with_parent()
    channel = _arrange(channel, standard)
    _try("namespaces", partial(isolation.mount_own_tmp, limits["file_mb"]), missing)
    _try("rlimits", isolation.drop_capabilities, missing)
    has_own_tmp = "namespaces" not in missing
    os.chdir("/tmp" if has_own_tmp else "/")
    os.environ.clear()
    os.environ.update({"HOME": "/tmp", "PATH": "/nowhere", "LANG": "C.UTF-8"})
    limit_resources = partial(
        isolation.limit_resources,
        cpu_seconds=limits["seconds"] * limits["cases"],
        memory_mb=limits["memory_mb"],
        file_mb=limits["file_mb"],
        own_user_namespace=has_own_tmp,
    )
    _try("rlimits", limit_resources, missing)
    writable = ("/tmp",) if has_own_tmp else ()
    _try("landlock", partial(isolation.restrict_files, tuple(settings["readable"]), writable), missing)
    isolation.hide_memory()
    _try("seccomp", isolation.restrict_calls, missing)
    reached = [layer for layer in isolation.LAYERS if layer not in missing]
    messages = runner.Channel(channel)
    messages.send({"layers": reached, "missing": missing})
    runner.run(messages)


def _arrange(channel: int, standard: list[int]) -> int:
    """Put the standard descriptors in their places and the channel at 3, and close all others."""
    # First make copies above all four places, so that none is overwritten before it is moved.
    spare = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, CHANNEL + 1) for descriptor in (*standard, channel)]
    for place, descriptor in enumerate(spare):
        os.dup2(descriptor, place)
    os.closerange(CHANNEL + 1, 4096)
    return CHANNEL


if __name__ == "__main__":
    main()
