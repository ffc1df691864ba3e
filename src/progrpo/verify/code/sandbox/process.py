"""The trusted side's view of a sandboxed process: its limits, its messages, its output and its end."""

import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from progrpo.verify.code.sandbox.inside.values import to_line

START_SECONDS = 60.0
LAYERS = ("rlimits", "landlock", "seccomp", "namespaces")


class Isolation(IntEnum):
    """How well a program is isolated. Each level includes the lower ones.

    Namespaces come last: many containers do not allow them but have Landlock and seccomp, which together block every
    attack in the tests.
    """

    NONE = 0  # any system but Linux
    RLIMITS = 1  # bounds on memory, time and file size
    LANDLOCK = 2  # no access to files outside the interpreter's libraries
    SECCOMP = 3  # no new process, socket, signal or tracing
    FULL = 4  # its own process ids, network and /tmp


MIN_ISOLATION = Isolation.SECCOMP


@dataclass(frozen=True)
class Limits:
    """The resources that a program may use in each test.

    Attributes:
        seconds: wall-clock time; CPU time is bounded as well.
        memory_mb: address space, including the interpreter's own 30 MB.
        output_mb: output; a program that writes more is ended.
        file_mb: all files in its /tmp together.

    Raises:
        ValueError: a limit is not above 0.
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
    """The isolation here is weaker than required; the text says what is missing."""


class SandboxError(RuntimeError):
    """The sandbox itself failed, twice."""


class ProgramFailedError(Exception):
    """The sandboxed program failed through its own fault; the text is the reason."""


class HelperLostError(Exception):
    """The helper, or the process that it forked, ended before anything untrusted ran."""


class Process:
    """One sandboxed process, before and while it does its one job."""

    def __init__(self, control: socket.socket, channel: socket.socket, stdout: int, limits: Limits) -> None:
        self._control, self._channel, self._stdout, self._limits = control, channel, stdout, limits
        self._pidfd: int | None = None
        self._read = bytearray()
        self.isolation = Isolation.NONE
        self.missing: dict[str, str] = {}
        self.deadline = time.monotonic() + START_SECONDS

    def await_start(self) -> None:
        """Wait until the process has isolated itself and reported how; raises HelperLostError if it ends first."""
        self._control.settimeout(START_SECONDS)
        try:
            _, descriptors, _, _ = socket.recv_fds(self._control, 64, 1)
        except OSError as error:
            raise HelperLostError(str(error)) from None
        if not descriptors:
            raise HelperLostError("it ended before it was isolated")
        self._pidfd = descriptors[0]
        try:
            report = self.receive()
        except ProgramFailedError as error:
            raise HelperLostError(str(error)) from None
        self.missing = report["missing"]
        reached = [layer in report["layers"] for layer in LAYERS]  # no level counts above a missing layer
        self.isolation = Isolation(reached.index(False) if False in reached else len(LAYERS))

    def allow(self, seconds: float) -> None:
        """Set the deadline, in seconds from now."""
        self.deadline = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """The seconds that are left; raises ProgramFailedError if there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ProgramFailedError(f"took more than {self._limits.seconds:g} s")
        return left

    @contextmanager
    def _in_time(self, connection: socket.socket) -> Iterator[None]:
        connection.settimeout(self.left)
        try:
            yield
        except TimeoutError:
            raise ProgramFailedError(f"took more than {self._limits.seconds:g} s") from None

    def _check_size(self, buffer: bytearray) -> None:
        if len(buffer) > self._limits.output_mb << 20:
            raise ProgramFailedError(f"wrote more than {self._limits.output_mb} MB")

    def send(self, message: Any) -> None:
        """Send a message; raises ProgramFailedError if the process does not take it, in time or at all."""
        try:
            with self._in_time(self._channel):
                self._channel.sendall(to_line(message))
        except OSError:
            raise ProgramFailedError(self._end()) from None

    def receive(self) -> dict[str, Any]:
        """The next message of the process. It is a dict, but the program chooses what is in it. Raises
        ProgramFailedError if none comes in time, if it is not a message, or if the process ends."""
        while b"\n" not in self._read:
            part = b""
            with suppress(OSError), self._in_time(self._channel):
                part = self._channel.recv(1 << 18)
            if not part:
                raise ProgramFailedError(self._end())
            self._read += part
            self._check_size(self._read)
        line, _, self._read = self._read.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise ProgramFailedError("wrote something that is not a message where its answers go")
        return message

    def output(self) -> bytes:
        """Everything that the process writes to its standard output until it ends; raises ProgramFailedError if it
        takes too long, writes too much, or ends with an error."""
        output = bytearray()
        poll = select.poll()
        poll.register(self._stdout, select.POLLIN)
        while True:
            if not poll.poll(self.left * 1000):
                continue  # the deadline ends this
            part = os.read(self._stdout, 1 << 18)
            if not part:
                break
            output += part
            self._check_size(output)
        code = self._exit_code()
        if code != 0:
            raise ProgramFailedError(self._failure() or self._end(code))
        return bytes(output)

    def _exit_code(self) -> int | None:
        """The exit code; None if it can no longer be known."""
        with suppress(OSError, ValueError), self._in_time(self._control):
            text = self._control.recv(64)
            return int(text) if text.strip() else None
        return None

    def _failure(self) -> str | None:
        """What the program reports about its own end, for people to read."""
        with suppress(ProgramFailedError):
            failed = self.receive().get("failed")
            return f"ended with {failed}" if isinstance(failed, str) else None
        return None

    def _end(self, code: int | None = None) -> str:
        """How the process ended, in words."""
        if code is None:
            with suppress(ProgramFailedError):
                code = self._exit_code()
        if code is None:
            return "ended without an answer"
        if code >= 0:
            return f"ended with exit code {code}"
        names: dict[int, str] = {
            signal.SIGKILL: "was killed",
            signal.SIGSEGV: "crashed",
            signal.SIGXCPU: "used too much CPU time",
        }
        return names.get(-code, f"was ended by signal {-code}")

    def kill(self) -> None:
        """Kill the process and everything in its process namespace, and wait until it is gone."""
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
