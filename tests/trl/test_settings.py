"""A recipe as TRL's settings."""

from pathlib import Path

import pytest

from progrpo.common.errors import ConfigError
from progrpo.recipes.build import make_task
from progrpo.recipes.schema import load_recipe
from progrpo.trl.settings import batch_settings, trl_config


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
