"""Runs a recipe with verl: verl and Ray run in a process of their own, and this process follows them.

It copies their metrics, validation samples and models from ``RUN/verl`` into the run folder, in the form in which TRL's
runs are stored, and evaluates the model at the end.
"""

import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import transformers

from progrpo.common.environment import describe
from progrpo.common.errors import Interrupted, RunError
from progrpo.common.files import write_json
from progrpo.common.progress import Progress
from progrpo.common.signals import end_with_parent, stopping
from progrpo.evaluation.evaluate import summarize
from progrpo.evaluation.results import Evaluation
from progrpo.evaluation.store import Judged
from progrpo.recipes.build import make_task, sampling
from progrpo.recipes.schema import Recipe
from progrpo.runs.evaluation import finish
from progrpo.runs.folder import RunFolder
from progrpo.sampling.models import best_device, load_model, load_tokenizer
from progrpo.tasks import Problem, Task
from progrpo.tasks.rewards import ErrorWatch
from progrpo.verify import Verdict
from progrpo.verify.thinking import begin_thinking, ends_in_thinking
from progrpo.verl.check import check_settings
from progrpo.verl.checkpoints import check_tracked, mend, optimizer_step, publish, remove_old, tracked_step
from progrpo.verl.data import validation_problems, write_data
from progrpo.verl.settings import VerlFolder, verl_command, verl_settings

POLL_SECONDS = 0.5
"""The time between two looks at what verl has written."""
STOP_SECONDS = 60.0
"""How long verl and Ray may take to end after they were asked to; then they are killed."""
MARK = "PROGRPO_VERL_RUN"
"""The environment variable that marks the processes of a run: Ray's outlive a driver that was killed."""
LOG_TAIL = 200_000
"""How many bytes of the log's end are searched for the last error."""

_ERROR = re.compile(r"^(?:[\w.]*\.)?\w*(?:Error|Exception|Interrupt|Failed)\b(?:\([\w.]*\))?: \S.*")
_PREFIX = re.compile(r"^(?:\x1b\[[0-9;]*m)*\((?:[^()]|\([^()]*\))*pid=\d+[^)]*\)(?:\x1b\[[0-9;]*m)* ?")
"""Ray writes this before a line of a worker: ``(TaskRunnerV1 pid=123)``, in colour."""

NAMES = {
    "critic/score/mean": "reward",
    "actor/entropy": "entropy",
    "actor/pg_loss": "loss",
    "actor/grad_norm": "grad_norm",
    "actor/lr": "learning_rate",
    "actor/pg_clipfrac": "clip_ratio/region_mean",
    "actor/ppo_kl": "approx_kl",
    "response_length/mean": "completions/mean_length",
    "response_length/min": "completions/min_length",
    "response_length/max": "completions/max_length",
    "timing_s/step": "step_time",
}
"""The run folder's names for verl's metrics. The plugin's metrics have these names already; others keep verl's."""


def train(recipe: Recipe, folder: RunFolder, progress: Progress, *, resume: bool = False) -> Evaluation:
    """Train a recipe with verl, from the start or from verl's newest complete checkpoint, and evaluate the model.

    Raises:
        ConfigError: the recipe is not valid, verl is missing or refuses its settings, or the folder holds a run.
        Interrupted: SIGINT or SIGTERM came; a resume starts from verl's last checkpoint.
        RunError: verl failed; the message has its last error and the path of its log.
        VerifierFailedError: the verifier failed too often.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    command, steps = verl_command(recipe, folder), recipe.training.steps
    check_settings(command)
    checkpoint = folder.checkpoints / f"checkpoint-{steps}"
    with folder.locked():
        if resume and not checkpoint.is_dir():
            mend(recipe, folder)
            publish(recipe, folder)
        start = folder.open(recipe, resume=resume, check=lambda newest: check_tracked(newest, recipe, folder))
        task = make_task(recipe)
        write_data(recipe, task, verl_settings(recipe, folder))
        folder.start(recipe, describe(recipe.seed))
        if start < steps:
            progress.stage("train", steps, start)
            if start:
                command.append("trainer.val_before_train=false")  # that step was validated before
            else:
                shutil.rmtree(VerlFolder(folder).checkpoints, ignore_errors=True)  # they are incomplete
            VerlRun(recipe, folder, task, progress, start).run(command)
        model, tokenizer = load_model(str(checkpoint), recipe.model.dtype, recipe.model.attention)
        return finish(recipe, folder, task, model.to(best_device()), tokenizer, progress)


class VerlRun:
    """One launch of verl: it is started, followed while its results are copied into the run folder, and ended."""

    def __init__(self, recipe: Recipe, folder: RunFolder, task: Task, progress: Progress, start: int) -> None:
        self.recipe, self.folder, self.task, self.progress = recipe, folder, task, progress
        self.paths = VerlFolder(folder)
        self.step = start
        self.stopped_by = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._metrics_read = 0
        self._errors = ErrorWatch(recipe.training.max_verifier_errors)
        self._started = time.monotonic()
        self._validation_problems = validation_problems(recipe, task)

    def run(self, command: list[str]) -> None:
        """Run verl until it ends or a signal stops it; raises as :func:`train` does."""
        self.paths.metrics.unlink(missing_ok=True)
        shutil.rmtree(self.paths.validations, ignore_errors=True)
        with stopping(self._stop), running(command, self.paths.log) as process:
            self._process = process
            while process.poll() is None and not self.stopped_by:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
                self.collect()
        self.collect(ended=True)
        remove_old(self.folder, self.recipe.training.keep_checkpoints)
        steps, code = self.recipe.training.steps, process.returncode
        if self.stopped_by and self.step < steps:
            raise Interrupted(self.stopped_by, self.step)
        if code or not (self.folder.checkpoints / f"checkpoint-{steps}").is_dir():
            reason = (
                f"failed (exit code {code}): {last_error(self.paths.log)}"
                if code
                else f"ended without a checkpoint of step {steps}."
            )
            last = optimizer_step(self.recipe, tracked_step(self.folder) or 0)
            raise RunError(
                f"verl {reason} Its log is {self.paths.log}; progrpo train --resume {self.folder.path} goes on from "
                f"step {last}."
            )

    def _stop(self, number: int, frame: Any) -> None:
        """Handle SIGINT or SIGTERM: the first one asks verl to end, a second one kills it."""
        if self.stopped_by and self._process:
            self._process.kill()
        self.stopped_by = number

    def collect(self, ended: bool = False) -> None:
        """Copy verl's new records to the run folder. If verl has ended, its files are complete."""
        for path in self.paths.validations.glob("*.jsonl"):
            self._collect_validation(path, ended)
        if self.paths.metrics.exists():
            with self.paths.metrics.open("rb") as file:
                file.seek(self._metrics_read)
                lines, newline, _ = file.read().rpartition(b"\n")  # the last line may be unfinished
            self._metrics_read += len(lines) + len(newline)
            for line in map(json.loads, lines.splitlines()):
                self._collect_metrics(optimizer_step(self.recipe, line["step"]), line["data"])
        with suppress(FileNotFoundError):  # verl already has a newer checkpoint and has removed this one
            publish(self.recipe, self.folder)

    def _collect_metrics(self, step: int, values: dict[str, Any]) -> None:
        if "training/global_step" not in values:
            return  # the validation before training is not a step
        seconds = round(time.monotonic() - self._started, 3)
        # verl's file has null for values that are not finite.
        metrics = {NAMES.get(name, name): value for name, value in values.items() if isinstance(value, int | float)}
        self.folder.append_metrics({"step": step, "seconds": seconds} | metrics)
        self.step = step
        shown = {name: metrics[name] for name in ("reward", "entropy") if name in metrics}
        self.progress.advance(self.recipe.training.updates_per_rollout, **shown)
        responses = self.recipe.training.prompts_per_step * self.recipe.training.group_size
        errors = round(metrics.get("verifier/errors", 0.0) * responses)
        failed, judged = Verdict("error", f"see {self.paths.log}"), Verdict("incorrect")
        self._errors.see([failed] * errors + [judged] * (responses - errors))

    def _collect_validation(self, path: Path, ended: bool) -> None:
        """Store verl's validation samples as an evaluation, except those after the last step: a larger one follows."""
        step, samples_each = optimizer_step(self.recipe, int(path.stem)), self.recipe.evaluation.samples_in_training
        target = self.folder.evaluations / f"step-{step:06d}.json"
        if target.exists() or step >= self.recipe.training.steps:
            return
        samples = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]  # the last line may be unfinished
        if samples and (ended or len(samples) == len(self._validation_problems) * samples_each):
            evaluation = validation(self.recipe, self.task, self._validation_problems, samples)
            write_json(target, evaluation.to_json())


def validation(
    recipe: Recipe, task: Task, problems: Sequence[Problem], samples: Sequence[dict[str, Any]]
) -> Evaluation:
    """The evaluation of samples that verl drew and :func:`progrpo.tasks.rewards.compute_score` judged.

    verl keeps only the text of a sample, so it is tokenised again to count its tokens.
    """
    tokenizer, settings = load_tokenizer(recipe.model.path), sampling(recipe, task)
    judged: dict[str, list[Judged]] = {problem["problem_id"]: [] for problem in problems}
    for sample in samples:
        text = begin_thinking(sample["output"]) if ends_in_thinking(sample.get("input", "")) else sample["output"]
        if sample["verifier_error"]:
            verdict = Verdict("error", sample["reason"])
        elif sample["score"] > 0:
            verdict = Verdict("correct", canonical=sample["canonical"] or None)
        else:
            verdict = Verdict("incorrect", sample["reason"])
        most, tokens = settings.max_new_tokens, len(tokenizer(sample["output"], add_special_tokens=False)["input_ids"])
        sampled = Judged(text, verdict, min(tokens, most), None, None, None, truncated=tokens >= most)
        judged[sample["problem_id"]].append(sampled)
    return summarize("verl", task, settings, recipe.evaluation.samples_in_training, problems, judged)


@contextmanager
def running(command: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command with its output appended to ``log``; no process that it started outlives the block."""
    mark = uuid.uuid4().hex
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {MARK: mark, "PYTHONUNBUFFERED": "1", "HYDRA_FULL_ERROR": "1"},
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
            # Without this, verl would go on after a run that was killed, and write to its folder.
            preexec_fn=end_with_parent,  # noqa: PLW1509 (one system call)
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
            process.wait()
        left = [other for other in psutil.process_iter(["environ"]) if (other.info["environ"] or {}).get(MARK) == mark]
        for other in left:
            with suppress(psutil.NoSuchProcess):
                other.kill()
        psutil.wait_procs(left, timeout=10)


def last_error(log: Path) -> str:
    """The last line of a log that names an error, as a sentence; without one, the last line.

    Ray repeats a worker's error: ``RayTaskError(ValueError)`` wraps the cause, ``ValueError: ...``.
    """
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - LOG_TAIL, 0))
        lines = [_PREFIX.sub("", line).strip() for line in file.read().decode(errors="replace").splitlines()]
    errors = [line for line in lines if _ERROR.match(line)]
    causes = [line for line in errors if "ray::" not in line and "RayTaskError" not in line]
    last = (causes or errors or list(filter(None, lines)) or ["it wrote nothing"])[-1]
    return last if last.endswith(".") else f"{last}."
