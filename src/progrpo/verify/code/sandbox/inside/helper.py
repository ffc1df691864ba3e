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
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from inside import isolation, runner  # type: ignore[import-not-found]

# The modules that programs use most are imported once for all processes.
COMMON = (
    "abc array bisect calendar cmath collections copy dataclasses datetime decimal enum fractions functools hashlib "
    "heapq io itertools json math numbers operator queue random re statistics string textwrap time typing"
).split()
JOB_DESCRIPTORS = 4
"""Control, channel, stdin, stdout. Standard error is the helper's own, which is /dev/null."""
CHANNEL = 3


def main() -> None:
    settings = json.loads(sys.argv[1])
    sys.path.extend(settings["path"])
    for name in (*COMMON, *settings["preload"]):
        importlib.import_module(name)
    sys.path.pop(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    missing = settings["missing"]
    isolation.drop_root(settings["readable"])
    _try(missing, "namespaces", isolation.enter_namespaces)
    if "namespaces" not in missing and (first := os.fork()) != 0:
        os.close(0)  # the socket is the child's, the first process of the namespace
        os.waitpid(first, 0)
        return
    isolation.die_with_parent()
    _try(missing, "seccomp", isolation.call_filter, 1)  # computed beforehand, for the first process of a namespace
    gc.freeze()  # the copies share these pages as long as nobody writes to them
    _serve(socket.socket(fileno=0), settings["readable"], missing)


def _try(missing: dict[str, str], layer: str, apply: Callable[..., object], *arguments: Any, **named: Any) -> None:
    """Apply a part of a layer, or note why it is missing."""
    if layer not in missing:
        try:
            apply(*arguments, **named)
        except (OSError, ValueError) as error:
            missing[layer] = str(error)


def _serve(jobs: socket.socket, readable: list[str], missing: dict[str, str]) -> None:
    """Fork a process for each job, and send the parent a handle to kill it by and, later, its exit code, until the
    parent is gone."""
    running: dict[int, tuple[int, socket.socket]] = {}  # by pidfd: process id, control
    poll = select.poll()
    poll.register(jobs, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in running:
                poll.unregister(descriptor)
                child, control = running.pop(descriptor)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                with control, suppress(OSError):  # the parent may have given up
                    control.sendall(b"%d\n" % code)
                os.close(descriptor)
                continue
            line, descriptors, _, _ = socket.recv_fds(jobs, 1 << 16, JOB_DESCRIPTORS)
            if not line:
                return
            control = socket.socket(fileno=descriptors.pop(0))
            child = _fork(json.loads(line), descriptors, readable, missing)
            handle = os.pidfd_open(child)
            running[handle] = (child, control)
            poll.register(handle, select.POLLIN)
            with suppress(OSError):
                socket.send_fds(control, [b"started\n"], [handle])


def _fork(limits: dict[str, Any], descriptors: list[int], readable: list[str], missing: dict[str, str]) -> int:
    missing = dict(missing)
    _try(missing, "namespaces", isolation.new_process_ids)
    child = os.fork()
    if child == 0:
        _run_isolated(limits, descriptors, readable, missing)
    for descriptor in descriptors:
        os.close(descriptor)
    return child


def _run_isolated(limits: dict[str, Any], descriptors: list[int], readable: list[str], missing: dict[str, str]) -> None:
    os.setsid()
    isolation.die_with_parent()
    # First make copies above all places, so that none is overwritten before it is moved.
    spare = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, CHANNEL + 1) for descriptor in descriptors]
    for place, descriptor in zip((CHANNEL, 0, 1), spare, strict=True):
        os.dup2(descriptor, place)
    os.closerange(CHANNEL + 1, 4096)
    _try(missing, "namespaces", isolation.mount_own_tmp, limits["file_mb"])
    _try(missing, "rlimits", isolation.drop_capabilities)
    has_own_tmp = "namespaces" not in missing
    os.chdir("/tmp" if has_own_tmp else "/")
    os.environ.clear()
    os.environ.update({"HOME": "/tmp", "PATH": "/nowhere", "LANG": "C.UTF-8"})
    _try(missing, "rlimits", isolation.limit_resources, **limits, own_user_namespace=has_own_tmp)
    _try(missing, "landlock", isolation.restrict_files, readable, ["/tmp"] if has_own_tmp else [])
    isolation.hide_memory()
    _try(missing, "seccomp", isolation.restrict_calls)
    messages = runner.Channel(CHANNEL)
    messages.send({"missing": missing})
    runner.run(messages)


if __name__ == "__main__":
    main()
