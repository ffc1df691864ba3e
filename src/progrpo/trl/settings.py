"""A recipe in TRL's terms: ``engine = "trl"``. Its counterpart is :mod:`progrpo.verl.settings`."""

from dataclasses import fields
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState

from progrpo.common.errors import ConfigError
from progrpo.methods import SHARED_SETTINGS
from progrpo.methods.arm import ArmOptions
from progrpo.recipes.build import batch, response_budget
from progrpo.recipes.schema import Recipe
from progrpo.tasks import Task
from progrpo.trl.engine import check_launch
from progrpo.trl.fields import check_reporting

if TYPE_CHECKING:  # TRL takes seconds to import, and a plan does not need it
    from progrpo.trl.trainer import ProGRPOConfig

_SET_BY_THE_RUN = {
    "--out": ("output_dir",),
    "seed": ("seed", "data_seed"),
    "training.steps": ("max_steps", "num_train_epochs"),
    "training.group_size": ("num_generations",),
    "training.micro_batch": ("per_device_train_batch_size", "gradient_accumulation_steps", "auto_find_batch_size"),
    "training.updates_per_rollout": ("steps_per_generation",),
    "training.prompts_per_step": ("generation_batch_size",),
    "training.checkpoint_every": ("save_strategy", "save_steps", "save_only_model"),
    "training.keep_checkpoints": ("save_total_limit",),
    "evaluation.every": ("do_eval", "eval_strategy", "eval_steps", "eval_on_start", "eval_delay"),
    "progrpo train": ("do_train",),
    "progrpo evaluate": ("do_predict", "load_best_model_at_end"),
    "progrpo train --resume RUN": ("resume_from_checkpoint", "ignore_data_skip"),
}
"""Keys and options to use instead of the fields of GRPOConfig that the run folder depends on."""

_FROM_TRAINING = {
    "learning_rate": "learning_rate",
    "lr_scheduler_type": "lr_schedule",
    "warmup_steps": "warmup_steps",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "temperature": "temperature",
    "epsilon": "clip_low",
    "epsilon_high": "clip_high",
}
"""Fields of GRPOConfig and the keys of ``[training]`` that set them."""

_SET_BY_THE_RECIPE = {
    "warmup_ratio": "training.warmup_steps",
    "max_completion_length": "training.max_response_tokens",
    **{field: f"training.{key}" for field, key in _FROM_TRAINING.items()},
    **{option.name: f"methods.NAME.{option.name}" for option in fields(ArmOptions)},
}
"""Fields of GRPOConfig that keys of the recipe set. ``[trl]`` must not set them once more; a method may set them."""


def trl_config(recipe: Recipe, task: Task, output_dir: Path) -> "ProGRPOConfig":
    """The recipe in TRL's terms.

    Raises:
        ConfigError: TRL refuses a setting, or does not have a key of ``[trl]`` or ``[methods]``.
    """
    from progrpo.trl.trainer import ProGRPOConfig

    training = recipe.training
    bf16 = recipe.model.dtype == "bfloat16"
    settings: dict[str, Any] = {
        "output_dir": str(output_dir),
        "max_steps": training.steps,
        "num_generations": training.group_size,
        "max_completion_length": response_budget(recipe, task),
        **{field: getattr(training, key) for field, key in _FROM_TRAINING.items()},
        **SHARED_SETTINGS,
        "beta": 0.0,
        # TRL's defaults, bfloat16 and recomputation, cost more than they save on a CPU.
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
        # Every weight of a dense model has a gradient, and its buffers are constants: DDP need not check.
        "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False,
    }
    processes = join_processes(recipe).num_processes
    check_launch(recipe, processes)
    settings |= batch_settings(recipe, processes)
    refuse_what_the_run_sets(recipe)
    for table in (recipe.method_settings(), recipe.trl):
        unknown = [name for name in table if name not in ProGRPOConfig.__dataclass_fields__]
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is not a field of ProGRPOConfig: see GRPOConfig and ArmOptions.")
        settings |= table
    try:
        config = ProGRPOConfig(**settings)
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise ConfigError(f"the settings of recipe {recipe.name!r} don't go together: {error}") from error
    check_reporting(config.report_to)
    other_ways = ("use_vllm", "use_transformers_continuous_batching", "top_k", "min_p", "generation_kwargs")
    if recipe.training.seeded_responses and (in_use := [name for name in other_ways if getattr(config, name)]):
        raise ConfigError(
            f"training.seeded_responses needs transformers to sample, with temperature and top_p alone; remove it, or "
            f"remove trl.{in_use[0]}."
        )
    return config


def refuse_what_the_run_sets(recipe: Recipe) -> None:
    """Refuse the fields of GRPOConfig that the run folder depends on, or that a key of the recipe sets.

    Raises:
        ConfigError: ``[trl]`` or ``[methods.NAME]`` has one of them.
    """
    by_run = {field: instead for instead, names in _SET_BY_THE_RUN.items() for field in names}
    for where, table, refused in (
        (f"methods.{recipe.method}", recipe.methods.get(recipe.method, {}), by_run),
        ("trl", recipe.trl, by_run | _SET_BY_THE_RECIPE),
    ):
        for name in table:
            if name in refused:
                instead = refused[name].replace("NAME", recipe.method)
                raise ConfigError(f"{where}.{name} is set by the run; use {instead} instead.")


def join_processes(recipe: Recipe) -> PartialState:
    """Join the other processes of this launch, before anything else asks accelerate for its state."""
    # Trainer would set the timeout too late.
    timeout = timedelta(seconds=recipe.trl.get("ddp_timeout", 1800))
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timeout)


def batch_settings(recipe: Recipe, processes: int) -> dict[str, int]:
    """One rollout of prompts x group responses is ``updates_per_rollout`` optimiser steps, each in micro-batches."""
    each, accumulation = batch(recipe, processes)
    return {
        "per_device_train_batch_size": each,
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": accumulation * recipe.training.updates_per_rollout,
    }


def lora_config(recipe: Recipe) -> Any:
    """PEFT's LoraConfig for ``[model.lora]``; None if all weights are trained.

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
