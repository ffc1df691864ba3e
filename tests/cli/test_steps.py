"""A run records each step, however often TRL logs and however many steps a rollout serves. It can be resumed in the
middle of a rollout."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.cli.conftest import TINY
from tests.cli.forked import Server
from tests.cli.test_runs import assert_same_run, metrics


def steps_of(folder: Path) -> list[int]:
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob("step-*.*"))


@pytest.mark.parametrize("logging", ["trl.logging_steps=2", "trl.logging_steps=4", 'trl.logging_strategy="no"'])
def test_a_run_records_the_same_however_often_trl_logs(cli: Any, finished_run: Path, logging: str) -> None:
    cli("train", "countdown_cpu", *cli.tiny, logging, "--out", "run")
    assert_same_run(cli.folder / "run", finished_run)


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        ([], [1, 4, 8]),
        (["trl.num_iterations=2"], [1, 5, 9]),
        (["training.updates_per_rollout=2"], [1, 5, 9]),
        (["training.updates_per_rollout=4"], [1, 5, 9]),
        (["training.updates_per_rollout=8"], [1, 9]),
    ],
    ids=lambda overrides: "".join(overrides) if overrides and isinstance(overrides[0], str) else None,
)
def test_the_first_rollout_at_or_after_each_multiple_is_written(
    cli: Any, overrides: list[str], steps: list[int]
) -> None:
    few = ["training.steps=10", "training.rollouts_every=4", "evaluation.every=0", "evaluation.samples=2"]
    cli("train", "countdown_cpu", *cli.tiny, *few, *overrides, "--out", "run")
    assert steps_of(cli.folder / "run" / "rollouts") == steps
    assert [line["step"] for line in metrics(cli.folder / "run")] == list(range(1, 11))


# Several updates a rollout

SEVERAL = {
    "updates": ["training.updates_per_rollout=4"],
    "iterations": ["trl.num_iterations=4"],
    "both": ["training.updates_per_rollout=2", "trl.num_iterations=2", "training.micro_batch=4"],
    "seeded": ["training.updates_per_rollout=4", "training.seeded_responses=true"],
}


@pytest.fixture(scope="module", params=SEVERAL)
def several(forked: Server, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Path:
    """A run of 6 steps with rollouts before steps 1 and 5, and with all its checkpoints."""
    run = tmp_path_factory.mktemp("several") / "run"
    often = ["training.checkpoint_every=1", "training.keep_checkpoints=9", "training.learning_rate=3e-3"]
    forked("train", "countdown_cpu", *TINY, *SEVERAL[request.param], *often, "--out", str(run))
    return run


def test_the_ratio_differs_from_1_after_a_rollouts_first_update(several: Path) -> None:
    lines = metrics(several)
    clipped = [line["clip_ratio/region_mean"] for line in lines]
    assert clipped[0] == clipped[4] == 0, "the first update of a rollout is by the policy that sampled it"
    assert any(clipped[1:4])
    assert ["reward" in line for line in lines] == [True, False, False, False, True, False]
    assert steps_of(several / "rollouts") == [1, 5]
    assert all(len(pd.read_parquet(path)) == 16 for path in (several / "rollouts").iterdir())


@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_a_run_continues_in_the_middle_of_a_rollout(forked: Server, several: Path, tmp_path: Path, step: int) -> None:
    run = tmp_path / "run"
    shutil.copytree(several, run)
    for later in range(step + 1, 7):
        shutil.rmtree(run / "checkpoints" / f"checkpoint-{later}")
    (run / "evaluations" / "final.json").unlink()
    shutil.rmtree(run / "evaluations" / "final-samples")
    forked("train", "--resume", str(run))
    assert_same_run(run, several)
    kept = sorted(path.name for path in (run / "checkpoints" / "checkpoint-3").iterdir())
    assert "rollout_0.pt" in kept
    assert not (run / "checkpoints" / "checkpoint-4" / "rollout_0.pt").exists(), "it serves no further step"


def test_a_run_that_is_stopped_in_the_middle_of_a_rollout(forked: Server, tmp_path: Path) -> None:
    arguments = ["train", "countdown_cpu", *TINY, "training.updates_per_rollout=4", "training.checkpoint_every=6"]
    forked(*arguments, "--out", str(tmp_path / "quiet"))
    run = tmp_path / "run"
    stopped = forked.start(*arguments, "--out", str(run))
    stopped.wait_for(lambda: stopped.marks().count("begin update") == 3)
    stopped.kill(signal.SIGTERM)
    assert stopped.wait() == 128 + signal.SIGTERM
    assert (run / "checkpoints" / "checkpoint-3" / "rollout_0.pt").exists()
    forked("train", "--resume", str(run))
    assert_same_run(run, tmp_path / "quiet")


@pytest.mark.parametrize(
    ("settings", "weights"),
    [(["model.lora={r=4}"], "adapter_model.safetensors"), (["trl.beta=0.1"], "model.safetensors")],
    ids=["an adapter", "a reference model"],
)
def test_a_run_continues_with(settings: list[str], weights: str, forked: Server, tmp_path: Path) -> None:
    """The reference model of a resumed run is the one that the run started from."""
    quiet, run = tmp_path / "quiet", tmp_path / "run"
    forked("train", "countdown_cpu", *TINY, *settings, "--out", str(quiet))
    shutil.copytree(quiet, run)
    shutil.rmtree(run / "checkpoints" / "checkpoint-6")
    (run / "evaluations" / "final.json").unlink()
    shutil.rmtree(run / "evaluations" / "final-samples")
    forked("train", "--resume", str(run))
    assert_same_run(run, quiet, weights)


def test_a_run_continues_in_a_later_pass_through_its_problems(forked: Server, tmp_path: Path) -> None:
    """Two steps are a pass through eight problems, and each pass has another order."""
    arguments = ["train", "countdown_cpu", *TINY, "task.train_size=8", "training.keep_checkpoints=9"]
    forked(*arguments, "--out", str(tmp_path / "quiet"))
    run = tmp_path / "run"
    shutil.copytree(tmp_path / "quiet", run)
    shutil.rmtree(run / "checkpoints" / "checkpoint-6")
    shutil.rmtree(run / "checkpoints" / "checkpoint-4")
    (run / "evaluations" / "final.json").unlink()
    shutil.rmtree(run / "evaluations" / "final-samples")
    forked("train", "--resume", str(run))
    assert_same_run(run, tmp_path / "quiet")
