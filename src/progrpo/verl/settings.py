"""A recipe in verl's terms: the settings of ``python -m verl.trainer.main_ppo`` by their dotted names.

Every field of a recipe that has a counterpart in verl 0.9.1 is said outright, so that the command shows the whole run;
one that has none and was set is refused by name. What the ``[verl]`` table says comes last and wins.

==========================  ===========================================================================================
recipe                      verl
==========================  ===========================================================================================
training.prompts_per_step   ``data.train_batch_size``; ``ppo_mini_batch_size`` is its part for each of a rollout's
                            ``training.updates_per_rollout`` optimiser steps
training.steps, .._every     verl's steps are rollouts: divided by ``training.updates_per_rollout``
training.max_grad_norm      ``actor.optim.clip_grad``; ``actor.grad_clip`` is read by nothing
training.clip_low, _high    ``clip_ratio_low``, ``clip_ratio_high``; ``clip_ratio_c``, a third bound that the paper's
                            objective has not, is put out of reach
model.dtype                 ``bfloat16`` is verl's mixed precision: float32 weights, the rest in bfloat16
evaluation.*                verl's validation, on the first ``problems_in_training`` held-out problems
template plain, base, own   a chat template that is the prompt itself: verl knows messages only
==========================  ===========================================================================================
"""

import json
import re
import sys
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.recipes.build import batch, make_task, response_budget
from progrpo.recipes.schema import Recipe
from progrpo.runs.folder import RunFolder
from progrpo.sampling.models import model_source
from progrpo.tasks import Task

ACTOR, ROLLOUT, MODEL = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "model"))
CHAT_TEMPLATE = f"{MODEL}.custom_chat_template"
MAX_PROMPT_TOKENS = 1024
"""Unless the recipe has a ``training.max_prompt_tokens``. Longer prompts, which verl would cut, are then refused."""
PROMPT_ITSELF = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""The chat template of prompts that are texts: nothing stands around them."""
NEVER = 1e9
"""A bound that is not reached: exp(20), the largest ratio that verl lets through, is below it."""

_OPTIONS = {
    "alpha": "+algorithm.progrpo.alpha",
    "low_prob_fraction": "+algorithm.progrpo.low_prob_fraction",
    "activation": "+algorithm.progrpo.activation",
    "center": "+algorithm.progrpo.center",
    "correct_above": "+algorithm.progrpo.correct_above",
    "correct_reward": "+algorithm.progrpo.correct_reward",
    "epsilon": f"{ACTOR}.clip_ratio_low",
    "epsilon_high": f"{ACTOR}.clip_ratio_high",
    "entropy_coef": f"{ACTOR}.entropy_coeff",
}
"""Fields of ProGRPOConfig, which is what methods are settings of, whose value verl takes as it is."""

_CHOICES: dict[str, dict[Any, dict[str, Any]]] = {
    "loss_type": {
        "dapo": {f"{ACTOR}.loss_agg_mode": "token-mean"},
        "grpo": {f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean"},
        "dr_grpo": {f"{ACTOR}.loss_agg_mode": "seq-mean-token-sum-norm"},
    },
    "scale_rewards": {
        "group": {"algorithm.norm_adv_by_std_in_grpo": True},
        "none": {"algorithm.norm_adv_by_std_in_grpo": False},
    },
    "importance_sampling_level": {
        "token": {f"{ACTOR}.policy_loss.loss_mode": "vanilla"},
        "sequence": {f"{ACTOR}.policy_loss.loss_mode": "gspo"},
    },
}
"""Fields of ProGRPOConfig whose values are named otherwise in verl."""

_OURS = (
    *("data.train_files", "data.val_files", "trainer.default_local_dir", "trainer.resume_mode"),
    *("trainer.resume_from_path", "trainer.validation_data_dir", "trainer.val_only", "hydra.run.dir"),
    f"{ACTOR}.checkpoint.save_contents",
)
"""Settings that the run folder rests on: a recipe can't have others."""


class VerlFolder:
    """Where a run folder keeps what is verl's: its data, its checkpoints, its log. All below ``RUN/verl``."""

    def __init__(self, folder: RunFolder) -> None:
        self.path = (folder.path / "verl").absolute()
        self.rollouts = folder.rollouts.absolute()
        self.train_data = self.path / "train.parquet"
        self.validation_data = self.path / "validation.parquet"
        self.checkpoints = self.path / "checkpoints"
        self.tracker = self.checkpoints / "latest_checkpointed_iteration.txt"
        """Written by verl once a checkpoint is complete."""
        self.validations = self.path / "validations"
        self.metrics = self.path / "metrics.jsonl"
        self.log = self.path / "verl.log"


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
    """The settings of :func:`verl_command` by name; a name with ``+`` is one that verl's own configuration lacks.

    Raises:
        ConfigError: something in the recipe has no counterpart in verl.
    """
    task = make_task(recipe)
    settings = (
        _trainer(recipe, VerlFolder(folder))
        | _data(recipe, task, VerlFolder(folder))
        | _model(recipe, task)
        | _actor(recipe)
        | _rollout(recipe)
        | _method(recipe, task)
    )
    settings = _with_own(settings, recipe.verl)
    _check_engines(recipe, settings)
    return settings


def verl_setting(recipe: Recipe, name: str, default: Any) -> Any:
    """What the ``[verl]`` table says of one setting."""
    return next((value for key, value in _flat(recipe.verl).items() if key.lstrip("+") == name), default)


def max_prompt_tokens(recipe: Recipe) -> int:
    """The longest prompt that verl leaves whole."""
    return int(verl_setting(recipe, "data.max_prompt_length", recipe.training.max_prompt_tokens or MAX_PROMPT_TOKENS))


def processes(recipe: Recipe) -> int:
    """Training processes: one a GPU."""
    nodes, gpus = verl_setting(recipe, "trainer.nnodes", recipe.launch.nodes), _gpus_per_node(recipe)
    return int(nodes) * int(gpus)


def _gpus_per_node(recipe: Recipe) -> int:
    return int(verl_setting(recipe, "trainer.n_gpus_per_node", recipe.launch.gpus_per_node or 1))


def _trainer(recipe: Recipe, folder: VerlFolder) -> dict[str, Any]:
    training, evaluation = recipe.training, recipe.evaluation
    return {
        "trainer.v1.trainer_mode": "progrpo",
        "trainer.project_name": "progrpo",
        "trainer.experiment_name": recipe.run_name,
        "trainer.nnodes": recipe.launch.nodes,
        "trainer.n_gpus_per_node": recipe.launch.gpus_per_node or 1,
        "trainer.total_training_steps": _in_rollouts(recipe, "training.steps", training.steps),
        # An end of its own that never comes first: an epoch has a step at least.
        "trainer.total_epochs": _in_rollouts(recipe, "training.steps", training.steps),
        "trainer.default_local_dir": str(folder.checkpoints),
        "trainer.resume_mode": "auto",
        "trainer.save_freq": _in_rollouts(recipe, "training.checkpoint_every", training.checkpoint_every),
        "trainer.max_actor_ckpt_to_keep": training.keep_checkpoints,
        "trainer.val_before_train": evaluation.every > 0,
        "trainer.test_freq": _in_rollouts(recipe, "evaluation.every", evaluation.every) or -1,
        "trainer.validation_data_dir": str(folder.validations),
        "+trainer.progrpo_rollouts.folder": str(folder.rollouts),
        "+trainer.progrpo_rollouts.every": training.rollouts_every,
        "+trainer.progrpo_rollouts.updates": training.updates_per_rollout,
        "trainer.logger": ["console", "file"],
        "critic.enable": False,
        # A worker of Ray does not get the environment of who asks a running cluster for it.
        "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH": str(folder.metrics),
        "hydra.run.dir": str(folder.path / "hydra"),
    }


def _in_rollouts(recipe: Recipe, name: str, steps: int) -> int:
    """How many of verl's steps, which are rollouts, so many optimiser steps are."""
    updates = recipe.training.updates_per_rollout
    if steps % updates:
        raise ConfigError(
            f"{name} is {steps}, which training.updates_per_rollout ({updates}) does not divide: verl ends, saves and "
            f"validates after whole rollouts; choose a multiple of {updates}."
        )
    return steps // updates


def _data(recipe: Recipe, task: Task, folder: VerlFolder) -> dict[str, Any]:
    return {
        "data.train_files": str(folder.train_data),
        "data.val_files": str(folder.validation_data),
        "data.train_batch_size": recipe.training.prompts_per_step,
        "data.max_prompt_length": max_prompt_tokens(recipe),
        "data.max_response_length": response_budget(recipe, task),
        "data.seed": recipe.seed,
        "reward.custom_reward_function.path": "pkg://progrpo.tasks.rewards",
        "reward.custom_reward_function.name": "compute_score",
        # An error in a reward worker does not stop verl, but loses the response: training.max_verifier_errors is
        # watched from outside.
        "+reward.custom_reward_function.reward_kwargs.max_error_share": 1.0,
    }


def _model(recipe: Recipe, task: Task) -> dict[str, Any]:
    if recipe.model.lora is not None:
        raise ConfigError(
            "model.lora has no counterpart for engine 'verl': what verl exports of adapters does not load in "
            "transformers; use engine = 'trl', or train all weights."
        )
    full, attention = recipe.model.dtype == "float32", recipe.model.attention
    if full and attention is not None and attention.startswith("flash_attention"):
        raise ConfigError(
            f"model.attention {attention!r} computes in 16 bits alone; set model.dtype = 'bfloat16', or 'sdpa'."
        )
    settings: dict[str, Any] = {f"{MODEL}.path": model_source(recipe.model.path)}
    if full and attention is None:
        attention = "sdpa"  # verl's default is flash_attention_2
    if attention is not None:
        settings[f"+{MODEL}.override_config.attn_implementation"] = attention
    if not is_chat(task):
        settings[CHAT_TEMPLATE] = PROMPT_ITSELF
    return settings


def is_chat(task: Task) -> bool:
    """Whether the task's prompts are messages, for the model's own chat template, and not texts."""
    return getattr(task, "template", "plain") == "chat"


def _actor(recipe: Recipe) -> dict[str, Any]:
    training = recipe.training
    if training.lr_schedule == "linear":
        raise ConfigError("training.lr_schedule 'linear' has no counterpart in verl; use constant or cosine.")
    if training.prompts_per_step % training.updates_per_rollout:
        raise ConfigError(
            f"training.updates_per_rollout is {training.updates_per_rollout}, which does not divide "
            f"training.prompts_per_step ({training.prompts_per_step}): verl's mini-batches are whole groups; choose a "
            "number that does, or use engine = 'trl'."
        )
    if training.seeded_responses:
        raise ConfigError("training.seeded_responses has no counterpart in verl, whose engines draw as they do.")
    full = recipe.model.dtype == "float32"
    precision = f"+{ACTOR}.fsdp_config.mixed_precision"
    # Without this verl computes in bfloat16, whatever the dtype beside it says.
    in_float32 = {f"{precision}.{part}_dtype": "fp32" for part in ("param", "reduce", "buffer")} if full else {}
    return in_float32 | {
        f"{ACTOR}.ppo_mini_batch_size": training.prompts_per_step // training.updates_per_rollout,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": batch(recipe, processes(recipe), "GPU(s)")[0],
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
        f"{ACTOR}.fsdp_config.dtype": "float32" if full else "bfloat16",
        f"{ACTOR}.optim.lr": training.learning_rate,
        f"{ACTOR}.optim.lr_scheduler_type": training.lr_schedule,
        # verl's schedule moves once a rollout.
        f"{ACTOR}.optim.lr_warmup_steps": -(-training.warmup_steps // training.updates_per_rollout),
        f"{ACTOR}.optim.weight_decay": training.weight_decay,
        f"{ACTOR}.optim.clip_grad": training.max_grad_norm,
        f"{ACTOR}.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
    }


def _rollout(recipe: Recipe) -> dict[str, Any]:
    return {
        f"{ROLLOUT}.name": "vllm",
        f"{ROLLOUT}.n": recipe.training.group_size,
        f"{ROLLOUT}.temperature": recipe.training.temperature,
        f"{ROLLOUT}.dtype": recipe.model.dtype,
        f"{ROLLOUT}.seed": recipe.seed,
        f"{ROLLOUT}.tensor_model_parallel_size": 1,
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": batch(recipe, processes(recipe), "GPU(s)")[0],
        f"{ROLLOUT}.val_kwargs.n": recipe.evaluation.samples_in_training,
        f"{ROLLOUT}.val_kwargs.do_sample": True,
        f"{ROLLOUT}.val_kwargs.temperature": recipe.evaluation.temperature,
    }


def _check_engines(recipe: Recipe, settings: dict[str, Any]) -> None:
    """verl would say it once Ray and the model are up."""
    engine = int(settings[f"{ROLLOUT}.tensor_model_parallel_size"])
    if processes(recipe) % engine:
        raise ConfigError(
            f"verl.{ROLLOUT}.tensor_model_parallel_size is {engine}, which does not divide the {processes(recipe)} "
            "GPU(s) of launch.nodes * launch.gpus_per_node; choose one that does."
        )


def _method(recipe: Recipe, task: Task) -> dict[str, Any]:
    """The method's settings, which are fields of ProGRPOConfig, in verl's terms."""
    # What ProGRPOConfig and training.trl_config say where a method says nothing.
    given = {"loss_type": "dapo", "scale_rewards": "group", "importance_sampling_level": "token"}
    given |= recipe.method_settings()
    settings: dict[str, Any] = {"algorithm.adv_estimator": "grpo", "algorithm.use_kl_in_reward": False}
    for name, value in given.items():
        if name in _OPTIONS:
            settings[_OPTIONS[name]] = value
        elif value in _CHOICES.get(name, ()):
            settings |= _CHOICES[name][value]
        else:
            known = ", ".join((*_OPTIONS, *(f"{key} of {' or '.join(values)}" for key, values in _CHOICES.items())))
            raise ConfigError(
                f"method {recipe.method!r} has {name} = {value!r}, which has no counterpart in verl; what has one is "
                f"{known}. Use engine = 'trl', or another method."
            )
    if given["loss_type"] == "dr_grpo":
        settings[f"{ACTOR}.loss_scale_factor"] = response_budget(recipe, task)
    if given["importance_sampling_level"] == "sequence" and given["loss_type"] != "grpo":
        raise ConfigError("importance_sampling_level 'sequence' (GSPO) goes with loss_type 'grpo', in verl as in TRL.")
    return settings


def _with_own(settings: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """The settings with those of the ``[verl]`` table in their place."""
    names = {key.lstrip("+"): key for key in settings}
    own = _flat(table)
    for key in own:
        if key.lstrip("+") in _OURS:
            raise ConfigError(f"verl.{key} is set by the run folder; leave it away.")
    logger = own.get("trainer.logger")
    if logger is not None:  # the metrics of a run folder are read from verl's file
        chosen = logger if isinstance(logger, list) else [logger]
        own["trainer.logger"] = [*chosen, *(["file"] if "file" not in chosen else [])]
    return settings | {names.get(key.lstrip("+"), key): value for key, value in own.items()}


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """By dotted names: ``[verl.data] seed = 1`` and ``[verl] "data.seed" = 1`` are the same."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        # An empty table is a value: a plain list of settings would lose it.
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return flat


def _literal(value: Any) -> str:
    """A value as Hydra reads it.

    >>> _literal([1e-06, True, None, "a 'b'"])
    "[1e-06,true,null,'a \\\\'b\\\\'']"
    """
    if isinstance(value, list):
        return f"[{','.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_literal(item)}' for key, item in value.items())}}}"
    if not isinstance(value, str):
        return "null" if value is None else json.dumps(value)
    if value and all(character.isalnum() or character in "_-./:" for character in value) and value == value.strip("."):
        return value if not _reads_as_another_type(value) else f"'{value}'"
    # Backslashes stand for themselves, but before a quote.
    doubled = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    return f"'{doubled}'"


def _reads_as_another_type(text: str) -> bool:
    """``1e-3``, ``true`` and ``null`` without quotes are no texts."""
    try:
        float(text)
    except ValueError:
        return text.lower() in ("true", "false", "null", "nan", "inf")
    return True
