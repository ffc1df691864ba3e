"""A small but real setting: the shipped model, countdown problems with three numbers, TRL's trainer and ours."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from progrpo.sampling.models import load_model
from progrpo.tasks import Countdown
from progrpo.tasks.rewards import task_reward

SETTINGS: dict[str, Any] = {
    "max_steps": 3,
    "num_generations": 4,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "max_completion_length": 14,
    "epsilon_high": 0.28,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "disable_tqdm": True,
    "seed": 3,
}


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Any]:
    """A trainer on 32 problems: ``make_trainer(ProGRPOTrainer, alpha=1.0, ...)``; other keywords are settings."""
    # Imported here and not above, because the tests of verl run where TRL is not installed.
    from datasets import Dataset

    from progrpo.trl import ProGRPOConfig, ProGRPOTrainer
    from trl import GRPOConfig

    def make(trainer_class: Any = ProGRPOTrainer, **settings: Any) -> Any:
        kwargs = {
            name: settings.pop(name)
            for name in (
                "eval_dataset",
                "rollout_func",
                "peft_config",
                "on_rollout",
                "canonical_form",
                "callbacks",
                "tools",
                "processing_class",
                "model",
                "train_dataset",
            )
            if name in settings
        }
        model, tokenizer = load_model("countdown")
        task = Countdown(numbers=3, train_size=32, heldout_size=8)
        config_class = ProGRPOConfig if issubclass(trainer_class, ProGRPOTrainer) else GRPOConfig
        defaults = {"train_dataset": Dataset.from_list(task.train_problems()), "processing_class": tokenizer}
        reward_funcs, after_config = settings.pop("reward_funcs", task_reward(task)), settings.pop("after_config", None)
        config = config_class(output_dir=str(tmp_path / "out"), **SETTINGS | settings)
        if after_config is not None:
            after_config(config)
        return trainer_class(
            kwargs.pop("model", model),
            reward_funcs,
            config,
            **defaults | kwargs,
        )

    return make
