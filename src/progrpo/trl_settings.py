"""A recipe in TRL's terms: ``engine = "trl"``. Its counterpart is :mod:`progrpo.verl_settings`."""

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState

from progrpo.config import Recipe
from progrpo.errors import ConfigError
from progrpo.planning.launch import check_launch
from progrpo.recipe_task import micro_batch, response_budget
from progrpo.tasks import Task
from progrpo.trl_fields import check_reporting

if TYPE_CHECKING:  # TRL is imported where its trainer is used: a plan goes without it
    from progrpo.integrations.trl import ProGRPOConfig


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
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise ConfigError(f"the settings of recipe {recipe.name!r} don't go together: {error}") from error
    check_reporting(config.report_to)
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
    responses = recipe.training.prompts_per_step * recipe.training.group_size
    each = micro_batch(recipe, processes, "process(es)")
    return {"per_device_train_batch_size": each, "gradient_accumulation_steps": responses // (each * processes)}


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
