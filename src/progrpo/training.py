"""Running a recipe: recipe -> task, model, trainer -> run folder."""

import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
import torch
import transformers
from accelerate import PartialState
from datasets import Dataset
from safetensors.torch import save_file
from torch.distributed.checkpoint.api import CheckpointException
from transformers import TrainerCallback

from progrpo.checkpoints import check_model
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
from progrpo.errors import ConfigError, RunError
from progrpo.evaluation.backends import Backend, Sampling
from progrpo.evaluation.backends.transformers import TransformersBackend
from progrpo.evaluation.evaluate import Evaluation, evaluate, evaluate_into, open_store
from progrpo.files import storage_fault, write_file, write_json
from progrpo.finite import NonFiniteError, batch_tensors, non_finite
from progrpo.integrations.vllm import check_vllm, reseed
from progrpo.models import load_model, model_digest, weights_digest
from progrpo.planning.launch import check_launch
from progrpo.processes import Share, a_lost_process_is_told, first_decides
from progrpo.rewards import Reward, task_reward
from progrpo.run_folder import FINAL, RunFolder
from progrpo.tasks import ChoiceTask, CodeTask, Countdown, JsonlTask, MathTask, Problem, ReasoningGymTask, Task
from progrpo.tasks.templates import prompt_text, response_text
from progrpo.trainer_state import check_resumable
from progrpo.verify import Verdict

if TYPE_CHECKING:  # TRL is imported where its trainer is used: a run on verl goes without it
    from progrpo.integrations.trl import ProGRPOConfig, Rollout
    from progrpo.recipe_trainer import RecipeTrainer


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
        super().__init__(f"Stopped by {signal.Signals(signal_number).name} after step {step}")
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


def trl_config(recipe: Recipe, task: Task, output_dir: Path) -> "ProGRPOConfig":
    """The recipe in TRL's terms.

    Raises:
        ConfigError: settings that TRL refuses, or a ``[trl]`` or ``[methods]`` key that it does not have.
    """
    from progrpo.integrations.trl import ProGRPOConfig

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
        # Every weight of a dense model has a gradient, and its buffers are constants: DDP need not look.
        "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False,
    }
    processes = join_processes(recipe).num_processes
    check_launch(recipe, processes)
    settings |= batch_settings(recipe, processes)
    for table in (recipe.method_settings(), recipe.trl):
        unknown = [name for name in table if name not in ProGRPOConfig.__dataclass_fields__]
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is not a field of ProGRPOConfig (GRPOConfig's, and alpha and its like).")
        settings |= table
    try:
        config = ProGRPOConfig(**settings)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the settings of recipe {recipe.name!r} don't go together: {error}") from error
    other_ways = ("use_vllm", "use_transformers_continuous_batching", "top_k", "min_p")
    if recipe.training.seeded_responses and (in_use := [name for name in other_ways if getattr(config, name)]):
        raise ConfigError(
            f"training.seeded_responses is for sampling by transformers, with temperature and top_p alone; leave it "
            f"out, or trl.{in_use[0]}."
        )
    return config


def join_processes(recipe: Recipe) -> PartialState:
    """Meet the other processes of this launch, before anything else asks accelerate for its state."""
    # Said here, as Trainer's comes too late.
    timeout = timedelta(seconds=recipe.trl.get("ddp_timeout", 1800))
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timeout)


def batch_settings(recipe: Recipe, processes: int) -> dict[str, int]:
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


def lora_config(recipe: Recipe) -> Any:
    """PEFT's LoraConfig of ``[model.lora]``; None if all weights are trained.

    Raises:
        ConfigError: peft is not installed.
    """
    lora = recipe.model.lora
    if lora is None:
        return None
    if find_spec("peft") is None:
        raise ConfigError("model.lora needs the package peft: pip install 'progrpo[peft]'.")
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
    )


def training_problems(recipe: Recipe, task: Task, tokenizer: Any) -> list[Problem]:
    """The task's training problems without those whose prompts are longer than ``training.max_prompt_tokens``.

    Raises:
        ConfigError: all of them are longer.
    """
    problems, most = list(task.train_problems()), recipe.training.max_prompt_tokens
    if most is None:
        return problems
    kept = [problem for problem in problems if prompt_length(problem["prompt"], tokenizer) <= most]
    if not kept:
        raise ConfigError(
            f"training.max_prompt_tokens is {most}, and the prompts of all {len(problems)} training problems are "
            "longer; raise it, or take another template."
        )
    return kept


def prompt_length(prompt: str | list[dict[str, str]], tokenizer: Any) -> int:
    """How many tokens a prompt has as the trainers give it to the model."""
    if isinstance(prompt, str):
        return len(tokenizer(prompt)["input_ids"])
    return len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"])


def train(
    recipe: Recipe,
    folder: RunFolder,
    progress: Progress,
    *,
    resume: bool = False,
) -> Evaluation:
    """Train as the recipe says, from the start or from the folder's newest good checkpoint, and evaluate at the end.

    Everything that happens is written to the folder as it happens. A run that is resumed draws the same random
    numbers, and so follows the same curve, as one that was never stopped. Several processes, as ``accelerate launch``
    starts them, each call this; ``docs/distributed.md`` says what is the same on them as on one, ``docs/survive.md``
    what each fault comes to.

    Raises:
        ConfigError: the recipe does not work out, the folder holds a run already, another run is in it, it can't be
            written, or none of its checkpoints is whole.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was left.
        RunError: what was to be stored could not be, a server is gone, a loss or gradient was no finite number, or
            another process of the run has ended.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with folder.locked(), _outside_faults_are_told(folder):
        join_processes(recipe)
        with a_lost_process_is_told(folder.path):
            return _train(recipe, folder, progress, resume)


@contextmanager
def _outside_faults_are_told(folder: RunFolder) -> Iterator[None]:
    """What the disk or a server did to the run, in one sentence that says how to go on."""
    try:
        yield
    except (Exception, CheckpointException) as error:  # the second is no Exception
        if reason := storage_fault(error):
            free = shutil.disk_usage(folder.path).free
            what = f"{str(folder.path)!r} can't be written any more: {reason} ({free / 1e6:,.1f} MB free on its disk)"
            then = "what was recorded before is kept; make room"
        elif reason := _server_fault(error):
            what, then = f"the server that TRL samples from can't be reached: {reason}", "start it again"
        else:
            raise
        with suppress(OSError):
            folder.note("fault", reason=reason)
        raise RunError(
            f"{what}; {then}, and continue {_from_where(folder)} with: progrpo train --resume {folder.path}"
        ) from error


def _server_fault(error: BaseException | None) -> str | None:
    """What requests, which TRL's client of a vLLM server uses, or that client says of a server that is gone."""
    while error is not None:
        if type(error).__module__.partition(".")[0] == "requests" or str(error).startswith("The vLLM server"):
            return str(error).rstrip(".")
        error = error.__cause__ or error.__context__
    return None


def _from_where(folder: RunFolder) -> str:
    checkpoint = folder.last_checkpoint()
    return f"from {checkpoint.name}" if checkpoint else "from the start, as no checkpoint had been written,"


def _train(recipe: Recipe, folder: RunFolder, progress: Progress, resume: bool) -> Evaluation:
    from progrpo.recipe_trainer import RecipeTrainer

    is_first = PartialState().is_main_process
    start = first_decides(lambda: open_folder(recipe, folder, resume, check_resumable))
    task = make_task(recipe)
    config = trl_config(recipe, task, folder.checkpoints)
    check_model(recipe.model.path)
    if config.use_vllm:
        first_decides(lambda: check_vllm(config, PartialState().num_processes, progress))
    model, tokenizer = load_model(recipe.model.path, recipe.model.dtype, recipe.model.attention)
    reward = task_reward(task, recipe.training.max_verifier_errors)
    environment = describe(recipe.seed)
    if folder.environment().get("packages") == environment["packages"]:  # other versions may judge otherwise
        _recall(folder, reward)
    recorder = _Recorder(recipe, folder, task, reward, progress)
    trainer = RecipeTrainer(
        model,
        reward,
        config,
        train_dataset=Dataset.from_list(training_problems(recipe, task, tokenizer)),
        processing_class=tokenizer,
        canonical_form=reward.canonical_form,
        on_rollout=recorder.keep_rollout,
        callbacks=[recorder],
        peft_config=lora_config(recipe),
    )
    if config.use_vllm and config.vllm_mode == "colocate":
        reseed(config, trainer.accelerator.process_index)
    trainer.keep_checkpoints = recipe.training.keep_checkpoints
    trainer.seeded_responses = recipe.training.seeded_responses
    trainer.remove_callback(transformers.PrinterCallback)
    recorder.trainer = trainer
    _check_sharding(trainer)
    if is_first:
        folder.start(recipe, environment)
        folder.note("resumed" if resume else "started", step=start)
    if start < recipe.training.steps:
        progress.stage("train", recipe.training.steps, start)
        try:
            with _catch_signals(recorder):
                trainer.train(resume_from_checkpoint=str(folder.last_checkpoint()) if start else None)
        except NonFiniteError as failure:
            raise RunError(recorder.keep_failure(failure)) from failure
        if recorder.stopped_by and trainer.state.global_step < recipe.training.steps:
            stop = Interrupted(recorder.stopped_by, trainer.state.global_step)
            folder.note("stopped", step=stop.step, signal=signal.Signals(stop.signal_number).name)
            raise stop
        trainer.optimizer.state.clear()  # its memory is for the evaluation now
        whole_model: AbstractContextManager[Any] = trainer.whole_model()
    else:
        model, _ = load_model(str(folder.last_checkpoint()), recipe.model.dtype, recipe.model.attention)
        whole_model = nullcontext(model.to(trainer.accelerator.device))
    if is_first:
        for path in folder.recorded_rollouts():
            path.unlink()
    with whole_model as model:
        evaluation = finish(recipe, folder, task, model, tokenizer, progress)
    trainer.state.global_step = recipe.training.steps
    recorder.report(evaluation)
    folder.note("finished", step=recipe.training.steps)
    return evaluation


def _recall(folder: RunFolder, reward: Reward) -> None:
    """Steps after the checkpoint come again with the same responses: their verdicts are on the disk already."""
    columns = ["problem_id", "prompt", "text", "status", "reason", "canonical"]
    for path in folder.recorded_rollouts():
        rows: list[dict[Any, Any]] = []
        with suppress(OSError, ValueError):  # a damaged file costs only its verdicts
            rows = pd.read_parquet(path, columns=columns).to_dict("records")
        for row in rows:
            verdict = Verdict(row["status"], row["reason"], row["canonical"])
            reward.recall(row["problem_id"], row["prompt"], row["text"], verdict)


def finish(recipe: Recipe, folder: RunFolder, task: Task, model: Any, tokenizer: Any, progress: Progress) -> Evaluation:
    """The final evaluation, written to the folder with its samples; one that was interrupted goes on."""
    digest = model_digest(str(folder.last_checkpoint()))
    backend = TransformersBackend(model, tokenizer, batch=recipe.evaluation.batch, model_digest=digest)
    section, share = recipe.evaluation, Share()
    progress.stage("evaluate", len(share.own(task.heldout_problems())) * section.samples)
    _discard_samples_of_others(folder.final_samples, backend, task, sampling(recipe, task))
    return evaluate_into(
        folder.evaluations,
        FINAL,
        backend,
        task,
        sampling(recipe, task),
        n=section.samples,
        model=recipe.run_name,
        share=share,
        max_error_share=recipe.training.max_verifier_errors,
        on_progress=progress.advance,
    )


def _discard_samples_of_others(samples: Path, backend: Backend, task: Task, how: Sampling) -> None:
    """Keep the samples of an evaluation that was interrupted only if they are of these weights. A step that comes again
    after a fault has the same to the last bit, as a rule; on another machine it has not."""

    def look() -> None:
        try:
            open_store(samples, backend, task, how)
        except ConfigError:
            shutil.rmtree(samples)

    first_decides(look)


def sampling(recipe: Recipe, task: Task) -> Sampling:
    """How the recipe's evaluations sample."""
    return Sampling(response_budget(recipe, task), recipe.evaluation.temperature, seed=recipe.seed)


def open_folder(recipe: Recipe, folder: RunFolder, resume: bool, check: Callable[[Path], None]) -> int:
    """The step to start from; refuses a folder that already holds a run, or one of another recipe, and what ``check``
    refuses of its checkpoint."""
    if not folder.recipe_file.exists():
        return 0
    if not resume:
        raise ConfigError(
            f"{str(folder.path)!r} already holds a run; continue it with --resume, or choose another folder with --out."
        )
    if folder.recipe() != recipe:
        raise ConfigError(f"{str(folder.path)!r} holds a run of another recipe; resume it as it is, without overrides.")
    return folder.rewind(check)


def _check_sharding(trainer: "RecipeTrainer") -> None:
    asked = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if asked and not trainer.is_fsdp_enabled:
        raise ConfigError(
            "accelerate's configuration asks for FSDP, which accelerate does not do on a CPU: every process would "
            "train a whole model; launch with --multi_gpu (DDP) there."
        )
    if trainer.is_fsdp_enabled and trainer.accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise ConfigError("accelerate's configuration asks for FSDP 1; set fsdp_version: 2 in its fsdp_config.")


@contextmanager
def _catch_signals(recorder: "_Recorder") -> Iterator[None]:
    """The first SIGINT or SIGTERM asks for a checkpoint and an end after the step; a second one ends at once.

    With several processes a second one changes nothing: a Ctrl-C reaches each of them from the terminal and again from
    the launcher, which ends what is still there after half a minute.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask_to_stop(number: int, frame: Any) -> None:
        recorder.stopped_by = number
        for one in previous if recorder.trainer.accelerator.num_processes == 1 else ():
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
        self._rollout: Rollout | None = None
        self._started = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.monotonic()
        if state.global_step == 0:
            self._evaluate(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A signal reaches the processes in the midst of different steps: they stop after the same one.
        accelerator = self.trainer.accelerator
        self.stopped_by = int(accelerator.gather(torch.tensor([self.stopped_by], device=accelerator.device)).max())
        if self.stopped_by:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        if "loss" not in logs:
            return  # the closing summary of a training is not a step
        if state.is_world_process_zero:
            finite = {name: value for name, value in logs.items() if value is not None and math.isfinite(value)}
            seconds = round(time.monotonic() - self._started, 3)
            self.folder.append_metrics({"step": state.global_step, "seconds": seconds} | finite)
        self.progress.advance(1, reward=logs["reward"], entropy=logs["entropy"])
        every = self.recipe.evaluation.every
        if every and state.global_step % every == 0 and state.global_step < self.recipe.training.steps:
            self._evaluate(state.global_step)

    def keep_rollout(self, rollout: "Rollout") -> None:
        self._rollout = rollout
        step = self.trainer.state.global_step + 1
        if step % self.recipe.training.rollouts_every == 0 or step == 1:
            rank = self.trainer.accelerator.process_index
            with write_file(self.folder.rollouts / f"step-{step:06d}-rank{rank}.parquet") as beside:
                rollout_frame(rollout, step, self.reward).to_parquet(beside, index=False)

    def keep_failure(self, failure: NonFiniteError) -> str:
        """Store the batch that a step failed on; the sentence that says where it is, and what to do."""
        step, rank = self.trainer.state.global_step + 1, self.trainer.accelerator.process_index
        kept = self.folder.failed_step(step)
        kept.mkdir(exist_ok=True)
        with write_file(kept / f"micro-batches-rank{rank}.safetensors") as beside:
            save_file(batch_tensors(failure.batches), beside)
        rollout = None
        if self._rollout is not None and failure.batches:
            rollout = kept / f"rollout-rank{rank}.parquet"
            with write_file(rollout) as beside:
                rollout_frame(self._rollout, step, self.reward).to_parquet(beside, index=False)
        parameters = list(self.trainer.model.named_parameters())
        told = {
            "step": step,
            "what": failure.what,
            "value": str(failure.value),
            "micro_batches": len(failure.batches),
            "of": self.trainer.args.gradient_accumulation_steps,
            "learning_rate": self.trainer.lr_scheduler.get_last_lr()[0],
            "non_finite_parameters": non_finite(iter(parameters)),
            "non_finite_gradients": non_finite((name, parameter.grad) for name, parameter in parameters),
        }
        write_json(kept / f"failure-rank{rank}.json", told)
        look = f" and progrpo inspect {rollout} reads its responses" if rollout else ""
        checkpoint = self.folder.last_checkpoint()
        start = f"from {str(checkpoint)!r} (model.path)" if checkpoint else "from the model that this one started from"
        sentence = (
            f"step {step}: {failure}; it has not reached the weights. The step's batch is in {str(kept)!r}: "
            f"failure-rank{rank}.json names what is no number{look}. As resuming repeats the step, start a new run "
            f"{start} with other settings, such as training.learning_rate below {self.recipe.training.learning_rate:g}."
        )
        self.folder.note("failed", step=step, what=failure.what, value=str(failure.value))
        return sentence

    def _evaluate(self, step: int) -> None:
        section = self.recipe.evaluation
        if not section.every:
            return
        problems = self.task.heldout_problems()[: section.problems_in_training]
        share = Share()
        self.progress.stage("evaluate", len(share.own(problems)) * section.samples_in_training)
        with self.trainer.whole_model() as model:
            backend = TransformersBackend(
                model, self.trainer.processing_class, batch=section.batch, model_digest=weights_digest(model)
            )
            how, samples = sampling(self.recipe, self.task), self.folder.evaluations / f"step-{step:06d}-samples"
            _discard_samples_of_others(samples, backend, self.task, how)
            evaluation = evaluate(
                backend,
                self.task,
                how,
                n=section.samples_in_training,
                problems=problems,
                store=open_store(samples, backend, self.task, how, writer=share.process),
                share=share,
                max_error_share=self.recipe.training.max_verifier_errors,
                on_progress=self.progress.advance,
            )
        self.progress.stage("train", self.recipe.training.steps, step)
        if share.process == 0:
            write_json(self.folder.evaluations / f"step-{step:06d}.json", evaluation.to_json())
        self.report(evaluation)

    def report(self, evaluation: Evaluation) -> None:
        """To wherever the recipe's ``trl.report_to`` sends training metrics: ``eval/pass@1`` and so on."""
        if self.trainer.accelerator.is_main_process:
            logs = {f"eval_{name}": value for name, value in evaluation.summary().items()}
            handler, state = self.trainer.callback_handler, self.trainer.state
            handler.on_log(self.trainer.args, state, self.trainer.control, logs)


def rollout_frame(rollout: "Rollout", step: int, reward: Reward) -> pd.DataFrame:
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
