"""The trusted side of the sandbox: starting shut-in processes, talking with them, and ending them in time."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from progrpo.verify.code.sandbox.inside.values import plain, to_line

START_SECONDS = 60.0
LAYERS = ("rlimits", "landlock", "seccomp", "namespaces")


class Isolation(IntEnum):
    """How well a program is shut in. Each level has all that the lower ones have.

    The order is by what can be had where: a kernel without user namespaces (many containers) may still have Landlock
    and seccomp, which between them block every attack that the tests know.
    """

    NONE = 0
    """No isolation at all: another system than Linux."""
    RLIMITS = 1
    """Bounds on memory, time, file size."""
    LANDLOCK = 2
    """And no file outside the interpreter's libraries."""
    SECCOMP = 3
    """And no process, socket, signal or tracing."""
    FULL = 4
    """And process ids, network and a /tmp of its own."""


MIN_ISOLATION = Isolation.SECCOMP


@dataclass(frozen=True)
class Limits:
    """What a program may use, for each test.

    Attributes:
        seconds: of wall-clock time; CPU time is bounded as well.
        memory_mb: of address space, the interpreter's own 30 MB included.
        output_mb: of output; more is not read, and ends the program.
        file_mb: in its own /tmp, altogether.
    """

    seconds: float = 6.0
    memory_mb: int = 1024
    output_mb: int = 16
    file_mb: int = 16

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"limits.{name} must be above 0, got {value!r}.")


class NotIsolatedError(RuntimeError):
    """The isolation that was asked for can't be had here; its text says what is missing."""


class SandboxError(RuntimeError):
    """The sandbox itself failed, twice."""


class ProgramFailedError(Exception):
    """What was shut in failed, by its own doing; its text is the reason."""


class _HelperLostError(Exception):
    """The helper, or the process that it forked, was gone before anything untrusted ran."""


class Process:
    """One shut-in process, before and while it does its one job."""

    def __init__(self, control: socket.socket, channel: socket.socket, stdout: int, limits: Limits) -> None:
        self._control, self._channel, self._stdout, self._limits = control, channel, stdout, limits
        self._pidfd: int | None = None
        self._read = bytearray()
        self.isolation = Isolation.NONE
        self.missing: dict[str, str] = {}
        self.deadline = time.monotonic() + START_SECONDS

    def await_start(self) -> None:
        """Until it is shut in, and has said how well."""
        self._control.settimeout(START_SECONDS)
        try:
            _, descriptors, _, _ = socket.recv_fds(self._control, 64, 1)
        except OSError as error:
            raise _HelperLostError(str(error)) from None
        if not descriptors:
            raise _HelperLostError("it ended before it was shut in")
        self._pidfd = descriptors[0]
        try:
            said = self.receive()
        except ProgramFailedError as error:
            raise _HelperLostError(str(error)) from None
        self.missing = said["missing"]
        self.isolation = _level(said["layers"])

    def allow(self, seconds: float) -> None:
        """From now on, so many seconds."""
        self.deadline = time.monotonic() + seconds

    @property
    def left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ProgramFailedError(f"took more than {self._limits.seconds:g} s")
        return left

    def send(self, message: Any) -> None:
        """A message to the process.

        Raises:
            ProgramFailedError: it does not take it, in time or at all.
        """
        try:
            self._channel.settimeout(self.left)
            self._channel.sendall(to_line(message))
        except TimeoutError:
            raise ProgramFailedError(f"took more than {self._limits.seconds:g} s") from None
        except OSError:
            raise ProgramFailedError(self._end()) from None

    def receive(self) -> dict[str, Any]:
        """The next message of the process: what it says is its own, and only its form is sure.

        Raises:
            ProgramFailedError: none came in time, it was no message, or the process ended.
        """
        most = self._limits.output_mb << 20
        while b"\n" not in self._read:
            try:
                self._channel.settimeout(self.left)
                more = self._channel.recv(1 << 18)
            except TimeoutError:
                raise ProgramFailedError(f"took more than {self._limits.seconds:g} s") from None
            except OSError:
                more = b""
            if not more:
                raise ProgramFailedError(self._end())
            self._read += more
            if len(self._read) > most:
                raise ProgramFailedError(f"wrote more than {self._limits.output_mb} MB")
        line, _, rest = bytes(self._read).partition(b"\n")
        self._read = bytearray(rest)
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise ProgramFailedError("wrote something that is no message where its answers go") from None
        if not isinstance(message, dict):
            raise ProgramFailedError("wrote something that is no message where its answers go")
        return message

    def output(self) -> bytes:
        """Everything that the process writes to its standard output until it ends.

        Raises:
            ProgramFailedError: it took too long, wrote too much, or ended with an error.
        """
        output, most = bytearray(), self._limits.output_mb << 20
        poll = select.poll()
        poll.register(self._stdout, select.POLLIN)
        while True:
            if not poll.poll(self.left * 1000):
                continue  # which the deadline ends
            more = os.read(self._stdout, 1 << 18)
            if not more:
                break
            output += more
            if len(output) > most:
                raise ProgramFailedError(f"wrote more than {self._limits.output_mb} MB")
        code = self._exit_code()
        if code != 0:
            raise ProgramFailedError(self._failure() or self._end(code))
        return bytes(output)

    def _exit_code(self) -> int | None:
        """How it ended; None if that can't be known any more."""
        try:
            self._control.settimeout(self.left)
            text = self._control.recv(64)
            return int(text) if text.strip() else None
        except TimeoutError:
            raise ProgramFailedError(f"took more than {self._limits.seconds:g} s") from None
        except (OSError, ValueError):
            return None

    def _failure(self) -> str | None:
        """What the program says of its own end: for people to read."""
        with suppress(ProgramFailedError):
            failed = self.receive().get("failed")
            return f"ended with {failed}" if isinstance(failed, str) else None
        return None

    def _end(self, code: int | None = None) -> str:
        if code is None:
            with suppress(ProgramFailedError):
                code = self._exit_code()
        if code is None:
            return "ended without an answer"
        if code < 0:
            names: dict[int, str] = {
                signal.SIGKILL: "was killed",
                signal.SIGSEGV: "crashed",
                signal.SIGXCPU: "used too much CPU time",
            }
            return names.get(-code, f"was ended by signal {-code}")
        return f"ended with exit code {code}"

    def kill(self) -> None:
        """End it and, with it, everything in its process namespace; wait until it is gone."""
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            gone = select.poll()  # select.select can't take file numbers above 1023
            gone.register(self._pidfd, select.POLLIN)
            gone.poll(5000)
            os.close(self._pidfd)
            self._pidfd = None
        self._control.close()
        self._channel.close()
        os.close(self._stdout)


def _level(layers: Sequence[str]) -> Isolation:
    """The level of the layers that were reached: without one of them, no higher level counts."""
    reached = [layer in layers for layer in LAYERS]
    return Isolation(reached.index(False) if False in reached else len(LAYERS))


class Sandbox:
    """Starts shut-in processes from a helper that was started beforehand. For any thread, and again after a fork.

    Args:
        preload: modules of this environment that the helper imports, for :meth:`call`. Programs could read all that
            such modules hold.
        layers: those to apply, all by default; fewer are for tests of what the others hold by themselves.
    """

    def __init__(self, preload: Sequence[str] = (), layers: Sequence[str] = LAYERS) -> None:
        self._preload, self._layers = tuple(preload), tuple(layers)
        self._lock = threading.Lock()
        self._helper: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        _sandboxes.append(self)

    @contextmanager
    def process(
        self, limits: Limits, min_isolation: Isolation = MIN_ISOLATION, stdin: bytes | None = None, cases: int = 1
    ) -> Iterator[Process]:
        """A shut-in process that waits for its job, and is gone when the block ends.

        Args:
            limits: what it may use.
            min_isolation: how well it must be shut in.
            stdin: what it reads on its standard input; nothing by default.
            cases: how many times it will have ``limits.seconds``.

        Raises:
            NotIsolatedError: it is shut in less well than ``min_isolation``.
            SandboxError: it could not be started.
        """
        if sys.platform != "linux":
            raise NotIsolatedError(
                f"programs can't be isolated on {sys.platform}, only on Linux; use a Linux machine or container."
            )
        process = self._start(limits, stdin, cases)
        try:
            if process.isolation < min_isolation:
                raise NotIsolatedError(_advice(process, min_isolation))
            process.allow(limits.seconds)
            yield process
        finally:
            process.kill()

    def call(
        self, function: str, payload: Any, limits: Limits | None = None, min_isolation: Isolation = MIN_ISOLATION
    ) -> Any:
        """The value of ``module:function`` of a preloaded module, called in a shut-in process with a JSON payload.

        Raises:
            ProgramFailedError: it raised, took too long, or ended.
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

    def forget(self) -> None:
        """In a forked child: the helper is the parent's."""
        self._lock = threading.Lock()
        if self._socket is not None:
            self._socket.close()
        self._helper = self._socket = None

    def _start(self, limits: Limits, stdin: bytes | None, cases: int) -> Process:
        """A process, by a second helper if the first one is lost."""
        for attempt in range(2):
            helper_socket = self._running_helper()
            process = None
            try:
                process = self._ask(helper_socket, limits, stdin, cases)
                process.await_start()
                return process
            except (_HelperLostError, OSError) as error:
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
        given = null if stdin is None else _file_of(stdin)
        theirs = [control_theirs.detach(), channel_theirs.detach(), given, stdout_theirs, null]
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
        own = str(Path(__file__).parents[4])  # where this package lies
        paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), own] if self._preload else []
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
            ours.recv(64)  # "ready"; where it is not, the first job finds out
        ours.settimeout(None)

    def _stop(self) -> None:
        if self._socket is not None:
            self._socket.close()  # which ends the helper
        if self._helper is not None:
            self._helper.kill()
            self._helper.wait()
        self._helper = self._socket = None


def _file_of(content: bytes) -> int:
    """A file in memory, for standard input of any size; sealed, so that nobody changes it."""
    import fcntl

    handle = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(handle, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(handle, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, seals)
    return handle


def _advice(process: Process, wanted: Isolation) -> str:
    missing = "; ".join(f"{layer}: {why}" for layer, why in process.missing.items())
    return (
        f"isolation not to be had: level {process.isolation.name.lower()} is reached, {wanted.name.lower()} is needed "
        f"({missing}). Use a kernel that has what is missing, or lower min_isolation if the programs can be trusted."
    )


_sandboxes: list[Sandbox] = []


def _forget_all() -> None:
    for sandbox in _sandboxes:
        sandbox.forget()


os.register_at_fork(after_in_child=_forget_all)
