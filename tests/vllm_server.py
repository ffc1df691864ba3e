"""vLLM's own server, a process of this machine."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from progrpo.trl.vllm import wait_for_server


@contextmanager
def vllm_server(model: Path, log: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The server, still starting, and where it will be: ``http://127.0.0.1:port``. Its last words are printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--logprobs-mode", "processed_logprobs", *arguments]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        kill(process)
        print(log.read_text(errors="replace")[-3000:])


def kill(process: subprocess.Popen[bytes]) -> None:
    """The server and its engine, which is a process of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until_up(process: subprocess.Popen[bytes], url: str) -> None:
    """Until it answers; an error at once if it ends instead."""

    class Running:
        def stage(self, name: str, total: int, completed: int = 0) -> None: ...

        def advance(self, amount: int = 1, **values: float) -> None:
            assert process.poll() is None, "the server ended"

    wait_for_server(url, 240, Running())
