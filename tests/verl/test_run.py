"""What a run on verl leaves in its folder, and what is made of it. verl itself runs in
tests/verl/in_verl/test_recipes.py."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from progrpo.common.errors import ConfigError
from progrpo.recipes.build import make_task
from progrpo.recipes.schema import Recipe, load_recipe
from progrpo.runs.folder import RunFolder
from progrpo.sampling.models import SHIPPED, load_tokenizer
from progrpo.verify import VerifierFailedError
from progrpo.verl.run import _check_tracked, _Launch, check_settings, is_complete, last_error, mend, publish
from progrpo.verl.settings import VerlFolder, verl_command


@pytest.fixture
def recipe() -> Recipe:
    small = ["training.steps=5", "task.train_size=8", "task.heldout_size=2", "evaluation.samples_in_training=2"]
    return load_recipe("countdown_cpu", ["engine=verl", "training.keep_checkpoints=2", *small])


@pytest.fixture
def folder(tmp_path: Path, recipe: Recipe) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.start(recipe, {})
    VerlFolder(folder).validations.mkdir(parents=True)
    return folder


@pytest.fixture
def launch(recipe: Recipe, folder: RunFolder) -> _Launch:
    return _Launch(recipe, folder, make_task(recipe), Watcher(), start=0)


class Watcher:
    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def stage(self, name: str, total: int, completed: int = 0) -> None: ...

    def advance(self, amount: int = 1, **values: float) -> None:
        self.seen.append(values)


def checkpoint(own: VerlFolder, step: int, ranks: int = 2) -> Path:
    """One as verl's FSDP writes it, with the record that it is finished."""
    folder = own.checkpoints / f"global_step_{step}"
    exported = folder / "actor" / "huggingface"
    exported.mkdir(parents=True)
    torch.save({"step": step}, folder / "data.pt")
    for part in ("model", "optim", "extra_state"):
        for rank in range(ranks):
            torch.save({"rank": rank}, folder / "actor" / f"{part}_world_size_{ranks}_rank_{rank}.pt")
    (folder / "actor" / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": ranks}))
    for file in SHIPPED["countdown"].iterdir():
        shutil.copy(file, exported)
    (exported / "tokenizer_config.json").write_text("{}")  # verl's, which may have another chat template
    own.tracker.write_text(str(step))
    return folder


@pytest.mark.skipif(find_spec("verl") is not None, reason="verl is installed")
def test_without_verl_it_is_one_sentence(recipe: Recipe, folder: RunFolder) -> None:
    with pytest.raises(ConfigError, match=r"^engine 'verl' needs verl 0.9.1 in this environment: .*$"):
        check_settings(verl_command(recipe, folder))


@pytest.mark.parametrize("lost", ["data.pt", "actor/optim_world_size_2_rank_1.pt", "actor/fsdp_config.json"])
@pytest.mark.parametrize("how", ["gone", "cut short", "empty"])
def test_a_checkpoint_is_complete_or_not(lost: str, how: str, folder: RunFolder) -> None:
    made = checkpoint(VerlFolder(folder), 3)
    assert is_complete(made)
    content = (made / lost).read_bytes()
    (made / lost).unlink()
    if how != "gone":
        (made / lost).write_bytes(content[: len(content) // 2] if how == "cut short" else b"")
    assert not is_complete(made)


def test_a_run_folder_counts_optimiser_steps_and_verl_rollouts(recipe: Recipe, folder: RunFolder) -> None:
    recipe.training.updates_per_rollout = 4
    own, launch = VerlFolder(folder), _Launch(recipe, folder, make_task(recipe), Watcher(), start=0)
    line = {"step": 2, "data": {"training/global_step": 2, "critic/score/mean": 0.5}}
    own.metrics.write_text(json.dumps(line) + "\n")
    checkpoint(own, 2)
    launch._take_over()
    assert [line["step"] for line in folder.metrics()] == [8]
    assert launch.step == 8
    last = folder.last_checkpoint()
    assert last is not None
    assert last.name == "checkpoint-8"
    _check_tracked(last, recipe, own)
    mend(recipe, folder, own)
    assert folder.rewind() == 8


def test_a_resume_starts_from_the_newest_complete_checkpoint(
    recipe: Recipe, folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    own = VerlFolder(folder)
    mend(recipe, folder, own)  # nothing was saved yet: from the start
    for step in (2, 3):
        checkpoint(own, step)
        publish(recipe, folder, own)
    mend(recipe, folder, own)
    assert own.tracker.read_text() == "3"
    assert not caplog.messages

    (own.checkpoints / "global_step_3" / "actor" / "model_world_size_2_rank_0.pt").unlink()
    mend(recipe, folder, own)
    assert own.tracker.read_text() == "2"
    assert caplog.messages == ["verl's checkpoint of step 3 is damaged or gone: going on from step 2."]
    assert folder.rewind() == 2

    shutil.rmtree(own.checkpoints / "global_step_2")
    with pytest.raises(ConfigError, match="has no complete checkpoint of verl any more"):
        mend(recipe, folder, own)


def test_the_newest_model_is_published_without_a_copy(recipe: Recipe, folder: RunFolder) -> None:
    own = VerlFolder(folder)
    publish(recipe, folder, own)
    assert not folder.checkpoints.exists()
    for step in (1, 2, 3):
        exported = checkpoint(own, step) / "actor" / "huggingface"
        publish(recipe, folder, own)
        publish(recipe, folder, own)  # again: nothing to do
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["checkpoint-2", "checkpoint-3"]
    last = folder.last_checkpoint()
    assert last is not None
    assert (last / "model.safetensors").samefile(exported / "model.safetensors")
    assert load_tokenizer(str(last)).get_vocab() == load_tokenizer("countdown").get_vocab()
    AutoModelForCausalLM.from_pretrained(last)
    shutil.rmtree(own.path)
    AutoModelForCausalLM.from_pretrained(last)


def test_metrics_have_the_run_folders_names(launch: _Launch, folder: RunFolder) -> None:
    lines: list[dict[str, Any]] = [
        {"step": 0, "data": {"val-core/progrpo/countdown/reward/mean@2": 0.5}},
        {"step": 1, "data": {"training/global_step": 1, "critic/score/mean": 0.25, "actor/entropy": 1.5, "odd": None}},
        {"step": 2, "data": {"training/global_step": 2, "confidence/prompt/mean": 0.5, "timing_s/gen": 2.0}},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    launch.own.metrics.write_text(text[:-10])  # verl is in the middle of a line
    launch._take_over()
    assert [line["step"] for line in folder.metrics()] == [1]
    launch.own.metrics.write_text(text)
    launch._take_over()
    first, second = folder.metrics()
    assert (first["reward"], first["entropy"]) == (0.25, 1.5)
    assert "odd" not in first
    assert (second["confidence/prompt/mean"], second["timing_s/gen"]) == (0.5, 2.0)
    assert launch.progress.seen == [{"reward": 0.25, "entropy": 1.5}, {}]
    assert launch.step == 2


def test_a_verifier_that_fails_too_often_stops_the_run(launch: _Launch) -> None:
    data = {"training/global_step": 1, "verifier/errors": 0.05}
    launch._take_metrics(1, data)
    with pytest.raises(VerifierFailedError, match=r"more than the allowed share of 0\.1 .* see .*verl\.log"):
        launch._take_metrics(2, data | {"verifier/errors": 0.5})


def test_validation_samples_become_an_evaluation(launch: _Launch, folder: RunFolder) -> None:
    one, two = launch.task.heldout_problems()
    samples = [
        {"output": "x", "score": 1.0, "verifier_error": 0.0, "reason": "", "canonical": "1+2=3", "problem_id": one},
        {"output": "x", "score": 0.0, "verifier_error": 0.0, "reason": "no", "canonical": "", "problem_id": one},
        {"output": "x", "score": 0.0, "verifier_error": 1.0, "reason": "lost", "canonical": "", "problem_id": two},
        {"output": "x", "score": 1.0, "verifier_error": 0.0, "reason": "", "canonical": "3", "problem_id": two},
    ]
    lines = [json.dumps(sample | {"problem_id": sample["problem_id"]["problem_id"]}) for sample in samples]
    path = launch.own.validations / "2.jsonl"
    path.write_bytes("\n".join([*lines[:3], "é"]).encode()[:-1])  # in the middle of a character
    launch._take_over()
    assert not folder.evaluation_files(), "verl is still writing"
    path.write_text("\n".join(lines) + "\n")
    launch._take_over()
    found = json.loads(folder.evaluation_files()[2].read_text())
    by_id = {problem["problem_id"]: problem for problem in found["problems"]}
    of_one, of_two = by_id[one["problem_id"]], by_id[two["problem_id"]]
    assert (of_one["samples"], of_one["correct"], of_one["errors"], of_one["distinct"]) == (2, 1, 0, 1)
    assert (of_two["samples"], of_two["correct"], of_two["errors"]) == (1, 1, 1)
    assert found["settings"]["backend"] == "verl"


def test_the_last_error_is_the_cause_and_not_its_frame(tmp_path: Path) -> None:
    log = tmp_path / "verl.log"
    log.write_text(
        "\x1b[36m(TaskRunnerV1 pid=12)\x1b[0m RuntimeError: an earlier one that was caught\n"
        "Traceback (most recent call last):\n"
        "ray.exceptions.RayTaskError(torch.OutOfMemoryError): \x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=12)\n"
        "    return forward(x)\n"
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
        "\x1b[36m(raylet)\x1b[0m [2026-11-25] a closing remark\n"
    )
    assert last_error(log) == "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    log.write_text("killed\n")
    assert last_error(log) == "killed."
    log.write_text("")
    assert last_error(log) == "it wrote nothing."


# verl's driver starts Ray, whose processes have sessions of their own and outlive it.
DRIVER = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid} ")
time.sleep(600)
"""
RUN = """
import sys
from pathlib import Path
from progrpo.runs.folder import RunFolder
from progrpo.common.errors import Interrupted
from progrpo.recipes.build import make_task
from progrpo.verl.run import _Launch

class Nobody:
    def stage(self, *args): ...
    def advance(self, *args, **values): ...

folder = RunFolder(Path(sys.argv[1]))
try:
    _Launch(folder.recipe(), folder, make_task(folder.recipe()), Nobody(), 0).run([sys.executable, "-c", sys.argv[2]])
except Interrupted as stop:
    print(stop)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is told on Linux alone")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_what_was_started_ends_with_the_run(number: signal.Signals, folder: RunFolder, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, str(folder.path), DRIVER]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().endswith(" "))
    driver, child = map(int, (tmp_path / "pids").read_text().split())
    run.send_signal(number)
    out, _ = run.communicate(timeout=60)
    if number == signal.SIGKILL:
        # Nobody is left to look after what Ray started: Ray's own processes watch their driver.
        wait_for(lambda: not is_alive(driver))
        os.kill(child, signal.SIGKILL)
        return
    assert out == f"Stopped by {number.name} after step 0\n"
    assert not is_alive(driver)
    assert not is_alive(child)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
