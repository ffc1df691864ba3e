"""Two processes with gloo, groups split across them: the same advantages as on one.

A launch takes longer than a case, so that each launch trains all cases, one after the other.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from launch import launch

SCRIPT = Path(__file__).with_name("distributed_run.py")
IMAGES = Path(__file__).with_name("images_run.py")
CASES = ["prompt-plain", "correct-plain", "prompt-one_token", "group-no_logps"]
CENTERS = ["grpo", "group", "prompt"]

Ranks = list[dict[str, Any]]
"""What each process of a launch has recorded, by case."""


def launched(script: Path, out: Path, cases: list[str], processes: int) -> Ranks:
    launch(script, str(out), *cases, processes=processes)
    return [json.loads(Path(f"{out}-rank{rank}.json").read_text()) for rank in range(processes)]


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ranks, Ranks]:
    folder = tmp_path_factory.mktemp("distributed")
    return launched(SCRIPT, folder / "one", CASES, 1), launched(SCRIPT, folder / "two", CASES, 2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    return launched(IMAGES, tmp_path_factory.mktemp("images") / "out", CENTERS, 2)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_advantages_of_one(one_and_two: tuple[Ranks, Ranks], case: str) -> None:
    """Also where the processes have different work: prompts of one token, or no log-probs, on one of them alone."""
    [one], two = ([rank[case] for rank in ranks] for ranks in one_and_two)
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


@pytest.mark.parametrize("center", CENTERS)
def test_images_on_one_of_two_processes(images: Ranks, center: str) -> None:
    """Both train where GRPOTrainer trains, and both refuse what is refused: no one waits for the other."""
    ranks = [rank[center] for rank in images]
    if center == "prompt":
        assert all("center='prompt' needs the likelihood of a prompt" in rank["said"] for rank in ranks)
        return
    assert [(rank["steps"], rank["said"]) for rank in ranks] == [(2, None)] * 2
    if center == "group":
        assert 0 < ranks[0]["log"][0]["confidence/prompt/mean"] < 1, "of the prompts without images"
