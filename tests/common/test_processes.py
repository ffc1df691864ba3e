"""One process of many, without a launcher. test_distributed_training.py tests how the processes work together."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState

from progrpo.common.errors import ConfigError
from progrpo.common.processes import LostProcessError, Share, explain_lost_process, first_decides, is_first_to_report
from progrpo.recipes.build import make_task
from progrpo.recipes.schema import load_recipe
from progrpo.trl.settings import trl_config


@pytest.fixture
def second_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    PartialState(cpu=True)
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 3)
    monkeypatch.setitem(PartialState._shared_state, "process_index", 1)


def test_every_problem_is_in_exactly_one_share(monkeypatch: pytest.MonkeyPatch) -> None:
    PartialState(cpu=True)
    problems, shares = [f"p{i}" for i in range(7)], []
    for process in range(3):
        monkeypatch.setitem(PartialState._shared_state, "num_processes", 3)
        monkeypatch.setitem(PartialState._shared_state, "process_index", process)
        shares.append(Share().own(problems))
    assert shares[1] == ["p1", "p4"]
    assert sorted(problem for share in shares for problem in share) == problems


def test_one_process_decides_and_joins_alone() -> None:
    PartialState(cpu=True)
    assert first_decides(lambda: 7) == 7
    assert Share().join({"p": [1]}) == {"p": [1]}

    def refuse() -> None:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        first_decides(refuse)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[.../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"),
        torch.distributed.DistBackendError("NCCL communicator was aborted"),
    ],
)
def test_a_failed_exchange_is_a_lost_process(second_of_three: None, error: Exception, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        words = r"process 1 of 3 can't go on alone.*--resume "
        with pytest.raises(LostProcessError, match=words) as raised, explain_lost_process(tmp_path):
            raise error
        assert raised.value.__cause__ is error
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, "the launcher's would come before the last word"
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_other_errors_are_not_changed(second_of_three: None, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match=r"^out of memory$"), explain_lost_process(tmp_path):
        raise RuntimeError("out of memory")
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_sigterm_by_the_launcher_is_explained(second_of_three: None, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        words = r"ended process 1 of 3 \(SIGTERM\)"
        with pytest.raises(LostProcessError, match=words), explain_lost_process(tmp_path):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_only_one_process_reports(tmp_path: Path) -> None:
    assert [is_first_to_report(tmp_path) for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize("other", ["trl.top_k=5", "trl.min_p=0.1", "trl.generation_kwargs={top_k=1}"])
def test_seeded_responses_refuse_other_ways_to_sample(other: str, tmp_path: Path) -> None:
    recipe = load_recipe("countdown_cpu", ["training.seeded_responses=true", other])
    name: Any = other.partition("=")[0]
    with pytest.raises(ConfigError, match=f"remove it, or remove {name}"):
        trl_config(recipe, make_task(recipe), tmp_path)
