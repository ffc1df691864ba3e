"""Runs a recipe with TRL: how a run starts, stops and is resumed."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from pickle import UnpicklingError
from traceback import walk_tb
from typing import Any

import transformers
from accelerate import PartialState
from datasets import Dataset
from pyarrow import parquet
from torch.distributed.checkpoint.api import CheckpointException

from progrpo.common.environment import describe
from progrpo.common.errors import ConfigError, Interrupted, RunError
from progrpo.common.files import storage_fault
from progrpo.common.processes import explain_lost_process, first_decides
from progrpo.common.progress import Progress
from progrpo.common.signals import stopping
from progrpo.evaluation.results import Evaluation
from progrpo.recipes.build import make_task, training_problems
from progrpo.recipes.schema import Recipe
from progrpo.runs.checkpoints import check_model
from progrpo.runs.evaluation import finish
from progrpo.runs.folder import RunFolder
from progrpo.tasks import Task
from progrpo.tasks.rewards import Reward, task_reward
from progrpo.trl.checkpoints import WholeCheckpoints, check_resumable, load_start
from progrpo.trl.generation import SeededResponses
from progrpo.trl.guard import FiniteGuard, NonFiniteError
from progrpo.trl.recorder import Recorder, StepMetrics, whole_model
from progrpo.trl.settings import check_fields, join_processes, lora_config, trl_config
from progrpo.trl.trainer import ProGRPOConfig, ProGRPOTrainer
from progrpo.trl.vllm import check_vllm, reseed
from progrpo.verify import Verdict


class RecipeTrainer(FiniteGuard, WholeCheckpoints, StepMetrics, SeededResponses, ProGRPOTrainer):
    """The trainer of a recipe: ProGRPOTrainer with four additions, each in the module of its subject."""


def train(recipe: Recipe, folder: RunFolder, progress: Progress, *, resume: bool = False) -> Evaluation:
    """Train as the recipe says, from the start or from the folder's newest good checkpoint, and evaluate at the end.

    Everything that happens is written to the folder as it happens. A run that is resumed draws the same random numbers
    as one that was never stopped, and so follows the same curve. If there are several processes, as ``accelerate
    launch`` starts them, each of them calls this: ``docs/distributed.md``. ``docs/survive.md`` describes each fault.

    Raises:
        ConfigError: the recipe can't be trained, or the folder holds a run already, is in use, can't be written, or
            has no good checkpoint.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was written.
        RunError: a file could not be stored, a server could not be reached, a loss or gradient was not finite, a file
            of the checkpoint is not safe to load, or another process of the run has ended.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    check_fields(recipe)
    with folder.locked(), _explain_faults(folder):
        join_processes(recipe)
        with explain_lost_process(folder.path):
            return _train(recipe, folder, progress, resume)


def _train(recipe: Recipe, folder: RunFolder, progress: Progress, resume: bool) -> Evaluation:
    steps = recipe.training.steps
    start = first_decides(lambda: folder.open(recipe, resume=resume, check=check_resumable))
    checkpoint = folder.last_checkpoint() if start else None
    task = make_task(recipe)
    config = trl_config(recipe, task, folder.checkpoints)
    check_model(recipe.model.path)
    if config.use_vllm:
        first_decides(lambda: check_vllm(config, PartialState().num_processes, progress))
    model, tokenizer = load_start(recipe, checkpoint)
    reward = task_reward(task, recipe.training.max_verifier_errors)
    environment = describe(recipe.seed)
    if folder.environment().get("packages") == environment["packages"]:  # other versions may give other verdicts
        _recall_verdicts(folder, reward)
    recorder = Recorder(recipe, folder, task, reward, progress)
    dataset = _dataset(recipe, task, tokenizer, config)
    with _explain_refusals(recipe):
        trainer = RecipeTrainer(
            model,
            reward,
            config,
            train_dataset=dataset,
            processing_class=tokenizer,
            canonical_form=reward.canonical_form,
            on_rollout=recorder.keep_rollout,
            callbacks=[recorder],
            peft_config=lora_config(recipe),
        )
    if checkpoint and recipe.model.lora:
        trainer.model.load_adapter(str(checkpoint), trainer.model.active_adapters[0], is_trainable=True)
    if config.use_vllm and config.vllm_mode == "colocate":
        reseed(config, trainer.accelerator.process_index)
    trainer.keep_checkpoints = recipe.training.keep_checkpoints
    trainer.seeded_responses = recipe.training.seeded_responses
    trainer.remove_callback(transformers.PrinterCallback)
    recorder.trainer, trainer.on_step = trainer, recorder.record_step
    _set_sharding(trainer)
    if trainer.accelerator.is_main_process:
        folder.start(recipe, environment)
        folder.note("resumed" if resume else "started", step=start)
    if start < steps:
        progress.stage("train", steps, start)
        _take_steps(trainer, recorder, checkpoint)
        trainer.optimizer.state.clear()  # the evaluation needs its memory
        trained: Any = whole_model(trainer)
    else:
        trained = nullcontext(trainer.model.to(trainer.accelerator.device))
    with trained as model:
        evaluation = finish(recipe, folder, task, model, tokenizer, progress)
    trainer.state.global_step = steps
    recorder.report(evaluation)
    folder.note("finished", step=steps)
    return evaluation


def _take_steps(trainer: RecipeTrainer, recorder: Recorder, checkpoint: Path | None) -> None:
    """Train to the last step, from the start or from a checkpoint; the errors are those of :func:`train`."""
    try:
        with stopping(recorder.ask_to_stop):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except NonFiniteError as failure:
        raise RunError(recorder.keep_failure(failure)) from failure
    except UnpicklingError as error:
        raise RunError(
            f"checkpoint {str(checkpoint)!r} has a file that holds more than data, and was not loaded: somebody has "
            "changed it; remove the checkpoint, and --resume goes on from the one before."
        ) from error
    if recorder.stopped_by and trainer.state.global_step < recorder.recipe.training.steps:
        stop = Interrupted(recorder.stopped_by, trainer.state.global_step)
        recorder.folder.note("stopped", step=stop.step, signal=signal.Signals(stop.signal_number).name)
        raise stop


@contextmanager
def _explain_faults(folder: RunFolder) -> Iterator[None]:
    """Turn a fault of the disk or of vLLM's server into a :class:`RunError` that says how to continue, and note it."""
    try:
        yield
    except (Exception, CheckpointException) as error:  # the second is a BaseException
        if reason := storage_fault(error):
            free = shutil.disk_usage(folder.path).free
            what = f"{str(folder.path)!r} can't be written any more: {reason} ({free / 1e6:,.1f} MB free on its disk)"
            remedy = "what was recorded before is kept; make room"
        elif reason := _server_fault(error):
            what, remedy = reason, "start it again"
        else:
            raise
        checkpoint = folder.last_checkpoint()
        start = f"from {checkpoint.name}" if checkpoint else "from the start, as no checkpoint had been written,"
        with suppress(OSError):
            folder.note("fault", reason=reason)
        raise RunError(f"{what}; {remedy}, and continue {start} with: progrpo train --resume {folder.path}") from error


def _server_fault(error: BaseException | None) -> str | None:
    """What TRL's vLLM client, or its library requests, says about a server that is gone; None for other errors."""
    while error is not None:
        if type(error).__module__.partition(".")[0] == "requests" or str(error).startswith("The vLLM server"):
            return f"the server that TRL samples from can't be reached: {str(error).rstrip('.')}"
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def _explain_refusals(recipe: Recipe) -> Iterator[None]:
    """Report to the user what the libraries refuse when the trainer is made. An error that this package raises is a
    bug, and keeps its traceback."""
    try:
        yield
    except ConfigError:
        raise
    except (ImportError, OSError, TypeError, ValueError) as error:
        *_, (frame, _) = walk_tb(error.__traceback__)
        if frame.f_globals["__name__"].partition(".")[0] == "progrpo":
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"recipe {recipe.name!r} can't be trained with its settings: {reason}.") from error


def _dataset(recipe: Recipe, task: Task, tokenizer: Any, config: ProGRPOConfig) -> Dataset:
    """The problems as TRL takes them. TRL drops a rollout that is not full, and so might make no step."""
    problems = training_problems(recipe, task, tokenizer)
    prompts = config.generation_batch_size // config.num_generations
    if len(problems) < prompts:
        raise ConfigError(
            f"a rollout takes {prompts} different prompts (training.prompts_per_step), and there are only "
            f"{len(problems)} problems to train on; lower it, or give more problems."
        )
    return Dataset.from_list(problems)


def _recall_verdicts(folder: RunFolder, reward: Reward) -> None:
    """Read the verdicts of steps that are repeated, as their responses will be the same. Verdicts hold only for the
    same golds, so rollouts of older versions, without digests of their problems, are left out."""
    columns = ["problem_digest", "text", "status", "reason", "canonical"]
    for path in folder.recorded_rollouts():
        with suppress(OSError, ValueError):  # a damaged or older file costs only its verdicts
            for row in parquet.read_table(path, columns=columns).to_pylist():
                verdict = Verdict(row["status"], row["reason"], row["canonical"])
                reward.recall(row["problem_digest"], row["text"], verdict)


def _set_sharding(trainer: RecipeTrainer) -> None:
    """Refuse kinds of FSDP that don't work here, and have transformers save whole weights."""
    is_wanted = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if is_wanted and not trainer.is_fsdp_enabled:
        raise ConfigError(
            "accelerate's configuration asks for FSDP, which accelerate does not do on a CPU: every process would "
            "train a whole model; launch with --multi_gpu (DDP) there."
        )
    if trainer.is_fsdp_enabled:
        plugin = trainer.accelerator.state.fsdp_plugin
        if plugin.fsdp_version != 2:
            raise ConfigError("accelerate's configuration asks for FSDP 1; set fsdp_version: 2 in its fsdp_config.")
        plugin.set_state_dict_type("FULL_STATE_DICT")
