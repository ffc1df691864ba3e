"""A recipe in TRL's terms: ``engine = "trl"``. Its counterpart is :mod:`progrpo.verl.settings`."""

from dataclasses import fields
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import torch
from accelerate import PartialState
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from progrpo.common.errors import ConfigError
from progrpo.methods import SHARED_SETTINGS
from progrpo.methods.arm import ArmOptions
from progrpo.recipes.build import batch, response_budget
from progrpo.recipes.schema import Recipe
from progrpo.tasks import Task
from progrpo.trl.engine import check_launch

if TYPE_CHECKING:  # TRL takes seconds to import, and a plan does not need it
    from progrpo.trl.trainer import ProGRPOConfig

CHOICES: dict[str, tuple[Any, ...]] = {
    "loss_type": ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none", True, False),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("server", "colocate"),
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
}
"""The words that TRL takes for a field. It checks them where it uses them, sometimes only after the first rollout, and
has no list of them; a contract test compares these with its source."""

BOUNDS: dict[str, Any] = {
    "num_iterations": Field(ge=1),
    "steps_per_generation": Field(ge=1),
    "generation_batch_size": Field(ge=1),
    "dataloader_num_workers": Field(ge=0),
    "ddp_timeout": Field(ge=1),
    "top_p": Field(gt=0, le=1),
    "top_k": Field(ge=0),
    "min_p": Field(ge=0, le=1),
    "repetition_penalty": Field(gt=0),
    "top_entropy_quantile": Field(ge=0, le=1),
    "adam_beta1": Field(ge=0, lt=1),
    "adam_beta2": Field(ge=0, lt=1),
    "adam_epsilon": Field(ge=0),
}
"""Ranges of numbers. Outside them, torch and transformers fail in the middle of a run, or accept senseless numbers."""

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
    """The recipe in TRL's terms; a ConfigError as of :func:`check_fields`, or if TRL refuses a setting."""
    from progrpo.trl.trainer import ProGRPOConfig

    check_fields(recipe)
    processes = join_processes(recipe).num_processes
    check_launch(recipe, processes)
    training, is_on_cpu = recipe.training, not torch.cuda.is_available()
    settings: dict[str, Any] = {
        "output_dir": str(output_dir),
        "max_steps": training.steps,
        "num_generations": training.group_size,
        "max_completion_length": response_budget(recipe, task),
        **{field: getattr(training, key) for field, key in _FROM_TRAINING.items()},
        **SHARED_SETTINGS,
        "beta": 0.0,
        # TRL's defaults, bfloat16 and recomputation, cost more than they save on a CPU.
        "bf16": recipe.model.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "logging_first_step": True,
        "save_strategy": "steps",
        "save_steps": training.checkpoint_every,
        "report_to": "none",
        "run_name": recipe.run_name,
        "disable_tqdm": True,
        "seed": recipe.seed,
        "use_cpu": is_on_cpu,
        "dataloader_pin_memory": not is_on_cpu,
        # Every weight of a dense model has a gradient, and its buffers are constants: DDP need not check.
        "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False,
    }
    try:
        config = ProGRPOConfig(**settings | batch_settings(recipe, processes) | recipe.method_settings() | recipe.trl)
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise ConfigError(f"the settings of recipe {recipe.name!r} don't go together: {error}") from error
    check_reporting(config.report_to)
    other_ways = ("use_vllm", "use_transformers_continuous_batching", "top_k", "min_p", "generation_kwargs")
    if training.seeded_responses and (in_use := [name for name in other_ways if getattr(config, name)]):
        raise ConfigError(
            f"training.seeded_responses needs transformers to sample, with temperature and top_p alone; remove it, or "
            f"remove trl.{in_use[0]}."
        )
    return config


def check_fields(recipe: Recipe) -> None:
    """Check that the keys of ``[trl]`` and ``[methods.NAME]`` are fields that they may set, and the values valid.

    Raises:
        ConfigError: the run folder depends on a field, or a key of the recipe sets it; there is no such field; a value
            has a wrong type, a number is out of range, or TRL does not know a word.

    >>> from progrpo.recipes.schema import load_recipe
    >>> check_fields(load_recipe("countdown_cpu", ["trl.loss_type=foo"]))
    Traceback (most recent call last):
    progrpo.common.errors.ConfigError: trl.loss_type should be 'grpo', 'dapo', 'dr_grpo', 'bnpo', 'cispo', 'sapo', \
'luspo' or 'vespo', got 'foo'.
    """
    by_run = {field: instead for instead, names in _SET_BY_THE_RUN.items() for field in names}
    for where, table, refused in (
        (f"methods.{recipe.method}", recipe.method_settings(), by_run),
        ("trl", recipe.trl, by_run | _SET_BY_THE_RECIPE),
    ):
        for name, value in table.items():
            if name in refused:
                instead = refused[name].replace("NAME", recipe.method)
                raise ConfigError(f"{where}.{name} is set by the run; use {instead} instead.")
            if name not in _fields():
                raise ConfigError(
                    f"{name!r} is not a field of ProGRPOConfig ([{where}]): see GRPOConfig and ArmOptions."
                )
            try:
                _fields()[name].validate_python(value)
            except ValidationError as error:
                wanted = " or ".join(dict.fromkeys(detail["msg"].removeprefix("Input ") for detail in error.errors()))
                raise ConfigError(f"{where}.{name} {wanted}, got {value!r}.") from None


def check_reporting(report_to: list[str]) -> None:
    """Raise a ConfigError if a service for metrics is unknown to transformers, or its package is not installed."""
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    for name in report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            raise ConfigError(f"trl.report_to must be 'none', 'all' or one of {known}, got {name!r}.")
        if name not in get_available_reporting_integrations():
            raise ConfigError(
                f"trl.report_to is {name!r}, whose package is not installed here; install it (pip install {name}), or "
                "leave trl.report_to out."
            )


@cache
def _fields() -> dict[str, TypeAdapter[Any]]:
    from progrpo.trl.trainer import ProGRPOConfig

    hints = get_type_hints(ProGRPOConfig)
    types = {name: hints[name] for name in ProGRPOConfig.__dataclass_fields__}
    types |= {name: Literal[words] for name, words in CHOICES.items()}
    types |= {name: Annotated[types[name], bound] for name, bound in BOUNDS.items()}
    rules = ConfigDict(strict=True, arbitrary_types_allowed=True)
    return {name: TypeAdapter(hint, config=rules) for name, hint in types.items()}


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
    """PEFT's LoraConfig for ``[model.lora]``; None if all weights are trained. A ConfigError says to install peft."""
    lora = recipe.model.lora
    if lora is None:
        return None
    if find_spec("peft") is None:
        raise ConfigError("model.lora needs the package peft: pip install 'progrpo[peft]'.")
    from peft import LoraConfig

    sizes = {"r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    return LoraConfig(task_type="CAUSAL_LM", target_modules=lora.target_modules, **sizes)
