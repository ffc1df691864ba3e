"""Checkpoints that are whole or absent, and from which a run continues bit for bit.

A checkpoint is a folder in the format of transformers, except for the optimizer and the rollout::

    model*.safetensors, config.json, tokenizer     whole weights, also of a model that is sharded while it trains
    trainer_state.json, rng_state*.pth, scaler.pt  as transformers' Trainer writes and reads them
    optimizer/                                     the optimizer's tensors: each process writes its part in safetensors
    optimizer.json, scheduler.json                 the rest of the optimizer, and the learning rate schedule
    rollout_0.pt                                   the rollout of process 0, if it serves further steps

Loading a checkpoint can't run code: transformers and this module read pickles (``.pth``, ``.pt``) with
``weights_only=True``, and nothing reads ``training_args.bin``. The optimizer has a format of its own because torch
reads the ``.metadata`` of its distributed checkpoints, which transformers writes under FSDP, with plain ``pickle``, and
because the formats for DDP and for FSDP differ, so that a run could not go from one to the other.
"""

import hashlib
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Optimizer
from transformers import set_seed
from transformers.utils import ADAPTER_SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from progrpo.common.environment import process_index
from progrpo.common.errors import ConfigError
from progrpo.common.files import read_json, write_json
from progrpo.recipes.schema import Recipe
from progrpo.runs.checkpoints import publish
from progrpo.sampling.models import load_model, load_tokenizer, model_source
from trl import GRPOTrainer

logger = logging.getLogger(__name__)

OPTIMIZER = "optimizer"
SCHEDULER = "scheduler.json"
ROLLOUT = "rollout_{}.pt"


class WholeCheckpoints(GRPOTrainer):
    """Saves checkpoints that are whole or absent, and continues from them, also in the middle of a rollout.

    It has to come before GRPOTrainer among the bases of a trainer, whose weights are loaded before the training begins.
    """

    keep_checkpoints = 2
    _staging: Path | None = None

    # The order of the problems

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        self._sampler = super()._get_train_sampler(*args, **kwargs)
        return self._sampler

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """The number of finished passes through the problems, and of finished batches in the current pass."""
        passes, batches = super()._init_training_state(*args, **kwargs)
        for _ in range(passes):
            next(iter(self._sampler))  # each pass draws an order of its own, as it did in the run before
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
            if self.args.should_save:  # half a checkpoint would only take the space that the next attempt needs
                shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:  # its engine writes unrestricted pickles, which would never be loaded
            return
        save_optimizer(Path(output_dir), self.model_wrapped, self.optimizer)
        if self.args.should_save:
            write_json(Path(output_dir) / SCHEDULER, self.lr_scheduler.state_dict())

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self._step % self._rollout_length:  # further steps use the same responses
            save_rollout(Path(output_dir), self.args.process_index, self._buffered_inputs)

    # Loading

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Do nothing: the weights are loaded already."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(Path(checkpoint), self.model_wrapped, self.optimizer)
            self.lr_scheduler.load_state_dict(read_json(Path(checkpoint) / SCHEDULER))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        self._load_rollout(Path(checkpoint))
        saved_by, process = count_processes(Path(checkpoint)), self.args.process_index
        if saved_by == self.args.world_size:
            super()._load_rng_state(checkpoint)
            return
        colocated = self.use_vllm and self.vllm_mode == "colocate"
        sharing = self.args.vllm_tensor_parallel_size if colocated else 1  # processes of one vLLM engine draw alike
        seed_anew(self.args.seed, self.state.global_step, process // sharing)
        if process == 0:
            before = f"{saved_by} process{'' if saved_by == 1 else 'es'}"
            responses = "so are the responses" if self.seeded_responses else "the responses differ from here on"
            logger.warning(
                f"The checkpoint was written by {before} and the run continues with {self.args.world_size}: the "
                f"weights, the optimizer and the problems are the same, and {responses}."
            )

    def _load_rollout(self, checkpoint: Path) -> None:
        """Continue in the middle of a rollout, if the checkpoint was written there."""
        accumulation = self.args.gradient_accumulation_steps
        self._step = self.state.global_step * accumulation
        if self._step % self._rollout_length:
            updates = self.args.steps_per_generation // accumulation
            batches = load_rollout(checkpoint, self.args.process_index, self.args.world_size, updates, accumulation)
            self._buffered_inputs = send_to_device(batches, self.accelerator.device)

    @property
    def _rollout_length(self) -> int:
        """Micro-batches from one rollout to the next."""
        return int(self.args.steps_per_generation * self.num_iterations)


def check_resumable(checkpoint: Path) -> None:
    """Raise a ConfigError if a checkpoint's weights or optimizer are missing, or in files that are not loaded."""
    weights = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, ADAPTER_SAFE_WEIGHTS_NAME)
    if not any((checkpoint / name).exists() for name in weights):
        raise ConfigError(f"checkpoint {str(checkpoint)!r} has no weights in safetensors; no others are loaded.")
    if not (checkpoint / f"{OPTIMIZER}.json").exists():
        raise ConfigError(
            f"checkpoint {str(checkpoint)!r} has weights but no {OPTIMIZER}.json: DeepSpeed or progrpo 0.1 wrote "
            f"it, and their pickled state is not loaded; start a new run from its weights with model.path={checkpoint}."
        )


def load_start(recipe: Recipe, checkpoint: Path | None) -> tuple[Any, Any]:
    """The model that a run starts or goes on from, before it is sharded, and the tokenizer of the recipe's model."""
    if checkpoint is None or recipe.model.lora:
        return load_model(recipe.model.path, recipe.model.dtype, recipe.model.attention)
    # In the dtype of the files: FSDP trains a bfloat16 model in float32.
    model, _ = load_model(str(checkpoint), "auto", recipe.model.attention)
    # A vLLM in the same process starts from the files of this name; the checkpoint will be removed.
    model.name_or_path = model.config.name_or_path = model_source(recipe.model.path)
    return model, load_tokenizer(recipe.model.path)


def save_optimizer(checkpoint: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Write an optimizer's state; every process calls it, and writes the part that it holds."""
    state: dict[str, Any] = dict(get_optimizer_state_dict(model, optimizer))
    tensors, rest = _split(state["state"])
    if tensors:
        writer = HuggingFaceStorageWriter(str(checkpoint / OPTIMIZER), save_distributed=True)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # that one process is assumed
            state_dict_saver.save(tensors, storage_writer=writer)
    if process_index() == 0:
        write_json(checkpoint / f"{OPTIMIZER}.json", {"state": rest, "param_groups": state["param_groups"]})


def load_optimizer(checkpoint: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Read what :func:`save_optimizer` wrote; every process calls it, and there may be fewer or more of them."""
    state: dict[str, Any] = dict(get_optimizer_state_dict(model, optimizer))  # zeros of the right shapes, to read into
    tensors, _ = _split(state["state"])
    if tensors:
        reader = HuggingFaceStorageReader(str(checkpoint / OPTIMIZER))
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # that one process is assumed
            state_dict_loader.load(tensors, storage_reader=reader)
    saved = read_json(checkpoint / f"{OPTIMIZER}.json")
    for parameter, values in saved["state"].items():
        state["state"][parameter] |= values
    state["param_groups"] = saved["param_groups"]
    set_optimizer_state_dict(model, optimizer, state)


def _split(state: dict[str, dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Split the states of all parameters into tensors, by ``parameter.name``, and other values, by parameter."""
    tensors: dict[str, Tensor] = {}
    rest: dict[str, dict[str, Any]] = {}
    for parameter, values in state.items():
        tensors |= {f"{parameter}.{name}": value for name, value in values.items() if torch.is_tensor(value)}
        if others := {name: value for name, value in values.items() if not torch.is_tensor(value)}:
            rest[parameter] = others
    return tensors, rest


def count_processes(checkpoint: Path) -> int:
    """How many processes wrote a checkpoint."""
    return len(list(checkpoint.glob("rng_state*.pth")))


def seed_anew(seed: int, step: int, process: int) -> None:
    """Seed the random number generators differently at each step and in each process of the run."""
    digest = hashlib.blake2b(f"{seed} {step} {process}".encode(), digest_size=4).digest()
    set_seed(int.from_bytes(digest))


def save_rollout(checkpoint: Path, process: int, batches: list[dict[str, Any]]) -> None:
    """Write this process's micro-batches of a rollout that serves steps after the checkpoint."""
    torch.save(send_to_device(batches, "cpu"), checkpoint / ROLLOUT.format(process))


def load_rollout(
    checkpoint: Path, process: int, processes: int, updates: int, accumulation: int
) -> list[dict[str, Any]]:
    """This process's micro-batches of the rollout in the middle of which a checkpoint was written.

    The rollout serves ``updates`` optimiser steps, each of which now has ``accumulation`` micro-batches. On another
    number of processes each update has the same responses, divided anew among the processes. A ConfigError is raised
    if the checkpoint does not hold its rollout.
    """
    if not (checkpoint / ROLLOUT.format(0)).exists():
        raise ConfigError(
            f"checkpoint {str(checkpoint)!r} was written in the middle of a rollout and does not hold that rollout, "
            "so no run can go on from it; remove the checkpoint, and --resume goes on from the one before."
        )
    files = [checkpoint / ROLLOUT.format(i) for i in range(count_processes(checkpoint))]
    saved = [torch.load(file, weights_only=True) for file in files]
    if len(saved) == processes:
        return saved[process]
    passes = len(saved[0]) // updates
    parts = []
    for update in range(updates):
        whole = _joined([batch for batches in saved for batch in batches[update * passes : (update + 1) * passes]])
        size = len(whole["completion_ids"]) // (processes * accumulation)
        for i in range(process * accumulation, (process + 1) * accumulation):
            rows = slice(i * size, (i + 1) * size)
            parts.append({name: value[rows] if _has_rows(value) else value for name, value in whole.items()})
    return parts


def _joined(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """One batch of all rows; as in TRL, prompts are padded on the left and responses on the right."""

    def join(name: str) -> Any:
        values = [batch[name] for batch in batches]
        if not _has_rows(values[0]):  # such as the number of tokens of the whole rollout
            return values[0]
        if values[0].dim() == 1:
            return torch.cat(values)
        rows, side = [row for value in values for row in value], "left" if name.startswith("prompt") else "right"
        return pad_sequence(rows, batch_first=True, padding_side=side)

    return {name: join(name) for name in batches[0]}


def _has_rows(value: Any) -> bool:
    return torch.is_tensor(value) and value.dim() > 0
