"""The command line. Each run is a process: forked from one that has imported everything, or started as users start
it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.forked import Server

HAS_PROC = Path("/proc/self").exists()
"""Where forking works too: macOS has neither."""

TINY = [
    "training.steps=6",
    "training.prompts_per_step=4",
    "training.group_size=4",
    "training.checkpoint_every=2",
    "task.numbers=3",
    "task.train_size=64",
    "task.heldout_size=8",
    "evaluation.samples=8",
    "evaluation.every=3",
    "evaluation.samples_in_training=4",
    "evaluation.problems_in_training=4",
]


class Cli:
    """``cli("train", ...)`` runs ``progrpo train ...`` in an empty folder and waits; ``start`` does not wait, and
    is a new Python, which takes ten seconds more."""

    tiny = TINY

    def __init__(self, folder: Path, server: Server | None) -> None:
        self.folder, self._server = folder, server
        self.environment = {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "progrpo", *arguments],
            cwd=self.folder,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill_as_soon_as(self, condition: Callable[[], object], *arguments: str) -> None:
        """Run ``progrpo ARGUMENTS`` until the condition is true, and end it with SIGKILL."""
        if self._server is not None:
            run = self._server.start(*arguments, folder=self.folder, environment=self.environment)
            assert run.wait_for(lambda: bool(condition())), run.err
            run.kill()
            assert run.wait() == -signal.SIGKILL
            return
        process, end = self.start(*arguments), time.monotonic() + 120
        while not condition() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL

    def __call__(self, *arguments: str, code: int = 0) -> Any:
        if self._server is not None:
            return self._server(*arguments, code=code, folder=self.folder, environment=self.environment)
        process = self.start(*arguments)
        process.out, process.err = process.communicate(timeout=300)  # type: ignore[attr-defined]
        assert process.returncode == code, f"exit code {process.returncode}\n{process.out}\n{process.err}"  # type: ignore[attr-defined]
        return process


@pytest.fixture(scope="session")
def cli_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server | None]:
    if not HAS_PROC:
        yield None
        return
    server = Server(tmp_path_factory.mktemp("cli"), watched=False)
    yield server
    server.close()


@pytest.fixture
def cli(tmp_path: Path, cli_server: Server | None) -> Cli:
    return Cli(tmp_path, cli_server)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, cli_server: Server | None) -> Path:
    """A tiny run that was never disturbed."""
    cli = Cli(tmp_path_factory.mktemp("undisturbed"), cli_server)
    cli("train", "countdown_cpu", *TINY, "--out", "run")
    return cli.folder / "run"


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Runs that start at once, in processes that are forked from one which has imported everything."""
    if not HAS_PROC:
        pytest.skip("needs Linux's /proc to see when a process has ended")
    server = Server(tmp_path_factory.mktemp("forked"))
    yield server
    server.close()
