"""``progrpo train`` under ``accelerate launch``, DDP and FSDP2 on two CPU processes with gloo.

The responses are really sampled, each from its own random stream (``training.seeded_responses``). So one process, and
two of either kind, record exactly the same run.
"""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from progrpo.runs.checkpoints import seal

SCRIPT = Path(__file__).with_name("distributed_progrpo.py")
STEPS = 8
# On two processes, the second of five groups is split, and they evaluate 3 and 2 of the problems.
RECIPE = [
    f"training.steps={STEPS}",
    "training.prompts_per_step=5",
    "training.group_size=8",
    "training.micro_batch=10",
    "training.checkpoint_every=2",
    "training.keep_checkpoints=9",
    "training.seeded_responses=true",
    "training.lr_schedule=linear",
    "training.weight_decay=0.01",
    "task.numbers=3",
    "task.train_size=64",
    "task.heldout_size=5",
    "evaluation.samples=4",
    "evaluation.every=4",
    "evaluation.samples_in_training=2",
    "evaluation.problems_in_training=3",
]
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    # As in the configuration of the recipes, only the first process reads the weights.
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_SYNC_MODULE_STATES": "true",
}
KINDS: dict[str, dict[str, str]] = {"one": {}, "ddp": {}, "fsdp": FSDP}
# The resources of a run, and figures that depend on how it is cut into passes.
INCOMPARABLE = ("seconds", "step_time")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start(kind: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """``progrpo train ARGUMENTS`` in a folder, on one process or under the launcher."""
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher += ["--num_machines", "1", "--num_processes", "2"]
    launcher += ["--main_process_ip", "127.0.0.1", "--main_process_port", str(free_port())]
    quiet = {"PYTHONWARNINGS": "ignore", "TRL_EXPERIMENTAL_SILENCE": "1", "NO_COLOR": "1", "COLUMNS": "100"}
    return subprocess.Popen(
        [sys.executable, *(launcher if kind != "one" else []), str(SCRIPT), "train", *arguments],
        cwd=folder,
        env=os.environ | quiet | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"} | KINDS[kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def train(kind: str, folder: Path, *arguments: str) -> tuple[str, str]:
    process = start(kind, folder, *arguments)
    out, err = communicate(process, 240)
    assert process.returncode == 0, err[-4000:]
    return out, err


def communicate(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: launcher and processes
        raise


def rank_of(launcher: subprocess.Popen[str], rank: int) -> int:
    """The process id of one of the launcher's processes."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    for child in children:
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no process of rank {rank} among {children}")


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def metrics(run: Path) -> list[dict[str, float]]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def checkpoint(run: Path, step: int = STEPS) -> Path:
    return run / "checkpoints" / f"checkpoint-{step}"


def rollouts(run: Path, step: int) -> pd.DataFrame:
    parts = sorted((run / "rollouts").glob(f"step-{step:06d}-rank*.parquet"))
    return pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)


def assert_same_run(run: Path, other: Path, tolerance: float) -> None:
    """Metrics, evaluations, responses and weights."""
    assert len(metrics(run)) == STEPS
    for ours, theirs in zip(metrics(run), metrics(other), strict=True):
        comparable = {name: value for name, value in ours.items() if name not in INCOMPARABLE}
        assert comparable == pytest.approx(
            {name: value for name, value in theirs.items() if name not in INCOMPARABLE}, rel=tolerance, abs=tolerance
        ), f"step {ours['step']}"
    for step in (1, STEPS):
        columns = ["group", "problem_id", "text", "status", "reward"]
        pd.testing.assert_frame_equal(rollouts(run, step)[columns], rollouts(other, step)[columns])
    for name in ("step-000000", "step-000004", "final"):
        ours, theirs = (json.loads((r / "evaluations" / f"{name}.json").read_text()) for r in (run, other))
        # entropies are floats, everything else is a count
        assert ours["summary"] == pytest.approx(theirs["summary"], rel=tolerance, abs=tolerance)
        assert [p | {"entropy": 0} for p in ours["problems"]] == [p | {"entropy": 0} for p in theirs["problems"]]
    ours, theirs = (load_file(checkpoint(r) / "model.safetensors") for r in (run, other))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def run_of(once: Any) -> Callable[[str], tuple[Path, str, str]]:
    """``run_of("ddp")``: the folder of an undisturbed run of that kind, and what it printed."""

    def make(kind: str, folder: Path) -> None:
        out, err = train(kind, folder, "countdown_cpu", *RECIPE, "--out", "run")
        (folder / "out").write_text(out)
        (folder / "err").write_text(err)

    def run(kind: str) -> tuple[Path, str, str]:
        folder = once(kind, lambda folder: make(kind, folder))
        return folder / "run", (folder / "out").read_text(), (folder / "err").read_text()

    return run


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_run_as_one_process_does(kind: str, run_of: Any) -> None:
    run, out, err = run_of(kind)
    assert_same_run(run, run_of("one")[0], tolerance=1e-5)
    # The two processes have printed it once, and nothing else.
    assert out.count("pass@1") == out.count("report.html") == 1
    assert err.count(f"train {STEPS}/{STEPS}") == 1
    # Each had half of the responses; one group is split between them.
    halves = [pd.read_parquet(run / "rollouts" / f"step-000001-rank{rank}.parquet") for rank in (0, 1)]
    assert [len(half) for half in halves] == [20, 20]
    assert set(halves[0]["group"]) & set(halves[1]["group"]) == {2}
    # Each had its problems of the final evaluation, and no sample was drawn twice.
    samples = run / "evaluations" / "final-samples"
    drawn = [
        pd.concat(map(pd.read_parquet, samples.glob(pattern))) for pattern in ("part-??????.parquet", "*-1.parquet")
    ]
    assert [len(part) for part in drawn] == [3 * 4, 2 * 4]
    assert not pd.concat(drawn).duplicated(["problem_id", "index"]).any()


@pytest.mark.parametrize("kind", ["one", "ddp", "fsdp"])
def test_a_checkpoint_is_in_transformers_format(kind: str, run_of: Any) -> None:
    run = run_of(kind)[0]
    model, report = AutoModelForCausalLM.from_pretrained(checkpoint(run), output_loading_info=True)
    assert not report["missing_keys"] | report["unexpected_keys"]
    assert model.config.architectures == ["Qwen2ForCausalLM"]
    assert AutoTokenizer.from_pretrained(checkpoint(run)).pad_token_id is not None
    saved = load_file(checkpoint(run) / "model.safetensors")
    for name, weight in model.state_dict().items():
        if name in saved:  # a tied one occurs once
            torch.testing.assert_close(weight, saved[name], rtol=0, atol=0)
    pickles = {path.name for path in checkpoint(run).rglob("*") if path.suffix not in (".safetensors", ".json", ".md")}
    ranks = {"rng_state.pth"} if kind == "one" else {"rng_state_0.pth", "rng_state_1.pth"}
    assert pickles == ranks | {"training_args.bin", "optimizer"}, "other pickles might be read without restriction"


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


# The pickles of transformers, accelerate, torch and peft, but for those that a run reads: tests/cli/test_faults.py.
PICKLES = [
    *("optimizer.pt", "optimizer.bin", "scheduler.pt", "training_args.bin", "pytorch_model.bin"),
    *("pytorch_model_fsdp.bin", "adapter_model.bin", "rng_state.bin", "random_states_0.pkl"),
    *("optimizer_0/.metadata", "pytorch_model_fsdp_0/.metadata", "optimizer/.metadata"),
]


def lay_bombs(folder: Path, mark: Path) -> None:
    """Write bombs beside a checkpoint's files, and instead of files that nothing reads, and seal it again."""
    for name in PICKLES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    seal(folder)


@pytest.mark.parametrize(("kind", "rank"), [("ddp", 1), ("fsdp", 0)])
def test_a_killed_process_ends_the_other_and_the_resumed_run_is_the_undisturbed_one(
    kind: str, rank: int, run_of: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    launcher = start(kind, tmp_path, "countdown_cpu", *RECIPE, "--out", "run")
    wait_for(checkpoint(run, 2).exists)
    os.kill(rank_of(launcher, rank), signal.SIGKILL)
    killed = time.monotonic()
    _, err = communicate(launcher, 60)
    assert time.monotonic() - killed < 60
    assert launcher.returncode != 0
    sentences = (
        f"another process of this run has ended, and process {1 - rank} of 2",
        f"ended process {1 - rank} of 2 (SIGTERM)",
    )
    assert sum(err.count(words) for words in sentences) == 1, err[-4000:]
    assert err.count("progrpo train --resume run") == 1
    assert len(metrics(run)) < STEPS

    # No pickle runs code when the run is resumed.
    for saved in (run / "checkpoints").glob("checkpoint-*"):
        lay_bombs(saved, tmp_path / "exploded")
    train(kind, tmp_path, "--resume", "run")
    assert not (tmp_path / "exploded").exists()
    assert_same_run(run, run_of(kind)[0], tolerance=1e-6)
    assert not list(run.rglob(".*.tmp"))


def test_the_bombs_work(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    lay_bombs(tmp_path / "checkpoint", tmp_path / "exploded")
    pickle.loads((tmp_path / "checkpoint" / "optimizer.pt").read_bytes())
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("signal_number", "to"), [(signal.SIGTERM, "launcher"), (signal.SIGINT, "all"), (signal.SIGTERM, "rank 1")]
)
def test_a_stopped_launcher_leaves_a_checkpoint_of_one_step_and_one_process_can_go_on_from_it(
    signal_number: signal.Signals, to: str, run_of: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    launcher = start("ddp", tmp_path, "countdown_cpu", *RECIPE, "--out", "run")
    wait_for(lambda: len(metrics(run)) >= 1)
    if to == "all":  # as a Ctrl-C does, and the launcher passes it on once more
        os.killpg(launcher.pid, signal_number)
    else:
        os.kill(launcher.pid if to == "launcher" else rank_of(launcher, 1), signal_number)
    out, err = communicate(launcher, 60)
    stopped_at = len(metrics(run))
    assert 1 <= stopped_at < STEPS
    assert f"Stopped by {signal_number.name} after step {stopped_at}. Continue with" in out.replace("\n", " "), err[
        -4000:
    ]
    assert out.count("Stopped by") == 1
    assert sorted(path.name for path in checkpoint(run, stopped_at).glob("rng_state_*")) == [
        "rng_state_0.pth",
        "rng_state_1.pth",
    ]

    if to != "launcher":
        return
    _, err = train("one", tmp_path, "--resume", "run")
    assert "was written by 2 processes" in err
    # The pieces of its rollouts have the numbers of the processes.
    assert_same_run(run, run_of("one")[0], tolerance=1e-5)
