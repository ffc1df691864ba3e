"""The folder of a run on verl, the error that verl's log names, and the end of all that was started.

verl itself runs in tests/verl/in_verl/test_recipes.py.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.verl.checkpoint import write_checkpoint

from progrpo.common.errors import ConfigError, RunError
from progrpo.recipes.build import make_task
from progrpo.recipes.schema import Recipe, load_recipe
from progrpo.runs.folder import RunFolder
from progrpo.verify import VerifierFailedError
from progrpo.verl.check import check_settings
from progrpo.verl.checkpoints import check_tracked, mend
from progrpo.verl.run import VerlRun, last_error, validation
from progrpo.verl.settings import VerlFolder, verl_command


@pytest.fixture
def run(recipe: Recipe, folder: RunFolder) -> VerlRun:
    return VerlRun(recipe, folder, make_task(recipe), RecordedProgress(), start=0)


class RecordedProgress:
    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def stage(self, name: str, total: int, completed: int = 0) -> None: ...

    def advance(self, amount: int = 1, **values: float) -> None:
        self.values.append(values)


@pytest.mark.skipif(find_spec("verl") is not None, reason="verl is installed")
def test_without_verl_one_sentence_says_so(recipe: Recipe, folder: RunFolder) -> None:
    with pytest.raises(ConfigError, match=r"^engine 'verl' needs verl 0.9.1, which is not installed here: .*$"):
        check_settings(verl_command(recipe, folder))


def test_a_failed_run_names_the_last_error_the_log_and_the_step(run: VerlRun, folder: RunFolder) -> None:
    write_checkpoint(folder, 2)
    with pytest.raises(RunError) as failure:
        run.run([sys.executable, "-c", "raise ValueError('no such trainer')"])
    log = VerlFolder(folder).log
    assert str(failure.value) == (
        f"verl failed (exit code 1): ValueError: no such trainer. Its log is {log}; "
        f"progrpo train --resume {folder.path} goes on from step 2."
    )


def test_a_run_folder_counts_optimiser_steps_where_verl_counts_rollouts(recipe: Recipe, folder: RunFolder) -> None:
    recipe.training.updates_per_rollout = 4
    run = VerlRun(recipe, folder, make_task(recipe), RecordedProgress(), start=0)
    line = {"step": 2, "data": {"training/global_step": 2, "critic/score/mean": 0.5}}
    run.paths.metrics.write_text(json.dumps(line) + "\n")
    write_checkpoint(folder, 2)
    run.collect()
    assert [line["step"] for line in folder.metrics()] == [8]
    assert run.step == 8
    last = folder.last_checkpoint()
    assert last is not None
    assert last.name == "checkpoint-8"
    check_tracked(last, recipe, folder)
    mend(recipe, folder)
    assert folder.rewind() == 8


def test_metrics_have_the_run_folders_names(run: VerlRun, folder: RunFolder) -> None:
    lines: list[dict[str, Any]] = [
        {"step": 0, "data": {"val-core/progrpo/countdown/reward/mean@2": 0.5}},
        {"step": 1, "data": {"training/global_step": 1, "critic/score/mean": 0.25, "actor/entropy": 1.5, "odd": None}},
        {"step": 2, "data": {"training/global_step": 2, "confidence/prompt/mean": 0.5, "timing_s/gen": 2.0}},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    run.paths.metrics.write_text(text[:-10])  # verl has written half a line
    run.collect()
    assert [line["step"] for line in folder.metrics()] == [1]
    run.paths.metrics.write_text(text)
    run.collect()
    first, second = folder.metrics()
    assert (first["reward"], first["entropy"]) == (0.25, 1.5)
    assert "odd" not in first
    assert (second["confidence/prompt/mean"], second["timing_s/gen"]) == (0.5, 2.0)
    assert run.progress.values == [{"reward": 0.25, "entropy": 1.5}, {}]
    assert run.step == 2


def test_a_verifier_that_fails_too_often_stops_the_run(run: VerlRun) -> None:
    def write_errors(step: int, share: float) -> None:
        line = {"step": step, "data": {"training/global_step": step, "verifier/errors": share}}
        with run.paths.metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")

    write_errors(1, 0.05)
    run.collect()
    write_errors(2, 0.5)
    with pytest.raises(VerifierFailedError, match=r"more than the allowed share of 0\.1 .* see .*verl\.log"):
        run.collect()


def test_validation_samples_become_an_evaluation(run: VerlRun, folder: RunFolder) -> None:
    first, second = (problem["problem_id"] for problem in run.task.heldout_problems())
    samples = [
        {"output": "x", "score": 1.0, "verifier_error": 0.0, "reason": "", "canonical": "1+2=3", "problem_id": first},
        {"output": "x", "score": 0.0, "verifier_error": 0.0, "reason": "no", "canonical": "", "problem_id": first},
        {"output": "x", "score": 0.0, "verifier_error": 1.0, "reason": "lost", "canonical": "", "problem_id": second},
        {"output": "x", "score": 1.0, "verifier_error": 0.0, "reason": "", "canonical": "3", "problem_id": second},
    ]
    lines = [json.dumps(sample) for sample in samples]
    path = run.paths.validations / "2.jsonl"
    path.write_bytes("\n".join([*lines[:3], "é"]).encode()[:-1])  # verl has written half a character
    run.collect()
    recorded = folder.evaluations / "step-000002.json"
    assert not recorded.exists(), "verl is still writing"
    path.write_text("\n".join(lines) + "\n")
    run.collect()
    evaluation = json.loads(recorded.read_text())
    results = {problem["problem_id"]: problem for problem in evaluation["problems"]}
    assert [results[first][name] for name in ("samples", "correct", "errors", "distinct")] == [2, 1, 0, 1]
    assert [results[second][name] for name in ("samples", "correct", "errors")] == [1, 1, 1]
    assert evaluation["settings"]["backend"] == "verl"


def test_a_validation_sample_that_was_cut_off_while_thinking_has_no_vote() -> None:
    changes = ["engine=verl", "model.path=countdown", "task.answer_style=any", "evaluation.samples_in_training=2"]
    recipe = load_recipe("smollm2_word_problems_cpu", changes)
    task = make_task(recipe)
    problem = task.heldout_problems()[0]
    wrong = {"score": 0.0, "verifier_error": 0.0, "reason": "no", "canonical": "", "problem_id": problem["problem_id"]}
    samples = [
        wrong | {"input": "user\n1 + 1?\nassistant\n<think>\n", "output": r"Maybe \boxed{-7}? Wait"},
        wrong | {"input": "user\n1 + 1?\nassistant\n<think>\n", "output": r"Hm.</think> \boxed{-7}"},
    ]
    [result] = validation(recipe, task, [problem], samples).problems
    assert (result.wrong_votes, result.no_answer) == ([1], 1)


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
from progrpo.verl.run import VerlRun

class NoProgress:
    def stage(self, *args): ...
    def advance(self, *args, **values): ...

folder = RunFolder(Path(sys.argv[1]))
recipe = folder.recipe()
try:
    VerlRun(recipe, folder, make_task(recipe), NoProgress(), 0).run([sys.executable, "-c", sys.argv[2]])
except Interrupted as stop:
    print(stop)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a parent's death to its children")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_started_processes_end_with_the_run(number: signal.Signals, folder: RunFolder, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, str(folder.path), DRIVER]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().endswith(" "))
    driver, child = map(int, (tmp_path / "pids").read_text().split())
    run.send_signal(number)
    output, _ = run.communicate(timeout=60)
    if number == signal.SIGKILL:
        # Nothing is left to end what Ray started: Ray's own processes watch their driver.
        wait_for(lambda: not is_alive(driver))
        os.kill(child, signal.SIGKILL)
        return
    assert output == f"Stopped by {number.name} after step 0\n"
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
        assert time.monotonic() < end, f"the condition did not hold within {seconds} seconds"
        time.sleep(0.05)
