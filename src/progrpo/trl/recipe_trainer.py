"""The trainer of a recipe: ProGRPOTrainer, and how it saves and loads its state."""

import logging
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import is_peft_model
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers.trainer import TRAINING_ARGS_NAME
from trl.models import unwrap_model_for_generation

from progrpo.common.files import write_json, write_text
from progrpo.runs.checkpoints import publish
from progrpo.trl.checkpoints import (
    SCALER,
    SCHEDULER,
    TRAINING_ARGS,
    load_optimizer,
    load_rng_state,
    load_rollout,
    processes_of,
    read_json,
    read_weights,
    save_optimizer,
    save_rng_state,
    save_rollout,
    seed_anew,
)
from progrpo.trl.generation import OwnStreams, own_streams, with_processor
from progrpo.trl.guard import FiniteGuard
from progrpo.trl.trainer import ProGRPOTrainer

logger = logging.getLogger(__name__)


class RecipeTrainer(FiniteGuard, ProGRPOTrainer):
    """ProGRPOTrainer whose checkpoints are whole or not there, and hold no pickles, and which stops before an update
    that is no number.

    The weights are always whole and in transformers' own format, whatever they are split into while they are trained;
    the rest is in :mod:`progrpo.trl.checkpoints`. What is overridden are methods of transformers' Trainer.
    """

    keep_checkpoints = 2
    seeded_responses = False
    """Each response is drawn from a random stream of its own: the same ones on any number of processes."""
    _staging: Path | None = None
    on_step: Callable[[dict[str, float]], None] | None = None
    """Called after each optimiser step with its metrics, before a checkpoint of it is written."""
    _generations, _generated_at = 0, -1
    _step_loss: Tensor | None = None
    _logged: dict[str, tuple[list[float], int]]
    """TRL's lists of metrics since it logged last, and how long they were at the end of the step before."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._logged = {}

    # The order of the problems

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        self._sampler = super()._get_train_sampler(*args, **kwargs)
        return self._sampler

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Where to go on, in passes through the problems and batches of the last one; each pass has its own order."""
        passes, batches = super()._init_training_state(*args, **kwargs)
        for _ in range(passes):
            next(iter(self._sampler))  # draws a pass's order, as the run before has
        return passes, batches

    # Saving

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        final = Path(self.args.output_dir)
        self._staging = final / ".saving.tmp"
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                written = self._staging / f"checkpoint-{self.state.global_step}"
                publish(written, final, self.keep_checkpoints)
            self.accelerator.wait_for_everyone()
        finally:
            if self.args.should_save:  # half of a checkpoint would only take the space that the next try needs
                shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The weights, configuration and tokenizer, for ``from_pretrained``; every process calls it."""
        if self.is_fsdp_enabled:  # gathered to the first process, also where accelerate is told to keep them apart
            self._save(output_dir, state_dict=self.accelerator.get_state_dict(self.model))
        else:
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            (folder / TRAINING_ARGS_NAME).unlink()  # a pickle
            write_text(folder / TRAINING_ARGS, self.args.to_json_string() + "\n")

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:  # its engine keeps them as pickles, which would never be loaded
            return
        save_optimizer(Path(output_dir), self.model_wrapped, self.optimizer)
        if self.args.should_save:
            write_json(Path(output_dir) / SCHEDULER, self.lr_scheduler.state_dict())

    def _save_scaler(self, output_dir: str) -> None:
        scaler = getattr(self.accelerator, "scaler", None)
        if scaler is not None and self.args.should_save:
            write_json(Path(output_dir) / SCALER, scaler.state_dict())

    def _save_rng_state(self, output_dir: str) -> None:
        save_rng_state(Path(output_dir), self.args.process_index)
        if self._step % self._rollout_length:  # further steps are on the same responses
            save_rollout(Path(output_dir), self.args.process_index, self._buffered_inputs)

    # Loading

    def train(self, resume_from_checkpoint: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train, from the start or from a checkpoint."""
        if resume_from_checkpoint is not None and self.is_fsdp_enabled:
            self._load_from_checkpoint(resume_from_checkpoint)  # before it is sharded, as a run's first weights are
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if model is not None:  # Trainer asks once more, for the sharded model
            return
        if is_peft_model(self.model):
            self.model.load_adapter(resume_from_checkpoint, self.model.active_adapters[0], is_trainable=True)
        elif not self.is_fsdp_enabled:
            self.model.load_state_dict(read_weights(Path(resume_from_checkpoint), self.model), strict=False)
        elif self.args.should_save or not self.accelerator.state.fsdp_plugin.cpu_ram_efficient_loading:
            # As they are: FSDP trains a bfloat16 model in float32, which copying into its weights would cut.
            self.model.load_state_dict(
                read_weights(Path(resume_from_checkpoint), self.model), strict=False, assign=True
            )
            self.model.tie_weights()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(Path(checkpoint), self.model_wrapped, self.optimizer)
            self.lr_scheduler.load_state_dict(read_json(Path(checkpoint) / SCHEDULER))

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and (Path(checkpoint) / SCALER).exists():
            self.accelerator.scaler.load_state_dict(read_json(Path(checkpoint) / SCALER))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        self._load_rollout(Path(checkpoint))
        written_by, process = processes_of(Path(checkpoint)), self.args.process_index
        if written_by == self.args.world_size:
            load_rng_state(Path(checkpoint), process)
            return
        engines = self.use_vllm and self.vllm_mode == "colocate"
        shared_by = self.args.vllm_tensor_parallel_size if engines else 1  # they draw alike, as one engine
        seed_anew(self.args.seed, self.state.global_step, process // shared_by)
        if process == 0:
            told = "the same responses" if self.seeded_responses else "other responses from here"
            logger.warning(
                "The checkpoint was written by %d process%s and goes on with %d: the same weights, optimizer and "
                "problems, and %s.",
                *(written_by, "" if written_by == 1 else "es", self.args.world_size, told),
            )

    def _load_rollout(self, checkpoint: Path) -> None:
        """Go on in the midst of a rollout, where the checkpoint was written."""
        accumulation = self.args.gradient_accumulation_steps
        self._step = self.state.global_step * accumulation
        if self._step % self._rollout_length:
            updates = self.args.steps_per_generation // accumulation
            batches = load_rollout(checkpoint, self.args.process_index, self.args.world_size, updates, accumulation)
            device = self.accelerator.device
            self._buffered_inputs = [{name: value.to(device) for name, value in one.items()} for one in batches]

    @property
    def _rollout_length(self) -> int:
        """Micro-batches from one rollout to the next."""
        return int(self.args.steps_per_generation * self.num_iterations)

    @property
    def steps_per_rollout(self) -> int:
        """Optimiser steps from one rollout to the next."""
        return self._rollout_length // int(self.args.gradient_accumulation_steps)

    # Recording

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """A micro-batch's backward pass; its loss is kept for the step's metrics."""
        loss: Tensor = super().training_step(*args, **kwargs)
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        return loss

    def _maybe_log_save_evaluate(self, tr_loss: Tensor, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        if self._step_loss is not None:  # an epoch's end comes here without a step
            metrics = self._step_metrics(grad_norm, kwargs.get("learning_rate"))
            self._step_loss = None
            if self.on_step is not None:
                self.on_step(metrics)
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)
        self._logged = {name: (values, len(values)) for name, values in self._metrics["train"].items()}

    def _step_metrics(self, grad_norm: Any, learning_rate: float | None) -> dict[str, float]:
        """What TRL logs where ``logging_steps`` is 1, of one step, however often it logs."""
        assert self._step_loss is not None, "there was a step"
        metrics = {"loss": self.accelerator.gather(self._step_loss.reshape(1)).mean().item()}
        if grad_norm is not None:
            metrics["grad_norm"] = float(grad_norm)
        if learning_rate is not None:
            metrics["learning_rate"] = learning_rate
        for name, values in self._metrics["train"].items():
            before, length = self._logged.get(name, (values, 0))
            new = [value for value in values[length if before is values else 0 :] if not math.isnan(value)]
            if new:
                metrics[name] = sum(new) / len(new)
        if self.state.epoch is not None:
            metrics["epoch"] = self.state.epoch
        return metrics

    # Sampling

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        if not self.seeded_responses:
            return super()._generate_single_turn(*args, **kwargs)
        prompts = len(kwargs["prompt_ids"] if "prompt_ids" in kwargs else args[0])
        first = self.accelerator.process_index * prompts
        step = self.state.global_step
        self._generations = self._generations + 1 if step == self._generated_at else 0
        self._generated_at = step
        streams = own_streams(range(first, first + prompts), self.args.seed, step, self._generations)
        model = self.accelerator.unwrap_model(self.model)
        model = model.get_base_model() if is_peft_model(model) else model
        with with_processor(model, OwnStreams(streams, self.temperature, self.args.top_p)):
            return super()._generate_single_turn(*args, **kwargs)

    @contextmanager
    def whole_model(self) -> Iterator[Any]:
        """The policy with all its weights on every process, which takes that much memory while the block lasts.

        Without it, a sharded model's forward passes run on all processes together or not at all.
        """
        kwargs = self.args.gradient_checkpointing_kwargs
        with unwrap_model_for_generation(
            self.model_wrapped, self.accelerator, gradient_checkpointing_kwargs=kwargs
        ) as model:
            sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
            states = [module._get_fsdp_state() for module in sharded]
            # What set_reshard_after_forward sets; accelerate chooses it by module, and there is no public way to ask.
            resharded = [
                (state._auto_reshard_after_forward, [g.post_forward_mesh_info for g in state._fsdp_param_groups])
                for state in states
            ]
            for module in sharded:
                module.set_reshard_after_forward(False, recurse=False)
                module.unshard()
            try:
                yield model
            finally:
                for module, state, (auto, infos) in zip(sharded, states, resharded, strict=True):
                    module.reshard()
                    state._auto_reshard_after_forward = auto
                    for group, info in zip(state._fsdp_param_groups, infos, strict=True):
                        group.post_forward_mesh_info = info
