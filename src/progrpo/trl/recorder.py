"""What a run writes down as it goes on: metrics, rollouts, evaluations, and the batch of a step that failed."""

import math
import time
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback

from progrpo.common.files import write_file, write_json
from progrpo.common.processes import Share, first_decides
from progrpo.common.progress import Progress
from progrpo.evaluation.evaluate import Evaluation, evaluate, open_store
from progrpo.recipes.build import sampling
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

if TYPE_CHECKING:
    from progrpo.trl.recipe_trainer import RecipeTrainer
    from progrpo.trl.trainer import Rollout


class Recorder(TrainerCallback):
    """Writes metrics, rollouts and evaluations to the run folder as training goes on."""

    def __init__(self, recipe: Recipe, folder: RunFolder, task: Task, reward: Reward, progress: Progress) -> None:
        self.recipe, self.folder, self.task, self.reward, self.progress = recipe, folder, task, reward, progress
        self.trainer: RecipeTrainer
        self.stopped_by = 0
        """The signal that asked this process to stop; from the end of a step on, the one that any process got."""
        self._stops = False
        self._rollout: Rollout | None = None
        self._started = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.monotonic()
        step = state.global_step
        # Of a later step: a stop came first.
        made = first_decides((self.folder.evaluations / f"step-{step:06d}.json").exists)
        if self._is_evaluated(step) and not made:
            self._evaluate(step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A signal reaches the processes in the midst of different steps: they stop after the same one. It may also come
        # while this runs; whether the step is the last is then decided by what all have gathered, here and below.
        accelerator = self.trainer.accelerator
        gathered = int(accelerator.gather(torch.tensor([self.stopped_by], device=accelerator.device)).max())
        self._stops = gathered > 0
        if self._stops:
            self.stopped_by = gathered
            control.should_save = control.should_training_stop = True

    def record_step(self, metrics: dict[str, float]) -> None:
        """A step's line of metrics, and its evaluation: after every step, however often TRL logs."""
        state = self.trainer.state
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        if state.is_world_process_zero:
            seconds = round(time.monotonic() - self._started, 3)
            self.folder.append_metrics({"step": state.global_step, "seconds": seconds} | finite)
        # A step on an earlier step's responses has no reward of its own, one that could not be scored has none at all.
        self.progress.advance(1, **{name: finite[name] for name in ("reward", "entropy") if name in finite})
        if self._is_evaluated(state.global_step) and not self._stops:  # the checkpoint comes after this
            self._evaluate(state.global_step)

    def _is_evaluated(self, step: int) -> bool:
        every = self.recipe.evaluation.every
        return bool(every) and step % every == 0 and step < self.recipe.training.steps

    def keep_rollout(self, rollout: "Rollout") -> None:
        """Write the run's first rollout, and the first at or after each multiple of ``training.rollouts_every``."""
        self._rollout = rollout
        step, every = self.trainer.state.global_step + 1, self.recipe.training.rollouts_every
        if is_recorded(step, every, self.trainer.steps_per_rollout):
            file = rollout_file(self.folder.rollouts, step, self.trainer.accelerator.process_index)
            write_rollout(file, rollout_columns(rollout, step, self.reward))

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
            write_rollout(rollout, rollout_columns(self._rollout, step, self.reward))
        told = {
            "step": step,
            "what": failure.what,
            "value": str(failure.value),
            "micro_batches": len(failure.batches),
            "of": self.trainer.args.gradient_accumulation_steps,
            "learning_rate": self.trainer.lr_scheduler.get_last_lr()[0],
            "non_finite_parameters": non_finite(self.trainer.model.named_parameters()),
            "non_finite_gradients": failure.gradients,
        }
        write_json(kept / f"failure-rank{rank}.json", told)
        look = f" and progrpo inspect {rollout} reads its responses" if rollout else ""
        checkpoint = self.folder.last_checkpoint()
        start = f"from {str(checkpoint)!r} (model.path)" if checkpoint else "from the model that this one started from"
        rate = self.recipe.training.learning_rate
        sentence = (
            f"step {step}: {failure}; it has not reached the weights. The step's batch is in {str(kept)!r}: "
            f"failure-rank{failure.process}.json names what is no number{look}. As resuming repeats the step, start a "
            f"new run {start} with other settings, such as training.learning_rate below {rate:g}."
        )
        self.folder.note("failed", step=step, what=failure.what, value=str(failure.value))
        return sentence

    def _evaluate(self, step: int) -> None:
        section = self.recipe.evaluation
        problems = self.task.heldout_problems()[: section.problems_in_training]
        share = Share()
        self.progress.stage("evaluate", len(share.own(problems)) * section.samples_in_training)
        with self.trainer.whole_model() as model:
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
        """To wherever the recipe's ``trl.report_to`` sends training metrics: ``eval/pass@1`` and so on."""
        if self.trainer.accelerator.is_main_process:
            logs = {f"eval_{name}": value for name, value in evaluation.summary().items()}
            handler, state, control = self.trainer.callback_handler, self.trainer.state, self.trainer.control
            is_due = control.should_log  # the handler takes it back, and the step's own log is still to come
            handler.on_log(self.trainer.args, state, control, logs)
            control.should_log = is_due


def rollout_columns(rollout: "Rollout", step: int, reward: Reward) -> dict[str, Any]:
    """The columns of the rollout table: see :mod:`progrpo.runs.rollouts`."""
    verdicts = [reward.verdict(row, text) for row, text in zip(rollout.rows, rollout.completions, strict=True)]
    logps = rollout.logps_BT.masked_fill(~rollout.mask_BT, torch.nan).tolist()
    return {
        "step": step,
        "group": rollout.groups_B.tolist(),
        "problem_id": [row.get("problem_id") for row in rollout.rows],
        "problem_digest": [reward.problem_digest(row) for row in rollout.rows],
        "prompt": [prompt_text(row["prompt"]) for row in rollout.rows],
        "text": [
            reward.response_text(row["prompt"], completion)
            for row, completion in zip(rollout.rows, rollout.completions, strict=True)
        ],
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
