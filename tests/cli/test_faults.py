"""Faults other than SIGKILL, each injected for real: one sentence, nothing lost, and a run that can go on."""

import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from tests.cli.conftest import TINY
from tests.cli.forked import Run, Server
from tests.cli.test_runs import assert_same_run, metrics

from progrpo.runs.checkpoints import fault, seal
from progrpo.runs.folder import RunFolder
from progrpo.verify import StdinTests
from progrpo.verify.code.programs import gold_of


@pytest.fixture(scope="module")
def undisturbed(forked: Server) -> Path:
    forked("train", "countdown_cpu", *TINY, "--out", "undisturbed")
    return forked.folder / "undisturbed"


@pytest.fixture
def unfinished(undisturbed: Path, tmp_path: Path) -> Path:
    """A run that was killed in its final evaluation: it has all six steps, and checkpoints of steps 4 and 6."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    (run / "evaluations" / "final.json").unlink()
    (run / "report.html").unlink()
    return run


def one_sentence(run: Run) -> str:
    """The message of a failed run, without the lines of its progress."""
    assert "Traceback" not in run.out + run.err, run.err
    said = [line for line in run.err.splitlines() if line.startswith("progrpo: ")]
    assert len(said) == 1, run.err
    return said[0]


def events(run: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]


def recorded(run: Path) -> int:
    """How many steps a run has recorded."""
    return len(RunFolder(run).metrics())


# A damaged checkpoint


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda checkpoint: flip_a_bit(checkpoint / "model.safetensors"), "model.safetensors has changed"),
        (lambda checkpoint: os.truncate(checkpoint / "model.safetensors", 5000), "model.safetensors has 5,000 bytes"),
        (lambda checkpoint: (checkpoint / "trainer_state.json").unlink(), "trainer_state.json is missing"),
        (lambda checkpoint: (checkpoint / "digests.json").write_text("{"), "its digests.json is damaged"),
    ],
    ids=["a bit", "truncated", "missing", "manifest"],
)
def test_a_damaged_checkpoint_the_one_before_is_taken(
    forked: Server, unfinished: Path, undisturbed: Path, damage: Any, why: str
) -> None:
    damage(unfinished / "checkpoints" / "checkpoint-6")
    run = forked("train", "--resume", str(unfinished))
    assert f"checkpoint-6 can't be used: {why}" in run.err
    assert "it is kept as damaged-checkpoint-6, and the run goes on from checkpoint-4" in run.err
    assert "fell back" in events(unfinished)
    assert_same_run(unfinished, undisturbed)


def test_the_model_of_a_damaged_checkpoint_is_not_evaluated(forked: Server, unfinished: Path) -> None:
    flip_a_bit(unfinished / "checkpoints" / "checkpoint-6" / "model.safetensors")
    out = str(unfinished.parent / "out")
    arguments = ["evaluate", str(unfinished), "evaluation.samples=2", "--out", out]
    run = forked(*arguments)
    assert (
        f"checkpoint-4 of {str(unfinished)!r} is evaluated, as newer ones are damaged (checkpoint-6: model" in run.err
    )
    named = forked("evaluate", str(unfinished / "checkpoints" / "checkpoint-6"), "--out", out, code=2)
    assert "checkpoint-6' is damaged: model.safetensors has changed, as its sha256 shows" in one_sentence(named)


def test_without_a_good_checkpoint_a_run_does_not_start_again_unseen(forked: Server, unfinished: Path) -> None:
    for checkpoint in (unfinished / "checkpoints").glob("checkpoint-*"):
        (checkpoint / "config.json").unlink()
    said = one_sentence(forked("train", "--resume", str(unfinished), code=2))
    assert "can be used (checkpoint-6: config.json is missing; checkpoint-4: config.json is missing); put one" in said
    assert len(metrics(unfinished)) == 6
    assert "no checkpoint of run" in one_sentence(forked("evaluate", str(unfinished), code=2))


# A full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small separate disk."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", mounted], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting a file system is not allowed here: {done.stderr.decode().strip()}")
    yield mounted
    subprocess.run(["umount", "-l", mounted], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass
    assert shutil.disk_usage(disk).free == 0
    return filler


def test_a_disk_that_is_full_at_a_checkpoint(forked: Server, disk: Path, undisturbed: Path) -> None:
    run = disk / "run"
    said = one_sentence(forked("train", "countdown_cpu", *TINY, "--out", str(run), code=1))
    assert f"progrpo: {str(run)!r} can't be written any more: No space left on device (" in said
    assert f"continue from checkpoint-2 with: progrpo train --resume {run}" in said
    assert fault(run / "checkpoints" / "checkpoint-2") is None
    assert metrics(run) == metrics(undisturbed)[:4]
    assert not list(run.rglob(".*.tmp")), "half of a checkpoint takes no space"
    again = one_sentence(forked("train", "--resume", str(run), code=1))
    assert "No space left on device" in again, "it is full still"
    remount(disk, "size=100m")
    forked("train", "--resume", str(run))
    assert_same_run(run, undisturbed)


def test_a_disk_that_is_full_to_the_last_byte(forked: Server, disk: Path, undisturbed: Path) -> None:
    """Another program fills the rest of the disk while the run goes on."""
    run = disk / "run"
    running = forked.start("train", "countdown_cpu", *TINY, "--out", str(run))
    assert running.wait_for(lambda: recorded(run) >= 1)
    running.kill(signal.SIGSTOP)
    filler = fill(disk)
    running.kill(signal.SIGCONT)
    assert running.wait() == 1
    assert "No space left on device (0.0 MB free on its disk)" in one_sentence(running)
    assert metrics(run) == metrics(undisturbed)[: len(metrics(run))], "no half of a line"
    filler.unlink()
    remount(disk, "size=100m")
    forked("train", "--resume", str(run))
    assert_same_run(run, undisturbed)


def test_a_quota(forked: Server, undisturbed: Path, tmp_path: Path) -> None:
    """Files may have one megabyte at most, which the weights exceed. This works where nothing can be mounted."""
    run = tmp_path / "run"
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, {resource.RLIM_INFINITY}))"
    said = one_sentence(forked("train", "countdown_cpu", *TINY, "--out", str(run), code=1, patch=limit))
    assert "can't be written any more: File too large (" in said
    assert "continue from the start, as no checkpoint had been written, with: progrpo train --resume" in said
    assert not list(run.rglob(".*.tmp"))
    forked("train", "--resume", str(run))
    assert_same_run(run, undisturbed)


def test_an_evaluation_on_a_full_disk_keeps_its_samples(forked: Server, disk: Path) -> None:
    arguments = ["evaluate", "countdown", "task.numbers=3", "task.heldout_size=40", "evaluation.batch=64"]
    arguments += ["evaluation.samples=64", "--out", str(disk / "out")]
    remount(disk, "size=200k")
    said = one_sentence(forked(*arguments, code=1))
    assert "can't be written any more: No space left on device; the samples in it are kept; make room" in said
    kept = len(pd.read_parquet(disk / "out" / "countdown-samples"))
    assert 0 < kept < 40 * 64
    remount(disk, "size=20m")
    run = forked(*arguments)
    generated = [record for record in run.log() if "evaluation" in record]
    assert len(generated) == 40 * 64 - kept


# A folder that can't be written


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_loaded(
    cli: Any, forked: Server, unfinished: Path
) -> None:
    (cli.folder / "file").touch()
    said = cli("train", "countdown_cpu", "--out", "file/run", code=2).err
    assert "progrpo: the folder 'file/run' can't be written (Not a directory); choose another with --out" in said
    assert "file' can't be written (File exists)" in one_sentence(
        forked("train", "countdown_cpu", "--out", str(cli.folder / "file"), code=2)
    )
    assert "can't be written" in one_sentence(
        forked("evaluate", "countdown", "--out", str(cli.folder / "file"), code=2)
    )
    os.chmod(unfinished / "rollouts", 0o500)
    if os.geteuid():  # root may write anyway
        assert "rollouts' can't be written (Permission denied)" in one_sentence(
            forked("train", "--resume", str(unfinished), code=2)
        )


def test_a_disk_that_is_read_only(forked: Server, disk: Path, undisturbed: Path) -> None:
    shutil.copytree(undisturbed, disk / "run", ignore=shutil.ignore_patterns("checkpoints"))
    (disk / "run" / "evaluations" / "final.json").unlink()
    remount(disk, "ro")
    before = sorted(disk.rglob("*"))
    for arguments in (["--resume", str(disk / "run")], ["countdown_cpu", "--out", str(disk / "new")]):
        said = one_sentence(forked("train", *arguments, code=2))
        assert "can't be written (Read-only file system); choose another with --out" in said
    assert sorted(disk.rglob("*")) == before
    remount(disk, "rw")


# Two at once


def test_two_runs_in_one_folder(forked: Server, cli: Any, undisturbed: Path) -> None:
    """The first run is paused, so that it is still there when the second one starts."""
    run = cli.folder / "run"
    first = forked.start("train", "countdown_cpu", *TINY, "--out", str(run))
    assert first.wait_for(lambda: recorded(run) >= 3)
    first.kill(signal.SIGSTOP)
    second = cli("train", "--resume", str(run), code=2)
    assert f"run' is being written by process {first.pid} on " in second.err
    assert second.err.strip().count("\n") == 0
    first.kill(signal.SIGCONT)
    assert first.wait() == 0
    assert_same_run(run, undisturbed)


# Verifiers that are lost


def children(pid: int, script: str) -> list[int]:
    """The processes that a run has started to run a script."""
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_text().split("\0")
        except (OSError, ValueError):
            continue
        if parent == pid and any(Path(part).name == script for part in command):
            pids.append(int(path.name))
    return pids


def recipe(folder: Path, verifier: str) -> str:
    """The shipped model on its own kind of prompts, and another verifier."""
    code = gold_of(StdinTests((("1\n", "1\n"),)), completes=True)
    for name, first in (("train", 1), ("heldout", 20)):
        rows = [
            {
                "prompt": f"{i} {i + 1} {i + 2} : {3 * i + 3} ;",
                "gold": code if verifier == "code" else rf"\sqrt{{{(3 * i + 3) ** 2}}}",
            }
            for i in range(first, first + 8)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = "\n".join(f'{name} = {{ path = "{folder / name}.jsonl" }}' for name in ("train", "heldout"))
    file = folder / "recipe.toml"
    file.write_text(
        f'name = "killed"\n[model]\npath = "countdown"\n[task]\nname = "jsonl"\ndefault_verifier = "{verifier}"\n{data}'
    )
    return str(file)


@pytest.mark.parametrize(("verifier", "script"), [("math_last_number", "worker.py"), ("code", "helper.py")])
def test_a_verifiers_process_that_is_killed_is_replaced(
    forked: Server, tmp_path: Path, verifier: str, script: str
) -> None:
    settings = [setting for setting in TINY if not setting.startswith("task.")]
    arguments = ["train", recipe(tmp_path, verifier), *settings, "training.max_response_tokens=16"]
    forked(*arguments, "--out", str(tmp_path / "quiet"))
    run = forked.start(*arguments, "--out", str(tmp_path / "run"))
    killed: set[int] = set()
    for steps in (0, 2, 4):  # as soon as there is one that was not there before
        assert run.wait_for(lambda steps=steps: recorded(tmp_path / "run") >= steps)
        assert run.wait_for(lambda: bool(set(children(run.pid, script)) - killed))
        for pid in set(children(run.pid, script)) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    assert run.wait() == 0, run.err
    assert len(killed) >= 3
    assert metrics(tmp_path / "run") == metrics(tmp_path / "quiet"), "each response was tried again"
    assert pd.read_parquet(tmp_path / "run" / "rollouts")["status"].ne("error").all()


# Losses, gradients and weights that are not numbers


def assert_kept(run: Path, step: int, micro_batches: int) -> dict[str, Any]:
    kept = run / f"failed-step-{step:06d}"
    failure = json.loads((kept / "failure-rank0.json").read_text())
    assert (failure["step"], failure["micro_batches"]) == (step, micro_batches)
    tensors = load_file(kept / "micro-batches-rank0.safetensors")
    assert {name.partition(".")[0] for name in tensors} == {str(i) for i in range(micro_batches)}
    if micro_batches:
        rollout = pd.read_parquet(kept / "rollout-rank0.parquet")
        assert len(rollout) == 16
        ids = tensors["0.completion_ids"]
        masks = tensors["0.completion_mask"].astype(bool)
        generated = {tuple(row) for row in rollout["token_ids"]}
        assert {tuple(row[mask]) for row, mask in zip(ids, masks, strict=True)} <= generated
        assert tensors["0.advantages"].shape == (len(ids),)
    return failure


def test_a_loss_that_is_not_a_number_stops_the_run_and_its_batch_is_kept(forked: Server, tmp_path: Path) -> None:
    """An alpha that float32 can't hold makes the advantages infinite."""
    run = tmp_path / "run"
    arguments = [*TINY, "training.micro_batch=4", "methods.progrpo.alpha=1e39", "evaluation.every=0"]
    said = one_sentence(forked("train", "countdown_cpu", *arguments, "--out", str(run), code=1))
    assert "progrpo: step 1: the loss is " in said
    assert "it has not reached the weights. The step's batch is in" in said
    assert "start a new run from the model that this one started from with other settings" in said
    failure = assert_kept(run, 1, 1)
    assert (failure["what"], failure["of"], failure["learning_rate"]) == ("loss", 4, 1e-4)
    assert failure["non_finite_parameters"] == []
    assert not (run / "metrics.jsonl").exists()
    assert events(run) == ["started", "failed"]
    page = forked("inspect", str(run / "failed-step-000001" / "rollout-rank0.parquet"), "--out", str(run / "look.html"))
    assert page.code == 0
    repeated = one_sentence(forked("train", "--resume", str(run), code=1))
    assert "step 1: the loss is " in repeated


def test_a_stop_comes_before_an_evaluation(forked: Server, undisturbed: Path, tmp_path: Path) -> None:
    """Launchers wait half a minute for the checkpoint; an evaluation follows step 3."""
    run = tmp_path / "run"
    stopped = forked.start("train", "countdown_cpu", *TINY, "--out", str(run))
    stopped.wait_for(lambda: stopped.marks().count("begin update") == 3)
    stopped.kill(signal.SIGTERM)
    assert stopped.wait() == 128 + signal.SIGTERM
    assert (run / "checkpoints" / "checkpoint-3").is_dir()
    assert not (run / "evaluations" / "step-000003.json").exists()
    forked("train", "--resume", str(run))
    assert_same_run(run, undisturbed)


def test_responses_that_serve_two_steps(forked: Server, tmp_path: Path) -> None:
    forked("train", "countdown_cpu", *TINY, "trl.num_iterations=2", "--out", str(tmp_path / "run"))
    assert recorded(tmp_path / "run") == 6


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_a_pickle_in_a_checkpoint_runs_no_code(forked: Server, unfinished: Path, tmp_path: Path) -> None:
    """Whoever can write to the folder can seal it again, so the digests do not protect from this."""
    import torch

    checkpoint = unfinished / "checkpoints" / "checkpoint-4"
    shutil.rmtree(unfinished / "checkpoints" / "checkpoint-6")
    torch.save(Bomb(tmp_path / "exploded"), checkpoint / "rng_state.pth")
    seal(checkpoint)
    said = one_sentence(forked("train", "--resume", str(unfinished), code=1))
    assert "checkpoint-4' has a file that holds more than data, and was not loaded" in said
    assert not (tmp_path / "exploded").exists()
    torch.load(checkpoint / "rng_state.pth", weights_only=False)
    assert (tmp_path / "exploded").exists(), "it is a bomb"


def test_a_gradient_that_is_not_a_number_stops_the_run_before_the_optimizer(forked: Server, tmp_path: Path) -> None:
    """From step 3 on, the third micro-batch's gradient of one weight is NaN, and every loss is finite."""
    run = tmp_path / "run"
    patch = """
import torch
from progrpo.trl.run import RecipeTrainer
compute_loss = RecipeTrainer.compute_loss
def with_hook(self, model, inputs, *args, **kwargs):
    if self.state.global_step == 2 and self._step % 4 == 2:
        weight = list(model.parameters())[-1]
        weight.register_hook(lambda gradient: gradient * torch.nan)
    return compute_loss(self, model, inputs, *args, **kwargs)
RecipeTrainer.compute_loss = with_hook
"""
    arguments = ["train", "countdown_cpu", *TINY, "training.micro_batch=4", "--out", str(run)]
    said = one_sentence(forked(*arguments, code=1, patch=patch))
    assert "progrpo: step 3: the norm of the gradient is nan; it has not reached the weights" in said
    assert f"start a new run from {str(run / 'checkpoints' / 'checkpoint-2')!r} (model.path) with other" in said
    failure = assert_kept(run, 3, 4)
    assert failure["non_finite_parameters"] == []
    assert len(failure["non_finite_gradients"]) == 1, "the others are of no fault, and not yet clipped by a norm of NaN"
    assert len(metrics(run)) == 2
    undisturbed = forked("train", "countdown_cpu", *TINY, "training.micro_batch=4", "--out", str(tmp_path / "quiet"))
    assert undisturbed.code == 0
    forked("train", "--resume", str(run))  # without the fault
    assert_same_run(run, tmp_path / "quiet")


def test_a_step_size_that_ruins_the_weights(forked: Server, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = [*TINY, "training.learning_rate=1e30", "training.checkpoint_every=1", "evaluation.every=0"]
    said = one_sentence(forked("train", "countdown_cpu", *arguments, "--out", str(run), code=1))
    assert "the distribution of the next token is nan" in said
    assert "training.learning_rate below 1e+30" in said
    failure = assert_kept(run, len(metrics(run)) + 1, 0)
    assert failure["learning_rate"] == 1e30


def test_a_model_whose_weights_are_not_numbers(forked: Server, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from progrpo.sampling.models import SHIPPED

    model = tmp_path / "model"
    shutil.copytree(SHIPPED["countdown"], model)
    weights = load_file(model / "model.safetensors")
    name = next(name for name in weights if "norm" in name)
    weights[name] = np.full_like(weights[name], np.nan)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    arguments = [*TINY, f"model.path={model}", "--out", str(tmp_path / "run")]
    assert "not finite" in one_sentence(forked("train", "countdown_cpu", *arguments, code=2))
    said = one_sentence(forked("train", "countdown_cpu", *arguments, "evaluation.every=0", "--resume", code=2))
    assert "another recipe" in said
    run = forked("train", "countdown_cpu", *arguments[:-1], str(tmp_path / "other"), "evaluation.every=0", code=1)
    assert "step 1: the distribution of the next token is nan" in one_sentence(run)
    assert "not finite" in one_sentence(forked("evaluate", str(model), "--out", str(tmp_path / "out"), code=2))


# A server that TRL samples from


def test_a_server_that_trl_can_no_longer_reach(forked: Server, tmp_path: Path, undisturbed: Path) -> None:
    """The error that TRL's client would get: its HTTP library sends a request to a port where nobody listens. The
    client itself needs CUDA."""
    run = tmp_path / "run"
    patch = """
import requests
from progrpo.trl.run import RecipeTrainer
generate = RecipeTrainer._generate_single_turn
def ask(self, *args, **kwargs):
    if self.state.global_step == 3:
        requests.post("http://127.0.0.1:9/generate/")
    return generate(self, *args, **kwargs)
RecipeTrainer._generate_single_turn = ask
"""
    said = one_sentence(forked("train", "countdown_cpu", *TINY, "--out", str(run), code=1, patch=patch))
    assert "progrpo: the server that TRL samples from can't be reached: " in said
    assert f"start it again, and continue from checkpoint-2 with: progrpo train --resume {run}" in said
    forked("train", "--resume", str(run))
    assert_same_run(run, undisturbed)
