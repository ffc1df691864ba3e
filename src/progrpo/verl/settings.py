"""A recipe in verl's terms: the settings of ``python -m verl.trainer.main_ppo`` by their dotted names.

Every field of a recipe with a counterpart in verl 0.9.1 is set explicitly, so that the command shows the whole run. A
field without one is refused by name if it was set. The ``[verl]`` table overrides the rest (``docs/verl-recipes.md``).
"""

import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.methods import SHARED_SETTINGS
from progrpo.methods.arm import ArmOptions
from progrpo.recipes.build import batch, make_task, response_budget
from progrpo.recipes.schema import Recipe
from progrpo.runs.folder import RunFolder
from progrpo.sampling.models import model_source
from progrpo.tasks import Task
from progrpo.verl.engine import processes, verl_setting, verl_table

ACTOR, ROLLOUT, MODEL = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "model"))
CHAT_TEMPLATE = f"{MODEL}.custom_chat_template"
MAX_PROMPT_TOKENS = 1024
"""The limit of a recipe without ``training.max_prompt_tokens``. Longer prompts, which verl would cut, are refused."""
PROMPT_ITSELF = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""The chat template for prompts that are texts: verl takes only messages, and this adds nothing around them."""
NEVER = 1e9
"""A bound that is never reached: it is above exp(20), the largest ratio that verl lets through."""

_METHOD: dict[str, tuple[str, dict[str, Any] | None]] = {
    **{option.name: (f"+algorithm.progrpo.{option.name}", None) for option in fields(ArmOptions)},
    "epsilon": (f"{ACTOR}.clip_ratio_low", None),
    "epsilon_high": (f"{ACTOR}.clip_ratio_high", None),
    "entropy_coef": (f"{ACTOR}.entropy_coeff", None),
    "loss_type": (
        f"{ACTOR}.loss_agg_mode",
        {"dapo": "token-mean", "grpo": "seq-mean-token-mean", "dr_grpo": "seq-mean-token-sum-norm"},
    ),
    "scale_rewards": ("algorithm.norm_adv_by_std_in_grpo", {"group": True, "none": False}),
    "importance_sampling_level": (f"{ACTOR}.policy_loss.loss_mode", {"token": "vanilla", "sequence": "gspo"}),
}
"""Fields of ProGRPOConfig (a method is a set of these) in verl, with verl's names of their values if they differ."""

_RESERVED = (
    *("data.train_files", "data.val_files", "trainer.default_local_dir", "trainer.resume_mode"),
    *("trainer.resume_from_path", "trainer.validation_data_dir", "trainer.val_only", "hydra.run.dir"),
    f"{ACTOR}.checkpoint.save_contents",
)
"""Settings that the run folder depends on: a recipe can't change them."""


class VerlFolder:
    """The paths of verl's own files in a run folder, all below ``RUN/verl``."""

    def __init__(self, folder: RunFolder) -> None:
        self.path = (folder.path / "verl").absolute()
        self.train_data = self.path / "train.parquet"
        self.validation_data = self.path / "validation.parquet"
        self.checkpoints = self.path / "checkpoints"
        self.tracker = self.checkpoints / "latest_checkpointed_iteration.txt"
        """verl writes the step of a checkpoint here when the checkpoint is complete."""
        self.validations = self.path / "validations"
        self.metrics = self.path / "metrics.jsonl"
        self.log = self.path / "verl.log"

    def checkpoint(self, verl_step: int) -> Path:
        """The folder of one checkpoint of verl."""
        return self.checkpoints / f"global_step_{verl_step}"


def verl_command(recipe: Recipe, folder: RunFolder) -> list[str]:
    """The command that trains a recipe with verl; nothing is read, written or loaded.

    Raises:
        ConfigError: something in the recipe has no counterpart in verl.

    >>> from pathlib import Path
    >>> from progrpo.recipes.schema import load_recipe
    >>> command = verl_command(load_recipe("countdown_cpu", ["engine=verl"]), RunFolder(Path("run")))
    >>> command[1:3], "data.train_batch_size=32" in command
    (['-m', 'verl.trainer.main_ppo'], True)
    """
    overrides = [f"{key}={_literal(value)}" for key, value in verl_settings(recipe, folder).items()]
    return [sys.executable, "-m", "verl.trainer.main_ppo", *overrides]


def verl_settings(recipe: Recipe, folder: RunFolder) -> dict[str, Any]:
    """The settings of :func:`verl_command` by name, with the same errors. A ``+`` marks a name that verl lacks."""
    task = make_task(recipe)
    settings = _run(recipe, task, folder) | _model(recipe, task) | _actor(recipe) | _method(recipe, task)
    table = verl_table(recipe)
    for key in table:
        if key.lstrip("+") in _RESERVED:
            raise ConfigError(f"verl.{key} is set by the run folder; remove it.")
    loggers = table.get("trainer.logger")
    if loggers is not None:  # the metrics of a run folder are read from verl's file
        loggers = loggers if isinstance(loggers, list) else [loggers]
        table["trainer.logger"] = loggers if "file" in loggers else [*loggers, "file"]
    names = {key.lstrip("+"): key for key in settings}  # one setting has one name, with or without "+"
    settings |= {names.get(key.lstrip("+"), key): value for key, value in table.items()}
    name = f"{ROLLOUT}.tensor_model_parallel_size"
    if processes(recipe) % int(settings[name]):  # verl would refuse it only after it has loaded the model
        raise ConfigError(
            f"verl.{name} is {settings[name]}, which does not divide the {processes(recipe)} GPU(s) of launch.nodes * "
            "launch.gpus_per_node; choose one that does."
        )
    return settings


def max_prompt_tokens(recipe: Recipe) -> int:
    """The length in tokens above which verl cuts a prompt."""
    return int(verl_setting(recipe, "data.max_prompt_length", recipe.training.max_prompt_tokens or MAX_PROMPT_TOKENS))


def is_chat(task: Task) -> bool:
    """Whether the task's prompts are messages for the model's own chat template, and not texts."""
    return getattr(task, "template", "plain") == "chat"


def _run(recipe: Recipe, task: Task, folder: RunFolder) -> dict[str, Any]:
    """The trainer, the data, and the files of the run."""
    training, evaluation, paths = recipe.training, recipe.evaluation, VerlFolder(folder)
    steps = _by_updates(recipe, "training.steps", training.steps)
    return {
        "trainer.v1.trainer_mode": "progrpo",
        "trainer.project_name": "progrpo",
        "trainer.experiment_name": recipe.run_name,
        "trainer.nnodes": recipe.launch.nodes,
        "trainer.n_gpus_per_node": recipe.launch.gpus_per_node or 1,
        "trainer.total_training_steps": steps,
        "trainer.total_epochs": steps,  # an epoch has at least one step, so the number of steps ends the run
        "trainer.default_local_dir": str(paths.checkpoints),
        "trainer.resume_mode": "auto",
        "trainer.save_freq": _by_updates(recipe, "training.checkpoint_every", training.checkpoint_every),
        "trainer.max_actor_ckpt_to_keep": training.keep_checkpoints,
        "trainer.val_before_train": evaluation.every > 0,
        "trainer.test_freq": _by_updates(recipe, "evaluation.every", evaluation.every) or -1,
        "trainer.validation_data_dir": str(paths.validations),
        "+trainer.progrpo_rollouts.folder": str(folder.rollouts.absolute()),
        "+trainer.progrpo_rollouts.every": training.rollouts_every,
        "+trainer.progrpo_rollouts.updates": training.updates_per_rollout,
        "trainer.logger": ["console", "file"],
        "critic.enable": False,
        # A worker of a Ray cluster that was running before does not inherit this process's environment.
        "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH": str(paths.metrics),
        "hydra.run.dir": str(paths.path / "hydra"),
        "data.train_files": str(paths.train_data),
        "data.val_files": str(paths.validation_data),
        "data.train_batch_size": training.prompts_per_step,
        "data.max_prompt_length": max_prompt_tokens(recipe),
        "data.max_response_length": response_budget(recipe, task),
        "data.seed": recipe.seed,
        "reward.custom_reward_function.path": "pkg://progrpo.tasks.rewards",
        "reward.custom_reward_function.name": "compute_score",
        # An error in a reward worker loses the response but does not stop verl: run.py watches the verifier's errors.
        "+reward.custom_reward_function.reward_kwargs.max_error_share": 1.0,
    }


def _by_updates(recipe: Recipe, name: str, number: int) -> int:
    """A number of the recipe over ``training.updates_per_rollout``, because a step of verl is a rollout."""
    updates = recipe.training.updates_per_rollout
    if number % updates:
        raise ConfigError(
            f"{name} is {number}, which training.updates_per_rollout ({updates}) does not divide: verl's mini-batches "
            "are whole groups, and it ends, saves and validates after whole rollouts; choose a multiple of "
            f"{updates}, or use engine = 'trl'."
        )
    return number // updates


def _model(recipe: Recipe, task: Task) -> dict[str, Any]:
    """The model, and how it samples."""
    model = recipe.model
    if model.lora is not None:
        raise ConfigError(
            "model.lora has no counterpart for engine 'verl': the adapters that verl exports do not load in "
            "transformers; use engine = 'trl', or train all weights."
        )
    attention = model.attention
    if model.dtype == "float32" and attention is None:
        attention = "sdpa"  # verl's default is flash_attention_2
    if model.dtype == "float32" and str(attention).startswith("flash_attention"):
        raise ConfigError(
            f"model.attention {attention!r} computes only in 16 bits; set model.dtype = 'bfloat16', or 'sdpa'."
        )
    settings: dict[str, Any] = {
        f"{MODEL}.path": model_source(model.path),
        f"{ROLLOUT}.name": "vllm",
        f"{ROLLOUT}.n": recipe.training.group_size,
        f"{ROLLOUT}.temperature": recipe.training.temperature,
        f"{ROLLOUT}.dtype": model.dtype,
        f"{ROLLOUT}.seed": recipe.seed,
        f"{ROLLOUT}.tensor_model_parallel_size": 1,
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": batch(recipe, processes(recipe))[0],
        f"{ROLLOUT}.val_kwargs.n": recipe.evaluation.samples_in_training,
        f"{ROLLOUT}.val_kwargs.do_sample": True,
        f"{ROLLOUT}.val_kwargs.temperature": recipe.evaluation.temperature,
    }
    if attention is not None:
        settings[f"+{MODEL}.override_config.attn_implementation"] = attention
    if not is_chat(task):
        settings[CHAT_TEMPLATE] = PROMPT_ITSELF
    return settings


def _actor(recipe: Recipe) -> dict[str, Any]:
    training = recipe.training
    if training.lr_schedule == "linear":
        raise ConfigError("training.lr_schedule 'linear' has no counterpart in verl; use constant or cosine.")
    if training.seeded_responses:
        raise ConfigError("training.seeded_responses has no counterpart in verl, whose engines seed themselves.")
    is_float32 = recipe.model.dtype == "float32"
    # Without these verl computes in bfloat16, whatever fsdp_config.dtype is.
    parts = ("param", "reduce", "buffer") if is_float32 else ()
    return {f"+{ACTOR}.fsdp_config.mixed_precision.{part}_dtype": "fp32" for part in parts} | {
        f"{ACTOR}.ppo_mini_batch_size": _by_updates(recipe, "training.prompts_per_step", training.prompts_per_step),
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": batch(recipe, processes(recipe))[0],
        f"{ACTOR}.ppo_epochs": 1,
        f"{ACTOR}.clip_ratio": training.clip_low,
        f"{ACTOR}.clip_ratio_low": training.clip_low,
        f"{ACTOR}.clip_ratio_high": training.clip_high,
        f"{ACTOR}.clip_ratio_c": NEVER,
        f"{ACTOR}.use_kl_loss": False,
        f"{ACTOR}.entropy_coeff": 0.0,
        f"{ACTOR}.data_loader_seed": recipe.seed,
        f"{ACTOR}.fsdp_config.seed": recipe.seed,
        f"{ACTOR}.fsdp_config.model_dtype": "fp32",
        f"{ACTOR}.fsdp_config.dtype": "float32" if is_float32 else "bfloat16",
        f"{ACTOR}.optim.lr": training.learning_rate,
        f"{ACTOR}.optim.lr_scheduler_type": training.lr_schedule,
        # verl's schedule advances once for each rollout.
        f"{ACTOR}.optim.lr_warmup_steps": -(-training.warmup_steps // training.updates_per_rollout),
        f"{ACTOR}.optim.weight_decay": training.weight_decay,
        f"{ACTOR}.optim.clip_grad": training.max_grad_norm,
        f"{ACTOR}.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
    }


def _method(recipe: Recipe, task: Task) -> dict[str, Any]:
    """The method's settings, which are fields of ProGRPOConfig, in verl's terms."""
    method = SHARED_SETTINGS | recipe.method_settings()
    settings: dict[str, Any] = {"algorithm.adv_estimator": "grpo", "algorithm.use_kl_in_reward": False}
    for name, value in method.items():
        setting, values = _METHOD.get(name, ("", {}))
        if values is None:
            settings[setting] = value
        elif isinstance(value, str) and value in values:
            settings[setting] = values[value]
        else:
            known = (f"{key} = {' or '.join(values)}" if values else key for key, (_, values) in _METHOD.items())
            raise ConfigError(
                f"method {recipe.method!r} has {name} = {value!r}, which has no counterpart in verl; these have one: "
                f"{', '.join(known)}. Use engine = 'trl', or another method."
            )
    if method["loss_type"] == "dr_grpo":
        settings[f"{ACTOR}.loss_scale_factor"] = response_budget(recipe, task)
    if method["importance_sampling_level"] == "sequence" and method["loss_type"] != "grpo":
        raise ConfigError("importance_sampling_level 'sequence' (GSPO) needs loss_type 'grpo', in verl as in TRL.")
    return settings


_UNQUOTED = re.compile(r"(?!(?:true|false|null|nan|inf)$)[a-z_/][\w./:-]*(?<!\.)", re.ASCII | re.IGNORECASE)
"""Texts that Hydra reads as texts without quotes."""


def _literal(value: Any) -> str:
    """A value as Hydra reads it.

    >>> _literal([1e-06, True, None, "1e-3", "a 'b'"])
    "[1e-06,true,null,'1e-3','a \\\\'b\\\\'']"
    """
    if isinstance(value, list):
        return f"[{','.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_literal(item)}' for key, item in value.items())}}}"
    if not isinstance(value, str):
        return json.dumps(value)
    if _UNQUOTED.fullmatch(value):
        return value
    # In quotes a backslash is an ordinary character, except before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda match: 2 * match[1] + ("\\'" if match[2] else ""), value)
    return f"'{escaped}'"
