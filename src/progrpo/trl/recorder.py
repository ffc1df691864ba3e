"""The records of a run: metrics, rollouts, evaluations, and the batch of a step that failed."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback
from trl.models import unwrap_model_for_generation

from progrpo.common.files import write_file, write_json
from progrpo.common.processes import Share, first_decides
from progrpo.common.progress import Progress
from progrpo.common.signals import STOPPING
from progrpo.evaluation.evaluate import evaluate, open_store
from progrpo.evaluation.results import Evaluation
from progrpo.recipes.build import sampling, steps_per_rollout
from progrpo.recipes.schema import Recipe
from progrpo.runs.evaluation import discard_samples_of_others
from progrpo.runs.folder import RunFolder
from progrpo.runs.rollouts import is_recorded, rollout_file, write_rollout
from progrpo.sampling.models import weights_digest
from progrpo.sampling.transformers import TransformersBackend
from progrpo.tasks import Task
from progrpo.tasks.rewards import Reward
from progrpo.tasks.templates import prompt_text
from progrpo.trl.guard import NonFiniteError, batch_tensors, non_finite
from progrpo.trl.trainer import Rollout
from trl import GRPOTrainer

if TYPE_CHECKING:
    from progrpo.trl.run import RecipeTrainer


class StepMetrics(GRPOTrainer):
    """Calls ``on_step`` with the metrics of each optimiser step, however often TRL logs, before the step's checkpoint
    is written. They are those that TRL logs with ``logging_steps=1``."""

    on_step: Callable[[dict[str, float]], None] | None = None
    _step_loss: Tensor | None = None
    _seen: dict[str, tuple[list[float], int]]
    """TRL's lists of metrics since its last log, and their lengths at the end of the step before."""

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = super().training_step(*args, **kwargs)
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        return loss

    def _maybe_log_save_evaluate(self, tr_loss: Tensor, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        if self._step_loss is not None:  # at the end of an epoch this is called without a step
            metrics = self._step_metrics(self._step_loss, grad_norm, kwargs.get("learning_rate"))
            self._step_loss = None
            if self.on_step is not None:
                self.on_step(metrics)
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)
        self._seen = {name: (values, len(values)) for name, values in self._metrics["train"].items()}

    def _step_metrics(self, loss: Tensor, grad_norm: Any, learning_rate: float | None) -> dict[str, float]:
        metrics = {"loss": self.accelerator.gather(loss.reshape(1)).mean().item()}
        known = {"grad_norm": grad_norm, "learning_rate": learning_rate, "epoch": self.state.epoch}
        metrics |= {name: float(value) for name, value in known.items() if value is not None}
        for name, values in self._metrics["train"].items():
            before, length = getattr(self, "_seen", {}).get(name, (values, 0))
            # TRL begins new lists when it logs.
            new = [value for value in values[length if before is values else 0 :] if not math.isnan(value)]
            if new:
                metrics[name] = sum(new) / len(new)
        return metrics


class Recorder(TrainerCallback):
    """Writes metrics, rollouts and evaluations to the run folder while the run trains."""

    def __init__(self, recipe: Recipe, folder: RunFolder, task: Task, reward: Reward, progress: Progress) -> None:
        self.recipe, self.folder, self.task, self.reward, self.progress = recipe, folder, task, reward, progress
        self.trainer: RecipeTrainer
        self.stopped_by = 0
        """The signal that asked this process to stop; after the end of a step, the signal that any process received."""
        self._stops = False
        self._rollout: Rollout | None = None
        self._started = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.monotonic()
        step = state.global_step
        # A stop may have come between the step's checkpoint and its evaluation.
        is_evaluated = first_decides((self.folder.evaluations / f"step-{step:06d}.json").exists)
        if self._has_evaluation(step) and not is_evaluated:
            self._evaluate(step)

    def ask_to_stop(self, number: int, frame: Any) -> None:
        """Handle SIGINT or SIGTERM: the first asks for a checkpoint and a stop after the step, a second stops at once.

        With several processes a second signal changes nothing: a Ctrl-C reaches each of them twice, from the terminal
        and from the launcher, which kills those that are left after half a minute.
        """
        self.stopped_by = number
        if self.trainer.accelerator.num_processes == 1:
            for stop_signal in STOPPING:
                default = signal.default_int_handler if stop_signal == signal.SIGINT else signal.SIG_DFL
                signal.signal(stop_signal, default)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A signal reaches the processes during different steps, and they must stop after the same one. It may also come
        # while this method runs, so the value that all processes gathered decides, here and below.
        accelerator = self.trainer.accelerator
        gathered = int(accelerator.gather(torch.tensor([self.stopped_by], device=accelerator.device)).max())
        self._stops = gathered > 0
        if self._stops:
            self.stopped_by = gathered
            control.should_save = control.should_training_stop = True

    def record_step(self, metrics: dict[str, float]) -> None:
        """Write a step's line of metrics, and evaluate if the step has an evaluation."""
        state = self.trainer.state
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        if state.is_world_process_zero:
            seconds = round(time.monotonic() - self._started, 3)
            self.folder.append_metrics({"step": state.global_step, "seconds": seconds} | finite)
        # A step has no reward if it uses an earlier step's responses, or if none of its responses could be scored.
        self.progress.advance(1, **{name: finite[name] for name in ("reward", "entropy") if name in finite})
        if self._has_evaluation(state.global_step) and not self._stops:  # a stop's checkpoint comes first
            self._evaluate(state.global_step)

    def _has_evaluation(self, step: int) -> bool:
        every = self.recipe.evaluation.every
        return bool(every) and step % every == 0 and step < self.recipe.training.steps

    def keep_rollout(self, rollout: Rollout) -> None:
        """Write a rollout that ``training.rollouts_every`` asks for, and remember it in case its step fails."""
        self._rollout = rollout
        step = self.trainer.state.global_step + 1
        if is_recorded(step, self.recipe.training.rollouts_every, steps_per_rollout(self.recipe)):
            file = rollout_file(self.folder.rollouts, step, self.trainer.accelerator.process_index)
            write_rollout(file, rollout_columns(rollout, step, self.reward))

    def keep_failure(self, failure: NonFiniteError) -> str:
        """Write the batch of a step that failed, and return the sentence that says where it is and what to do."""
        step, rank = self.trainer.state.global_step + 1, self.trainer.accelerator.process_index
        folder = self.folder.path / f"failed-step-{step:06d}"
        folder.mkdir(exist_ok=True)
        with write_file(folder / f"micro-batches-rank{rank}.safetensors") as beside:
            save_file(batch_tensors(failure.batches), beside)
        hint = ""
        if self._rollout is not None and failure.batches:
            file = folder / f"rollout-rank{rank}.parquet"
            write_rollout(file, rollout_columns(self._rollout, step, self.reward))
            hint = f" and progrpo inspect {file} reads its responses"
        record = {
            "step": step,
            "what": failure.what,
            "value": str(failure.value),
            "micro_batches": len(failure.batches),
            "of": self.trainer.args.gradient_accumulation_steps,
            "learning_rate": self.trainer.lr_scheduler.get_last_lr()[0],
            "non_finite_parameters": non_finite(self.trainer.model.named_parameters()),
            "non_finite_gradients": failure.gradients,
        }
        write_json(folder / f"failure-rank{rank}.json", record)
        self.folder.note("failed", step=step, what=failure.what, value=str(failure.value))
        checkpoint = self.folder.last_checkpoint()
        start = f"from {str(checkpoint)!r} (model.path)" if checkpoint else "from the model that this one started from"
        return (
            f"step {step}: {failure}; it has not reached the weights. The step's batch is in {str(folder)!r}: "
            f"failure-rank{failure.process}.json names what is not finite{hint}. As resuming repeats the step, start a "
            f"new run {start} with other settings, such as training.learning_rate below "
            f"{self.recipe.training.learning_rate:g}."
        )

    def _evaluate(self, step: int) -> None:
        section, share = self.recipe.evaluation, Share()
        problems = self.task.heldout_problems()[: section.problems_in_training]
        self.progress.stage("evaluate", len(share.own(problems)) * section.samples_in_training)
        with whole_model(self.trainer) as model:
            backend = TransformersBackend(
                model, self.trainer.processing_class, batch=section.batch, model_digest=weights_digest(model)
            )
            how, samples = sampling(self.recipe, self.task), self.folder.evaluations / f"step-{step:06d}-samples"
            discard_samples_of_others(samples, backend, self.task, how)
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
        """Send ``eval/pass@1`` and so on to the services of the recipe's ``trl.report_to``."""
        if self.trainer.accelerator.is_main_process:
            logs = {f"eval_{name}": value for name, value in evaluation.summary().items()}
            handler, state, control = self.trainer.callback_handler, self.trainer.state, self.trainer.control
            is_due = control.should_log  # the handler clears it, and the step's own log is still to come
            handler.on_log(self.trainer.args, state, control, logs)
            control.should_log = is_due


def rollout_columns(rollout: Rollout, step: int, reward: Reward) -> dict[str, Any]:
    """The columns of the rollout table: see :data:`progrpo.runs.rollouts.COLUMNS`."""
    pairs = list(zip(rollout.rows, rollout.completions, strict=True))
    verdicts = [reward.verdict(row, completion) for row, completion in pairs]
    logps = rollout.logps_BT.masked_fill(~rollout.mask_BT, torch.nan).tolist()
    return {
        "step": step,
        "group": rollout.groups_B.tolist(),
        "problem_id": [row.get("problem_id") for row in rollout.rows],
        "problem_digest": [reward.problem_digest(row) for row in rollout.rows],
        "prompt": [prompt_text(row["prompt"]) for row in rollout.rows],
        "text": [reward.response_text(row["prompt"], completion) for row, completion in pairs],
        "status": [verdict.status for verdict in verdicts],
        "reason": [verdict.reason for verdict in verdicts],
        "canonical": rollout.canonical,
        "token_ids": rollout.token_ids,
        "logps": [row[: len(ids)] for row, ids in zip(logps, rollout.token_ids, strict=True)],
        "reward": rollout.rewards_B.tolist(),
        "prompt_confidence": rollout.prompt_confidence_B.tolist(),
        "answer_confidence": rollout.answer_confidence_B.tolist(),
        "grpo_advantage": rollout.grpo_advantages_B.tolist(),
        "correction": (rollout.advantages_B - rollout.grpo_advantages_B).tolist(),
        "advantage": rollout.advantages_B.tolist(),
    }


@contextmanager
def whole_model(trainer: GRPOTrainer) -> Iterator[Any]:
    """The policy with all its weights on every process, which needs that much memory while the block lasts.

    A sharded model's forward passes must run on all processes together; a whole model's need not.
    """
    kwargs = trainer.args.gradient_checkpointing_kwargs
    with unwrap_model_for_generation(
        trainer.model_wrapped, trainer.accelerator, gradient_checkpointing_kwargs=kwargs
    ) as model:
        sharded = []
        for module in model.modules():
            if isinstance(module, FSDPModule):
                # set_reshard_after_forward sets these. accelerate chooses them by module, and torch has no public way
                # to read them.
                state = module._get_fsdp_state()
                infos = [(group, group.post_forward_mesh_info) for group in state._fsdp_param_groups]
                sharded.append((module, state, state._auto_reshard_after_forward, infos))
                module.set_reshard_after_forward(False, recurse=False)
                module.unshard()
        try:
            yield model
        finally:
            for module, state, auto, infos in sharded:
                module.reshard()
                state._auto_reshard_after_forward = auto
                for group, info in infos:
                    group.post_forward_mesh_info = info
