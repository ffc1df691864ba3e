"""The trusted side's view of a sandboxed process: its limits, its messages, its output and its end."""

import json
import os
import select
import signal
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from progrpo.verify.code.sandbox.inside.values import encode, plain, to_line

START_SECONDS = 120.0
"""The helper imports modules before it starts its first process."""
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


class Process:
    """One sandboxed process, before and while it does its one job.

    Over ``control``, the helper sends a handle by which to kill the process, and its exit code. Over ``channel``, the
    process itself sends messages.
    """

    def __init__(self, control: socket.socket, channel: socket.socket, stdout: int, limits: Limits) -> None:
        self._control, self._channel, self._stdout, self._limits = control, channel, stdout, limits
        self._pidfd: int | None = None
        self._read, self._code = bytearray(), bytearray()
        self.isolation = Isolation.NONE
        self.missing: dict[str, str] = {}
        self.deadline = time.monotonic() + START_SECONDS

    def await_start(self) -> None:
        """Wait until the process has isolated itself and reported how; raises ProgramFailedError or OSError if it ends
        first."""
        self._control.settimeout(START_SECONDS)
        _, descriptors, _, _ = socket.recv_fds(self._control, 64, 1)
        if not descriptors:
            raise OSError("it ended before it was isolated")
        self._pidfd = descriptors[0]
        self.missing = self.receive()["missing"]
        reached = (level for level, layer in enumerate(LAYERS) if layer in self.missing)
        self.isolation = Isolation(next(reached, len(LAYERS)))  # no level counts above a missing layer

    def allow(self) -> None:
        """Let the process run for ``limits.seconds`` from now."""
        self.deadline = time.monotonic() + self._limits.seconds

    @property
    def left(self) -> float:
        """The seconds that are left; raises ProgramFailedError if there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ProgramFailedError(f"took more than {self._limits.seconds:g} s")
        return left

    def send(self, message: Any) -> None:
        """Send a message; raises ProgramFailedError if the process does not take it, in time or at all."""
        self._channel.settimeout(self.left)
        try:
            self._channel.sendall(to_line(message))
        except OSError:
            raise ProgramFailedError(self._end()) from None

    def receive(self) -> dict[str, Any]:
        """The next message of the process. It is a dict, but the program chooses what is in it. Raises
        ProgramFailedError if none comes in time, if it is not a message, or if the job or the process has ended."""
        while b"\n" not in self._read:
            if not self._read_more(self._read, self._channel.fileno()):
                raise ProgramFailedError(self._end())
        line, _, self._read = self._read.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise ProgramFailedError("wrote something that is not a message where its answers go")
        if "failed" in message:
            raise ProgramFailedError(f"ended with {message['failed']}")
        return message

    def load(self, **source: str) -> None:
        """Load the functions of a ``program``, which is source text, or of a preloaded ``module``, which is a name."""
        self.send({"kind": "calls", **source})
        if self.receive().get("loaded") is not True:
            raise ProgramFailedError("ended without an answer")

    def call(self, request: dict[str, Any]) -> Any:
        """The plain value that :func:`call_request`'s call of a loaded function returns."""
        self.send(request)
        answer = self.receive()
        if "value" not in answer:
            raise ProgramFailedError(f"raised {answer.get('description', 'something')}")
        try:
            return plain(answer["value"])
        except ValueError as error:
            raise ProgramFailedError(f"returned no plain value ({error})") from None

    def output(self) -> bytes:
        """Everything that the process writes to its standard output until it ends; raises ProgramFailedError if it
        takes too long, writes too much, or ends with an error."""
        output = bytearray()
        while self._read_more(output, self._stdout):
            pass
        if self._exit_code() != 0:
            self.receive()  # raises, with the program's own reason if it sent one
            raise ProgramFailedError(self._end())
        return bytes(output)

    def _read_more(self, buffer: bytearray, descriptor: int) -> bool:
        """Add what comes next to a buffer; False at the end. Raises ProgramFailedError if it takes too long or is too
        much."""
        poll = select.poll()  # select.select can't take file numbers above 1023
        poll.register(descriptor, select.POLLIN)
        while not poll.poll(self.left * 1000):
            pass  # the deadline ends this
        part = b""
        with suppress(OSError):
            part = os.read(descriptor, 1 << 18)
        buffer += part
        if len(buffer) > self._limits.output_mb << 20:
            raise ProgramFailedError(f"wrote more than {self._limits.output_mb} MB")
        return bool(part)

    def _exit_code(self) -> int | None:
        """The exit code; None if the helper is lost."""
        if not self._code:
            self._read_more(self._code, self._control.fileno())
        return int(self._code) if self._code else None

    def _end(self) -> str:
        """How the process ended, in words; raises ProgramFailedError if it does not end in time."""
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
            gone = select.poll()
            gone.register(self._pidfd, select.POLLIN)
            gone.poll(5000)
            os.close(self._pidfd)
            self._pidfd = None
        self._control.close()
        self._channel.close()
        os.close(self._stdout)


def call_request(function: str, arguments: list[Any]) -> dict[str, Any]:
    """The message that calls a function with JSON arguments; raises TypeError or ValueError if they can't be sent."""

    def refuse(value: Any) -> int:
        raise TypeError(f"a call passes a {type(value).__name__}, which is not JSON")

    return {"name": function, "arguments": encode([arguments, {}], refuse)}
