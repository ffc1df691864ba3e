"""The trusted side of the sandbox: starts sandboxed processes, each for one job."""

import json
import os
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from progrpo.verify.code.sandbox.process import (
    LAYERS,
    MIN_ISOLATION,
    START_SECONDS,
    Isolation,
    Limits,
    NotIsolatedError,
    Process,
    ProgramFailedError,
    SandboxError,
    call_request,
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
        self, limits: Limits, min_isolation: Isolation = MIN_ISOLATION, stdin: bytes = b"", cases: int = 1
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
            process.allow()
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
        module, _, name = function.partition(":")
        with self.process(limits or Limits(), min_isolation) as process:
            process.load(module=module)
            return process.call(call_request(name, [payload]))

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

    def _start(self, limits: Limits, stdin: bytes, cases: int) -> Process:
        """Start a process, from a second helper if the first one is lost."""
        reason = ""
        for _ in range(2):
            helper = self._running_helper()
            try:
                return self._start_from(helper, limits, stdin, cases)
            except (ProgramFailedError, OSError) as error:
                reason = str(error)
            with self._lock:
                if self._socket is helper:
                    self._stop()
        raise SandboxError(f"the sandbox can't be started: {reason}")

    def _start_from(self, helper: socket.socket, limits: Limits, stdin: bytes, cases: int) -> Process:
        control, their_control = socket.socketpair()
        channel, their_channel = socket.socketpair()
        stdout, their_stdout = os.pipe()
        process = Process(control, channel, stdout, limits)
        bounds = {"cpu_seconds": limits.seconds * cases, "memory_mb": limits.memory_mb, "file_mb": limits.file_mb}
        try:
            with their_control, their_channel, open(their_stdout, "wb") as output, _file_of(stdin) as input_file:
                theirs = [file.fileno() for file in (their_control, their_channel, input_file, output)]
                with self._lock:
                    socket.send_fds(helper, [json.dumps(bounds).encode()], theirs)
            process.await_start()
        except BaseException:
            process.kill()
            raise
        return process

    def _running_helper(self) -> socket.socket:
        with self._lock:
            if self._socket is None or self._helper is None or self._helper.poll() is not None:
                self._stop()
                self._socket = self._launch()
            return self._socket

    def _launch(self) -> socket.socket:
        """Start the helper, and return the socket to it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        package = str(Path(__file__).parents[4])
        paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), package] if self._preload else []
        settings = {
            "preload": self._preload,
            "path": paths,
            "readable": [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *paths],
            "missing": {layer: "switched off" for layer in LAYERS if layer not in self._layers},
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
        ours.settimeout(START_SECONDS)
        return ours

    def _stop(self) -> None:
        if self._socket is not None:
            self._socket.close()  # this ends the helper
        if self._helper is not None:
            self._helper.kill()
            self._helper.wait()
        self._helper = self._socket = None


def _file_of(content: bytes) -> IO[bytes]:
    """A file in memory, for standard input of any size; it is sealed, so that nobody can change it."""
    import fcntl

    file = os.fdopen(os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb", buffering=0)
    file.write(content)
    file.seek(0)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    return file
