"""Two processes with gloo, with groups split across them, have the same advantages as one process. A launch takes
longer than a case, so one launch trains all cases, one after the other."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.trl.launch import launch

SCRIPT = Path(__file__).with_name("distributed_run.py")
CASES = ["prompt-plain", "correct-plain", "prompt-one_token", "group-no_logps"]
IMAGES = ["grpo-images", "group-images", "prompt-images"]

Ranks = list[dict[str, Any]]
"""What each process of a launch has recorded, by case."""


@pytest.fixture(scope="module")
def ranks_of(once: Any) -> Callable[[int], Ranks]:
    """``ranks_of(processes)``; one process has no other that waits for it, and trains without images."""

    def ranks(processes: int) -> Ranks:
        cases = CASES + (IMAGES if processes > 1 else [])
        name = f"distributed-{processes}"
        folder = once(name, lambda folder: launch(SCRIPT, str(folder / "out"), *cases, processes=processes))
        return [json.loads((folder / f"out-rank{rank}.json").read_text()) for rank in range(processes)]

    return ranks


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_advantages_of_one(ranks_of: Any, case: str) -> None:
    """Also if the processes have different work: only one of them has prompts of one token, or no log-probs."""
    [one], two = ([rank[case] for rank in ranks_of(processes)] for processes in (1, 2))
    assert [len(rank["groups"]) for rank in two] == [12, 12]
    assert set(two[0]["groups"]) & set(two[1]["groups"]), "no group is split: the test shows nothing"
    for name in ("prompts", "groups"):
        assert two[0][name] + two[1][name] == one[name]
    for name in ("c_q", "c_o", "advantages"):
        assert two[0][name] + two[1][name] == pytest.approx(one[name], abs=1e-6, nan_ok=True), name
    assert [math.isnan(c_q) for c_q in one["c_q"]] == [case == "prompt-one_token" and row >= 12 for row in range(24)]
    for rank in two:
        assert rank["log"] == pytest.approx(one["log"], abs=1e-6)
        assert rank["weights"] == pytest.approx(one["weights"], rel=1e-6)
    assert len(set(one["advantages"])) > 6


@pytest.mark.parametrize("case", IMAGES)
def test_images_on_one_of_two_processes(ranks_of: Any, case: str) -> None:
    """Both train if GRPOTrainer trains, and both raise an error if one is raised: neither waits for the other."""
    ranks = [rank[case] for rank in ranks_of(2)]
    if case == "prompt-images":
        assert all("center='prompt' needs the likelihood of a prompt" in rank["said"] for rank in ranks)
        return
    assert [(rank["steps"], rank["said"]) for rank in ranks] == [(2, None)] * 2
    if case == "group-images":
        assert 0 < ranks[0]["log"][0]["confidence/prompt/mean"] < 1, "of the prompts without images"
