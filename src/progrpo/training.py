"""Running a recipe: recipe -> task, model, trainer -> run folder."""

import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
import transformers
from accelerate import PartialState
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from progrpo.config import (
    ChoiceSection,
    CodeSection,
    CountdownSection,
    JsonlSection,
    MathSection,
    ReasoningGymSection,
    Recipe,
)
from progrpo.environment import describe
from progrpo.errors import ConfigError
from progrpo.evaluation.backends import Sampling
from progrpo.evaluation.backends.transformers import TransformersBackend
from progrpo.evaluation.evaluate import Evaluation, evaluate, evaluate_into
from progrpo.files import write_file, write_json
from progrpo.integrations.trl import ProGRPOConfig, ProGRPOTrainer, Rollout
from progrpo.integrations.vllm import check_vllm, reseed
from progrpo.models import load_model, model_digest
from progrpo.rewards import Reward, task_reward
from progrpo.run_folder import FINAL, RunFolder
from progrpo.tasks import ChoiceTask, CodeTask, Countdown, JsonlTask, MathTask, ReasoningGymTask, Task
from progrpo.tasks.templates import prompt_text, response_text


class Progress(Protocol):
    """What a run tells whoever watches it."""

    def stage(self, name: str, total: int, completed: int = 0) -> None:
        """A stage of the run begins: ``train``, ``evaluate``."""
        ...

    def advance(self, amount: int = 1, **values: float) -> None:
        """So much more of the stage is done; the values are the newest metrics."""
        ...


class Interrupted(Exception):
    """The run was asked to stop, and left a checkpoint."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}")
        self.signal_number = signal_number
        self.step = step


def make_task(recipe: Recipe) -> Task:
    """The recipe's task. Problems that are made, not read, depend on the recipe's seed where they are trained on."""
    section = recipe.task
    settings = {name: getattr(section, name) for name in type(section).model_fields if name != "name"}
    match section:
        case CountdownSection():
            return Countdown(**settings, seed=recipe.seed)
        case ReasoningGymSection():
            return ReasoningGymTask(**settings, seed=recipe.seed)
        case MathSection():
            return MathTask(**settings)
        case CodeSection():
            return CodeTask(**settings)
        case ChoiceSection():
            return ChoiceTask(**settings)
        case JsonlSection():
            return JsonlTask(**settings)


def response_budget(recipe: Recipe, task: Task) -> int:
    """How many tokens a response may have: the recipe's word, or else the task's."""
    return recipe.training.max_response_tokens or task.max_response_tokens


def trl_config(recipe: Recipe, task: Task, output_dir: Path) -> ProGRPOConfig:
    """The recipe in TRL's terms.

    Raises:
        ConfigError: settings that TRL refuses, or a ``[trl]`` or ``[methods]`` key that it does not have.
    """
    training = recipe.training
    bf16 = recipe.model.dtype == "bfloat16"
    settings: dict[str, Any] = {
        "output_dir": str(output_dir),
        "max_steps": training.steps,
        "num_generations": training.group_size,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_schedule,
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "temperature": training.temperature,
        "max_completion_length": response_budget(recipe, task),
        "epsilon": training.clip_low,
        "epsilon_high": training.clip_high,
        "loss_type": "dapo",  # token mean over the global batch
        "beta": 0.0,
        # TRL's defaults, bfloat16 and recomputation, cost a CPU more than they save.
        "bf16": bf16,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "logging_first_step": True,
        "save_strategy": "steps",
        "save_steps": training.checkpoint_every,
        "report_to": "none",
        "run_name": recipe.run_name,
        "disable_tqdm": True,
        "seed": recipe.seed,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    # Of this launch: on a CPU, accelerate must be told before anything else asks for its state.
    settings |= _batch_settings(recipe, PartialState(cpu=settings["use_cpu"]).num_processes)
    for table in (recipe.method_settings(), recipe.trl):
        unknown = [name for name in table if name not in ProGRPOConfig.__dataclass_fields__]
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is not a field of ProGRPOConfig (GRPOConfig's, and alpha and its like).")
        settings |= table
    try:
        return ProGRPOConfig(**settings)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the settings of recipe {recipe.name!r} don't go together: {error}") from error


def _batch_settings(recipe: Recipe, processes: int) -> dict[str, int]:
    """One rollout of prompts x group responses is one optimiser step, in micro-batches."""
    training = recipe.training
    responses = training.prompts_per_step * training.group_size
    micro_batch = training.micro_batch or responses // processes
    if responses % (micro_batch * processes):
        raise ConfigError(
            f"training.prompts_per_step * training.group_size is {responses}, which {processes} process(es) can't "
            f"take in micro-batches of {micro_batch}; choose training.micro_batch to divide {responses // processes}."
        )
    return {
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": responses // (micro_batch * processes),
    }


class RecipeTrainer(ProGRPOTrainer):
    """ProGRPOTrainer whose checkpoints are whole or not there."""

    keep_checkpoints = 2
    _staging: Path | None = None

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        final = Path(self.args.output_dir)
        self._staging = final / ".saving.tmp"
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self._publish(self._staging / f"checkpoint-{self.state.global_step}", final)
        finally:
            self._staging = None

    def _publish(self, written: Path, final: Path) -> None:
        target = final / written.name
        if target.exists():
            shutil.rmtree(target)
        written.rename(target)
        shutil.rmtree(written.parent)
        rotate_checkpoints(output_dir=str(final), save_total_limit=self.keep_checkpoints)


def train(
    recipe: Recipe,
    folder: RunFolder,
    progress: Progress,
    *,
    resume: bool = False,
) -> Evaluation:
    """Train as the recipe says, from the start or from the folder's newest checkpoint, and evaluate at the end.

    Everything that happens is written to the folder as it happens. A run that is resumed draws the same random
    numbers, and so follows the same curve, as one that was never stopped.

    Raises:
        ConfigError: the recipe does not work out, or the folder holds a run already.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was left.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    start = _open_folder(recipe, folder, resume)
    task = make_task(recipe)
    config = trl_config(recipe, task, folder.checkpoints)
    if config.use_vllm:
        check_vllm(config, PartialState().num_processes, progress)
    model, tokenizer = load_model(recipe.model.path, recipe.model.dtype)
    reward = task_reward(task, recipe.training.max_verifier_errors)
    recorder = _Recorder(recipe, folder, task, reward, progress)
    trainer = RecipeTrainer(
        model,
        reward,
        config,
        train_dataset=Dataset.from_list(task.train_problems()),
        processing_class=tokenizer,
        canonical_form=reward.canonical_form,
        on_rollout=recorder.keep_rollout,
        callbacks=[recorder],
    )
    if config.use_vllm and config.vllm_mode == "colocate":
        reseed(config, trainer.accelerator.process_index)
    trainer.keep_checkpoints = recipe.training.keep_checkpoints
    trainer.remove_callback(transformers.PrinterCallback)
    recorder.trainer = trainer
    folder.start(recipe, describe(recipe.seed))
    if start < recipe.training.steps:
        progress.stage("train", recipe.training.steps, start)
        with _catch_signals(recorder):
            trainer.train(resume_from_checkpoint=str(folder.last_checkpoint()) if start else None)
        if recorder.stopped_by and trainer.state.global_step < recipe.training.steps:
            raise Interrupted(recorder.stopped_by, trainer.state.global_step)
        model = trainer.accelerator.unwrap_model(trainer.model)
    else:
        model, _ = load_model(str(folder.last_checkpoint()), recipe.model.dtype)
    evaluation = finish(recipe, folder, task, model, tokenizer, progress)
    trainer.state.global_step = recipe.training.steps
    recorder.report(evaluation)
    return evaluation


def finish(recipe: Recipe, folder: RunFolder, task: Task, model: Any, tokenizer: Any, progress: Progress) -> Evaluation:
    """The final evaluation, written to the folder with its samples; one that was interrupted goes on."""
    digest = model_digest(str(folder.last_checkpoint()))
    backend = TransformersBackend(model, tokenizer, batch=recipe.evaluation.batch, model_digest=digest)
    problems, section = task.heldout_problems(), recipe.evaluation
    progress.stage("evaluate", len(problems) * section.samples)
    return evaluate_into(
        folder.evaluations,
        FINAL,
        backend,
        task,
        sampling(recipe, task),
        n=section.samples,
        model=recipe.run_name,
        max_error_share=recipe.training.max_verifier_errors,
        on_progress=progress.advance,
    )


def sampling(recipe: Recipe, task: Task) -> Sampling:
    """How the recipe's evaluations sample."""
    return Sampling(response_budget(recipe, task), recipe.evaluation.temperature, seed=recipe.seed)


def _open_folder(recipe: Recipe, folder: RunFolder, resume: bool) -> int:
    """The step to start from; refuses a folder that already holds a run, or one of another recipe."""
    if not folder.recipe_file.exists():
        return 0
    if not resume:
        raise ConfigError(
            f"{str(folder.path)!r} already holds a run; continue it with --resume, or choose another folder with --out."
        )
    if folder.recipe() != recipe:
        raise ConfigError(f"{str(folder.path)!r} holds a run of another recipe; resume it as it is, without overrides.")
    step = folder.rewind()
    if step < recipe.training.steps:
        shutil.rmtree(folder.final_samples, ignore_errors=True)
    return step


@contextmanager
def _catch_signals(recorder: "_Recorder") -> Iterator[None]:
    """The first SIGINT or SIGTERM asks for a checkpoint and an end after the step; a second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask_to_stop(number: int, frame: Any) -> None:
        recorder.stopped_by = number
        for one in previous:
            signal.signal(one, signal.default_int_handler if one == signal.SIGINT else signal.SIG_DFL)

    previous = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Recorder(TrainerCallback):
    """Writes metrics, rollouts and evaluations to the run folder as training goes on."""

    def __init__(self, recipe: Recipe, folder: RunFolder, task: Task, reward: Reward, progress: Progress) -> None:
        self.recipe, self.folder, self.task, self.reward, self.progress = recipe, folder, task, reward, progress
        self.trainer: RecipeTrainer
        self.stopped_by = 0
        self._started = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.monotonic()
        if state.global_step == 0:
            self._evaluate(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stopped_by:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        if "loss" not in logs or not state.is_world_process_zero:
            return  # the closing summary of a training is not a step
        finite = {name: value for name, value in logs.items() if value is not None and math.isfinite(value)}
        seconds = round(time.monotonic() - self._started, 3)
        self.folder.append_metrics({"step": state.global_step, "seconds": seconds} | finite)
        self.progress.advance(1, reward=logs["reward"], entropy=logs["entropy"])
        every = self.recipe.evaluation.every
        if every and state.global_step % every == 0 and state.global_step < self.recipe.training.steps:
            self._evaluate(state.global_step)

    def keep_rollout(self, rollout: Rollout) -> None:
        step = self.trainer.state.global_step + 1
        if step % self.recipe.training.rollouts_every == 0 or step == 1:
            rank = self.trainer.accelerator.process_index
            with write_file(self.folder.rollouts / f"step-{step:06d}-rank{rank}.parquet") as beside:
                rollout_frame(rollout, step, self.reward).to_parquet(beside, index=False)

    def _evaluate(self, step: int) -> None:
        section = self.recipe.evaluation
        if not section.every or not self.trainer.accelerator.is_main_process:
            return
        problems = self.task.heldout_problems()[: section.problems_in_training]
        self.progress.stage("evaluate", len(problems) * section.samples_in_training)
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        evaluation = evaluate(
            TransformersBackend(model, self.trainer.processing_class, batch=section.batch),
            self.task,
            sampling(self.recipe, self.task),
            n=section.samples_in_training,
            problems=problems,
            max_error_share=self.recipe.training.max_verifier_errors,
            on_progress=self.progress.advance,
        )
        self.progress.stage("train", self.recipe.training.steps, step)
        write_json(self.folder.evaluations / f"step-{step:06d}.json", evaluation.to_json())
        self.report(evaluation)

    def report(self, evaluation: Evaluation) -> None:
        """To wherever the recipe's ``trl.report_to`` sends training metrics: ``eval/pass@1`` and so on."""
        if self.trainer.accelerator.is_main_process:
            logs = {f"eval_{name}": value for name, value in evaluation.summary().items()}
            handler, state = self.trainer.callback_handler, self.trainer.state
            handler.on_log(self.trainer.args, state, self.trainer.control, logs)


def rollout_frame(rollout: Rollout, step: int, reward: Reward) -> pd.DataFrame:
    """A rollout as a table, one row a response; ``docs/run-folder.md`` describes the columns."""
    verdicts = [reward.verdict(row, text) for row, text in zip(rollout.rows, rollout.completions, strict=True)]
    correction_B = rollout.advantages_B - rollout.grpo_advantages_B
    logps = rollout.logps_BT.masked_fill(~rollout.mask_BT, torch.nan).tolist()
    return pd.DataFrame(
        {
            "step": step,
            "group": rollout.groups_B.tolist(),
            "problem_id": [row.get("problem_id") for row in rollout.rows],
            "prompt": [prompt_text(row["prompt"]) for row in rollout.rows],
            "text": [response_text(completion) for completion in rollout.completions],
            "status": [verdict.status for verdict in verdicts],
            "reason": [verdict.reason for verdict in verdicts],
            "canonical": rollout.canonical,
            "token_ids": rollout.token_ids,
            "logps": [row[: len(ids)] for row, ids in zip(logps, rollout.token_ids, strict=True)],
            "reward": rollout.rewards_B.tolist(),
            "prompt_confidence": rollout.prompt_confidence_B.tolist(),
            "answer_confidence": rollout.answer_confidence_B.tolist(),
            "grpo_advantage": rollout.grpo_advantages_B.tolist(),
            "correction": correction_B.tolist(),
            "advantage": rollout.advantages_B.tolist(),
        }
    )
