"""The values that a recipe's ``[trl]`` and ``[methods]`` tables give to fields of ProGRPOConfig, checked before a run.

The types are those that the dataclass declares. TRL checks a choice where it uses it, sometimes only after the first
rollout, and has no list of its choices: :data:`CHOICES` is such a list, and a contract test compares it with TRL's
source.
"""

from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from progrpo.common.errors import ConfigError
from progrpo.recipes.schema import Recipe

CHOICES: dict[str, tuple[Any, ...]] = {
    "loss_type": ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none", True, False),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("server", "colocate"),
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
}
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


def check_fields(recipe: Recipe) -> None:
    """Check that each value of ``[trl]`` and ``[methods.NAME]`` is valid for its field.

    Raises:
        ConfigError: a value has a wrong type, a number is out of range, or TRL does not know a word.

    >>> from progrpo.recipes.schema import load_recipe
    >>> check_fields(load_recipe("countdown_cpu", ["trl.loss_type=foo"]))
    Traceback (most recent call last):
    progrpo.common.errors.ConfigError: trl.loss_type should be 'grpo', 'dapo', 'dr_grpo', 'bnpo', 'cispo', 'sapo', \
'luspo' or 'vespo', got 'foo'.
    """
    for where, table in ((f"methods.{recipe.method}", recipe.method_settings()), ("trl", recipe.trl)):
        for name, value in table.items():
            field = _fields().get(name)
            try:
                if field is not None:  # unknown keys are refused where the configuration is made
                    field.validate_python(value)
            except ValidationError as error:
                wanted = " or ".join(dict.fromkeys(detail["msg"].removeprefix("Input ") for detail in error.errors()))
                raise ConfigError(f"{where}.{name} {wanted}, got {value!r}.") from None


def check_reporting(report_to: list[str]) -> None:
    """Check that transformers knows the services that training metrics are sent to, and that they are installed.

    Raises:
        ConfigError: a service is unknown, or its package is missing.
    """
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
