"""Refusals of vLLM settings, and waiting for its server. Training with vLLM is in test_vllm_rollouts.py."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from progrpo.common.errors import ConfigError
from progrpo.trl import vllm
from progrpo.trl.vllm import check_vllm, wait_for_server

CONFIG = {
    "vllm_mode": "colocate",
    "vllm_tensor_parallel_size": 1,
    "vllm_server_base_url": None,
    "vllm_server_host": "127.0.0.1",
    "vllm_server_port": 1,
    "vllm_server_timeout": 0.0,
}


class Heard:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.seconds = 0

    def stage(self, name: str, total: int, completed: int = 0) -> None:
        self.stages.append((name, total))

    def advance(self, amount: int = 1, **values: float) -> None:
        self.seconds += amount


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """A server that answers with ``codes`` in turn, and then always with the last one; 0 means no answer."""
    state = SimpleNamespace(codes=[200], paths=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.paths.append(self.path)
            code = state.codes.pop(0) if len(state.codes) > 1 else state.codes[0]
            if code == 0:
                time.sleep(0.5)
                return
            self.send_response(code)
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{listening.server_port}"
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield state
    listening.shutdown()
    listening.server_close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(vllm, "REQUEST_SECONDS", 0.2)


def test_there_is_no_wait_for_a_server_that_is_up(server: SimpleNamespace) -> None:
    heard = Heard()
    wait_for_server(server.url + "/", 0.0, heard)
    assert server.paths == ["/health"]
    assert (heard.stages, heard.seconds) == ([], 0)


def test_there_is_a_wait_for_a_server_that_is_starting(server: SimpleNamespace) -> None:
    server.codes = [503, 503, 0, 200]
    heard = Heard()
    wait_for_server(server.url, 30.0, heard)
    assert heard.stages == [(f"wait for vLLM at {server.url}", 30)]
    assert heard.seconds == 3


@pytest.mark.parametrize(("code", "said"), [(404, "it answers 404 Not Found"), (0, "timed out")])
def test_the_wait_for_a_server_that_never_comes_up_ends_after_the_timeout(
    server: SimpleNamespace, code: int, said: str
) -> None:
    server.codes = [code]
    with pytest.raises(
        ConfigError, match=rf"no vLLM server answered at {server.url} within 0.3 seconds \({said}\); start it as"
    ):
        wait_for_server(server.url, 0.3, Heard())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"vllm_tensor_parallel_size": 4}, "trl.vllm_tensor_parallel_size must divide the number of processes, 2, got"),
        ({"vllm_mode": "server"}, "no vLLM server answered at http://127.0.0.1:1 within 0 seconds (["),
        (
            {"vllm_mode": "server", "vllm_server_base_url": "localhost:8000"},
            "trl.vllm_server_base_url must be http://host:port or https://..., got 'localhost:8000'.",
        ),
    ],
    ids=["tensor parallelism", "nothing listens", "url"],
)
def test_impossible_settings_are_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], sentence: str
) -> None:
    monkeypatch.setattr(vllm, "find_spec", lambda name: name)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    with pytest.raises(ConfigError) as refused:
        check_vllm(SimpleNamespace(**CONFIG | settings), 2, Heard())  # type: ignore[arg-type]
    assert sentence in str(refused.value)


@pytest.mark.parametrize(("mode", "size"), [("colocate", 1), ("colocate", 2), ("server", 4)])
def test_possible_settings_are_not_refused(
    monkeypatch: pytest.MonkeyPatch, server: SimpleNamespace, mode: str, size: int
) -> None:
    monkeypatch.setattr(vllm, "find_spec", lambda name: name)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    settings = {"vllm_mode": mode, "vllm_tensor_parallel_size": size, "vllm_server_base_url": server.url}
    check_vllm(SimpleNamespace(**CONFIG | settings), 2, Heard())  # type: ignore[arg-type]
    assert server.paths == (["/health"] if mode == "server" else [])


@pytest.mark.usefixtures("_seeds_as_before")
def test_processes_that_share_an_engine_draw_alike_and_others_do_not() -> None:
    config: Any = SimpleNamespace(seed=5, vllm_tensor_parallel_size=2)
    seeds = []
    for process in range(6):
        vllm.reseed(config, process)
        seeds.append(torch.initial_seed())
    assert seeds == [5, 5, 6, 6, 7, 7]


@pytest.fixture
def _seeds_as_before() -> Iterator[None]:
    with torch.random.fork_rng():
        yield
