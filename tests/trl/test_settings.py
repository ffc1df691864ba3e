"""A recipe as TRL's settings. Their values are checked before a run; those that TRL knows are read from its source."""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
from trl.generation import vllm_generation

from progrpo.common.errors import ConfigError
from progrpo.methods import METHODS
from progrpo.recipes.build import make_task
from progrpo.recipes.schema import load_recipe
from progrpo.trl.settings import BOUNDS, CHOICES, batch_settings, check_fields, trl_config
from trl import GRPOConfig, GRPOTrainer


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trl.output_dir=elsewhere", "trl.output_dir is set by the run; use --out instead."),
        ("trl.max_steps=3", "trl.max_steps is set by the run; use training.steps instead."),
        ("trl.num_train_epochs=3", "use training.steps instead."),
        ("trl.seed=1", "trl.seed is set by the run; use seed instead."),
        ("trl.save_strategy=no", "use training.checkpoint_every instead."),
        ("trl.save_steps=7", "use training.checkpoint_every instead."),
        ("trl.save_total_limit=1", "use training.keep_checkpoints instead."),
        ("trl.save_only_model=true", "use training.checkpoint_every instead."),
        ("trl.eval_strategy=steps", "use evaluation.every instead."),
        ("trl.resume_from_checkpoint=x", "use progrpo train --resume RUN instead."),
        ("trl.per_device_train_batch_size=4", "use training.micro_batch instead."),
        ("trl.steps_per_generation=4", "use training.updates_per_rollout instead."),
        ("trl.num_generations=4", "use training.group_size instead."),
        ("trl.learning_rate=1.0", "use training.learning_rate instead."),
        ("trl.epsilon_high=0.3", "use training.clip_high instead."),
        ("trl.alpha=0.3", "trl.alpha is set by the run; use methods.progrpo.alpha instead."),
        ("trl.correct_above=0.5", "use methods.progrpo.correct_above instead."),
        ("methods.progrpo.output_dir=x", "methods.progrpo.output_dir is set by the run; use --out instead."),
    ],
)
def test_a_field_that_the_run_sets_is_refused_with_the_key_to_use(override: str, said: str, tmp_path: Path) -> None:
    recipe = load_recipe("countdown_cpu", [override])
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as refused:
        trl_config(recipe, make_task(recipe), tmp_path)
    assert str(refused.value).endswith(said)


def test_a_method_may_set_its_learning_rate_and_clipping(tmp_path: Path) -> None:
    recipe = load_recipe("countdown_cpu", ["methods.progrpo.epsilon=0.1", "methods.progrpo.learning_rate=1e-5"])
    config = trl_config(recipe, make_task(recipe), tmp_path)
    assert (config.epsilon, config.learning_rate) == (0.1, 1e-5)


@pytest.mark.parametrize(
    ("updates", "micro_batch", "processes", "expected"),
    [(1, None, 1, (512, 1, 1)), (4, None, 1, (128, 1, 4)), (4, 16, 2, (16, 4, 16)), (512, None, 1, (1, 1, 512))],
)
def test_a_rollout_serves_its_updates(
    updates: int, micro_batch: int | None, processes: int, expected: tuple[int, int, int]
) -> None:
    overrides = [f"training.updates_per_rollout={updates}"]
    overrides += [f"training.micro_batch={micro_batch}"] if micro_batch else []
    made = batch_settings(load_recipe("countdown_cpu", overrides), processes)
    names = ("per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation")
    assert tuple(made[name] for name in names) == expected


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["training.updates_per_rollout=5"], "training.updates_per_rollout is 5, which does not divide the 512"),
        (
            ["training.updates_per_rollout=4", "training.micro_batch=256"],
            "training.prompts_per_step * training.group_size / training.updates_per_rollout is 128, which 1 process",
        ),
    ],
)
def test_updates_that_do_not_divide_a_rollout_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        batch_settings(load_recipe("countdown_cpu", overrides), 1)
    assert said in str(refused.value)


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
