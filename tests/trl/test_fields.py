"""Values of TRL's fields are checked before a run; the values that TRL knows are read from its source."""

import ast
import inspect
from typing import Any

import pytest
from trl.generation import vllm_generation

from progrpo.common.errors import ConfigError
from progrpo.methods import METHODS
from progrpo.recipes.schema import load_recipe
from progrpo.trl.settings import BOUNDS, CHOICES, check_fields
from trl import GRPOConfig, GRPOTrainer


def words_that_are_compared(module: Any, *names: str) -> set[str]:
    """The texts with which an attribute of one of these names is compared, anywhere in a module's source."""
    words: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute) and node.left.attr in names:
            constants = (part for side in node.comparators for part in ast.walk(side) if isinstance(part, ast.Constant))
            words |= {constant.value for constant in constants if isinstance(constant.value, str)}
    return words


@pytest.mark.parametrize("name", [name for name in CHOICES if name != "vllm_mode"])
def test_the_choices_are_those_that_trl_knows(name: str) -> None:
    known = words_that_are_compared(inspect.getmodule(GRPOTrainer), name)
    assert known == {word for word in CHOICES[name] if isinstance(word, str)}


def test_the_modes_of_vllm_are_those_that_trl_knows() -> None:
    assert words_that_are_compared(vllm_generation, "mode") == set(CHOICES["vllm_mode"])


def test_every_name_is_a_field_of_trl_and_its_default_is_allowed() -> None:
    for name in (*CHOICES, *BOUNDS):
        default = GRPOConfig.__dataclass_fields__[name].default
        if default is not None:
            check_fields(load_recipe("countdown_cpu").model_copy(update={"trl": {name: default}}))


@pytest.mark.parametrize("method", METHODS)
def test_the_settings_of_every_method_pass(method: str) -> None:
    check_fields(load_recipe("countdown_cpu", [f"method={method}"]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trl.beta=high", "trl.beta should be a valid number, got 'high'."),
        ("trl.beta=true", "trl.beta should be a valid number, got True."),
        ("trl.num_iterations=two", "trl.num_iterations should be a valid integer, got 'two'."),
        ("trl.num_iterations=0", "trl.num_iterations should be greater than or equal to 1, got 0."),
        ("trl.top_p=5.0", "trl.top_p should be less than or equal to 1, got 5.0."),
        ("trl.shuffle_dataset=x", "trl.shuffle_dataset should be a valid boolean, got 'x'."),
        ("trl.reward_weights=x", "trl.reward_weights should be a valid list, got 'x'."),
        ("trl.scale_rewards=foo", "trl.scale_rewards should be 'group', 'batch', 'none', True or False, got 'foo'."),
        ("trl.vllm_mode=serve", "trl.vllm_mode should be 'server' or 'colocate', got 'serve'."),
        ("methods.progrpo.loss_type=foo", "methods.progrpo.loss_type should be 'grpo', 'dapo', "),
        ("methods.progrpo.alpha=high", "methods.progrpo.alpha should be a valid number, got 'high'."),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_fields(load_recipe("countdown_cpu", [override]))
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    "override", ["trl.beta=0", "trl.delta=1.5", "trl.scale_rewards=false", "trl.lr_scheduler_kwargs={num_cycles=2}"]
)
def test_values_that_trl_takes_pass(override: str) -> None:
    check_fields(load_recipe("countdown_cpu", [override]))
