"""The trusted side of the sandbox: starts sandboxed processes, each for one job."""

import json
import os
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from progrpo.verify.code.sandbox.inside.values import plain
from progrpo.verify.code.sandbox.process import (
    LAYERS,
    MIN_ISOLATION,
    START_SECONDS,
    HelperLostError,
    Isolation,
    Limits,
    NotIsolatedError,
    Process,
    ProgramFailedError,
    SandboxError,
)


class Sandbox:
    """Starts sandboxed processes from a helper that was started beforehand, in any thread, and again after a fork.

    Args:
        preload: modules of this environment that the helper imports, for :meth:`call`. Programs can read everything
            in them.
        layers: the layers to apply, by default all; tests apply fewer.
    """

    def __init__(self, preload: Sequence[str] = (), layers: Sequence[str] = LAYERS) -> None:
        self._preload, self._layers = tuple(preload), tuple(layers)
        self._lock = threading.Lock()
        self._helper: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        os.register_at_fork(after_in_child=self._forget)

    @contextmanager
    def process(
        self, limits: Limits, min_isolation: Isolation = MIN_ISOLATION, stdin: bytes | None = None, cases: int = 1
    ) -> Iterator[Process]:
        """A sandboxed process that waits for its job. The job may take ``cases`` times ``limits.seconds``, and the
        process is killed at the end of the block.

        Raises:
            NotIsolatedError: its isolation is weaker than ``min_isolation``.
            SandboxError: it could not be started.
        """
        if sys.platform != "linux":
            raise NotIsolatedError(
                f"programs can't be isolated on {sys.platform}, only on Linux; use a Linux machine or container."
            )
        process = self._start(limits, stdin, cases)
        try:
            if process.isolation < min_isolation:
                missing = "; ".join(f"{layer}: {why}" for layer, why in process.missing.items())
                raise NotIsolatedError(
                    f"the isolation is too weak: level {process.isolation.name.lower()} is reached, "
                    f"{min_isolation.name.lower()} is needed ({missing}). Use a kernel that has what is missing, or "
                    "lower min_isolation if the programs can be trusted."
                )
            process.allow(limits.seconds)
            yield process
        finally:
            process.kill()

    def call(
        self, function: str, payload: Any, limits: Limits | None = None, min_isolation: Isolation = MIN_ISOLATION
    ) -> Any:
        """The value of ``module:function`` of a preloaded module, called in a sandboxed process with a JSON payload.

        Raises:
            ProgramFailedError: the function raised, took too long, or ended the process.
            NotIsolatedError, SandboxError: see :meth:`process`.
        """
        with self.process(limits or Limits(), min_isolation) as process:
            process.send({"kind": "scorer", "function": function, "payload": payload})
            answer = process.receive()
        if "value" not in answer:
            raise ProgramFailedError(str(answer.get("failed", "gave no answer")))
        try:
            return plain(answer["value"])
        except ValueError as error:
            raise ProgramFailedError(str(error)) from None

    def close(self) -> None:
        """End the helper."""
        with self._lock:
            self._stop()

    def _forget(self) -> None:
        """Let go of the helper in a forked child: it belongs to the parent."""
        self._lock = threading.Lock()
        if self._socket is not None:
            self._socket.close()
        self._helper = self._socket = None

    def _start(self, limits: Limits, stdin: bytes | None, cases: int) -> Process:
        """Start a process, from a second helper if the first one is lost."""
        for attempt in range(2):
            helper_socket = self._running_helper()
            process = None
            try:
                process = self._ask(helper_socket, limits, stdin, cases)
                process.await_start()
                return process
            except (HelperLostError, OSError) as error:
                if process is not None:
                    process.kill()
                with self._lock:
                    if self._socket is helper_socket:
                        self._stop()
                if attempt:
                    raise SandboxError(f"the sandbox can't be started: {error}") from None
        raise AssertionError("two attempts end in a process or in an error")

    def _ask(self, helper: socket.socket, limits: Limits, stdin: bytes | None, cases: int) -> Process:
        control, control_theirs = socket.socketpair()
        channel, channel_theirs = socket.socketpair()
        stdout, stdout_theirs = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        stdin_theirs = null if stdin is None else _file_of(stdin)
        theirs = [control_theirs.detach(), channel_theirs.detach(), stdin_theirs, stdout_theirs, null]
        process = Process(control, channel, stdout, limits)
        try:
            with self._lock:
                socket.send_fds(helper, [json.dumps(asdict(limits) | {"cases": cases}).encode()], theirs)
        except BaseException:
            process.kill()
            raise
        finally:
            for descriptor in set(theirs):
                os.close(descriptor)
        return process

    def _running_helper(self) -> socket.socket:
        with self._lock:
            if self._socket is None or self._helper is None or self._helper.poll() is not None:
                self._stop()
                self._launch()
            assert self._socket is not None
            return self._socket

    def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        package = str(Path(__file__).parents[4])
        paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), package] if self._preload else []
        settings = {
            "preload": self._preload,
            "path": paths,
            "readable": [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *paths],
            "layers": self._layers,
        }
        helper = Path(__file__).parent / "inside" / "helper.py"
        with theirs:
            self._helper = subprocess.Popen(
                [sys.executable, "-S", "-s", "-P", str(helper), json.dumps(settings)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={
                    "PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1",
                    "MALLOC_ARENA_MAX": "1",  # each thread's own arena would take 64 MB of the address space
                },
                cwd="/",
                start_new_session=True,
            )  # fmt: skip
        self._socket = ours
        ours.settimeout(START_SECONDS)
        with suppress(OSError):
            ours.recv(64)  # "ready"; without it, the first job fails
        ours.settimeout(None)

    def _stop(self) -> None:
        if self._socket is not None:
            self._socket.close()  # this ends the helper
        if self._helper is not None:
            self._helper.kill()
            self._helper.wait()
        self._helper = self._socket = None


def _file_of(content: bytes) -> int:
    """A file in memory, for standard input of any size; it is sealed, so that nobody can change it."""
    import fcntl

    handle = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(handle, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(handle, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, seals)
    return handle
