"""A recipe in TRL's terms: ``engine = "trl"``. Its counterpart is :mod:`progrpo.verl.settings`."""

from dataclasses import fields
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState

from progrpo.common.errors import ConfigError
from progrpo.methods.options import ArmOptions
from progrpo.recipes.build import batch, response_budget
from progrpo.recipes.schema import Recipe
from progrpo.tasks import Task
from progrpo.trl.engine import check_launch
from progrpo.trl.fields import check_reporting

if TYPE_CHECKING:  # TRL is imported where its trainer is used: a plan goes without it
    from progrpo.trl.trainer import ProGRPOConfig

_SET_BY_THE_RUN = {
    "output_dir": "--out",
    "max_steps": "training.steps",
    "num_train_epochs": "training.steps",
    "seed": "seed",
    "data_seed": "seed",
    "num_generations": "training.group_size",
    "per_device_train_batch_size": "training.micro_batch",
    "gradient_accumulation_steps": "training.micro_batch",
    "auto_find_batch_size": "training.micro_batch",
    "steps_per_generation": "training.updates_per_rollout",
    "generation_batch_size": "training.prompts_per_step",
    "do_train": "progrpo train",
    "do_eval": "evaluation.every",
    "do_predict": "progrpo evaluate",
    "eval_strategy": "evaluation.every",
    "eval_steps": "evaluation.every",
    "eval_on_start": "evaluation.every",
    "eval_delay": "evaluation.every",
    "save_strategy": "training.checkpoint_every",
    "save_steps": "training.checkpoint_every",
    "save_total_limit": "training.keep_checkpoints",
    "save_only_model": "training.checkpoint_every",
    "load_best_model_at_end": "progrpo evaluate",
    "resume_from_checkpoint": "progrpo train --resume RUN",
    "ignore_data_skip": "progrpo train --resume RUN",
}
"""Fields of GRPOConfig that the run folder rests on, and what to use in their place."""

_SET_BY_THE_RECIPE = {
    "learning_rate": "training.learning_rate",
    "lr_scheduler_type": "training.lr_schedule",
    "warmup_steps": "training.warmup_steps",
    "warmup_ratio": "training.warmup_steps",
    "weight_decay": "training.weight_decay",
    "max_grad_norm": "training.max_grad_norm",
    "temperature": "training.temperature",
    "max_completion_length": "training.max_response_tokens",
    "epsilon": "training.clip_low",
    "epsilon_high": "training.clip_high",
    **{option.name: f"methods.NAME.{option.name}" for option in fields(ArmOptions)},
}
"""Fields of GRPOConfig with a key of their own in a recipe, which says each thing once. A method may have others."""


def trl_config(recipe: Recipe, task: Task, output_dir: Path) -> "ProGRPOConfig":
    """The recipe in TRL's terms.

    Raises:
        ConfigError: settings that TRL refuses, or a ``[trl]`` or ``[methods]`` key that it does not have.
    """
    from progrpo.trl.trainer import ProGRPOConfig

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
    refuse_what_the_run_sets(recipe)
    for table in (recipe.method_settings(), recipe.trl):
        unknown = [name for name in table if name not in ProGRPOConfig.__dataclass_fields__]
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is not a field of ProGRPOConfig (GRPOConfig's, and alpha and its like).")
        settings |= table
    try:
        config = ProGRPOConfig(**settings)
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise ConfigError(f"the settings of recipe {recipe.name!r} don't go together: {error}") from error
    check_reporting(config.report_to)
    other_ways = ("use_vllm", "use_transformers_continuous_batching", "top_k", "min_p", "generation_kwargs")
    if recipe.training.seeded_responses and (in_use := [name for name in other_ways if getattr(config, name)]):
        raise ConfigError(
            f"training.seeded_responses is for sampling by transformers, with temperature and top_p alone; leave it "
            f"out, or trl.{in_use[0]}."
        )
    return config


def refuse_what_the_run_sets(recipe: Recipe) -> None:
    """Refuse the fields of GRPOConfig that the run folder rests on, or that a key of the recipe sets.

    Raises:
        ConfigError: ``[trl]`` or ``[methods.NAME]`` has one of them.
    """
    method = recipe.methods.get(recipe.method, {})
    for where, table, refused in (
        (f"methods.{recipe.method}", method, _SET_BY_THE_RUN),
        ("trl", recipe.trl, _SET_BY_THE_RUN | _SET_BY_THE_RECIPE),
    ):
        for name in table:
            if name in refused:
                instead = refused[name].replace("NAME", recipe.method)
                raise ConfigError(f"{where}.{name} is set by the run; use {instead} instead.")


def join_processes(recipe: Recipe) -> PartialState:
    """Meet the other processes of this launch, before anything else asks accelerate for its state."""
    # Said here, as Trainer's comes too late.
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
