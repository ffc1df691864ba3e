"""A server that is killed in the middle of ``progrpo evaluate --backend http``, and comes back, or does not."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.cli.forked import Server
from tests.sampling import http_server

pytest.importorskip("openai")

PROBLEMS, SAMPLES = 6, 32


class Killable:
    """A server on one port, in a process that is killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log, self.process = folder / "requests", None

    def start(self, seconds: float = 0.4) -> None:
        command = [sys.executable, http_server.__file__, str(self.port), str(seconds), str(self.log)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().startswith("http://")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Killable]:
    server = Killable(tmp_path)
    yield server
    if server.process is not None:
        server.kill()


def arguments(server: Killable, out: Path, patience: float) -> list[str]:
    recipe = ["task.numbers=3", f"task.heldout_size={PROBLEMS}", f"evaluation.samples={SAMPLES}"]
    url = f"http://127.0.0.1:{server.port}/v1"
    how = ["--backend", "http", "--base-url", url, "--concurrency", "2", "--patience", str(patience)]
    return ["evaluate", "tiny", *recipe, *how, "--out", str(out)]


# OpenAI's own retries, which come before the patience, wait up to 8 s each.
IMPATIENT = "import progrpo.sampling.http as http; http.HttpBackend.__init__.__kwdefaults__['retries'] = 0"


def test_a_server_that_comes_back_is_waited_for(forked: Server, server: Killable, tmp_path: Path) -> None:
    server.start()
    run = forked.start(*arguments(server, tmp_path / "out", 100), patch=IMPATIENT)
    assert run.wait_for(lambda: len(server.requests) >= 4)
    server.kill()
    assert run.wait_for(lambda: "is gone; waiting up to 100 s for it" in run.err)
    time.sleep(1.0)
    server.start(seconds=0.0)
    assert run.wait() == 0, run.err
    assert "is back" in run.err
    samples = pd.read_parquet(tmp_path / "out" / "countdown-samples")
    assert len(samples) == PROBLEMS * SAMPLES == len(samples.drop_duplicates(["problem_id", "index"]))
    # The server answers with the seed: each sample is the same as without the interruption.
    asked = {body["seed"]: body["n"] for body in server.requests}
    assert set(samples["text"]) == {str(seed + j) for seed, n in asked.items() for j in range(n)}


def test_a_server_that_stays_away_costs_its_patience_and_no_samples(
    forked: Server, server: Killable, tmp_path: Path
) -> None:
    server.start()
    run = forked.start(*arguments(server, tmp_path / "out", 2), patch=IMPATIENT)
    assert run.wait_for(lambda: len(server.requests) >= 6)
    server.kill()
    gone = time.monotonic()
    assert run.wait() == 2
    assert time.monotonic() - gone < 60
    assert "Traceback" not in run.err
    [said] = [line for line in run.err.splitlines() if line.startswith("progrpo: ")]
    assert "went away and was not back within 2 s; the last time: no connection (" in said
    assert "start it, and give the same command again" in said
    samples = pd.read_parquet(tmp_path / "out" / "countdown-samples")
    assert 0 < len(samples) < PROBLEMS * SAMPLES
    before = len(server.requests)
    server.start(seconds=0.0)
    forked(*arguments(server, tmp_path / "out", 2), patch=IMPATIENT)
    asked_again = [str(body["seed"] + j) for body in server.requests[before:] for j in range(body["n"])]
    assert not set(asked_again) & set(samples["text"]), "what was stored is not asked for again"
    assert len(asked_again) == PROBLEMS * SAMPLES - len(samples)
    assert len(pd.read_parquet(tmp_path / "out" / "countdown-samples")) == PROBLEMS * SAMPLES


def test_a_server_that_was_never_there_is_not_waited_for(forked: Server, server: Killable, tmp_path: Path) -> None:
    run = forked(*arguments(server, tmp_path / "out", 100), code=2, patch=IMPATIENT)
    assert "gave no complete answer when asked once; the last time: no connection (" in run.err
    assert "waiting" not in run.err
