"""verl's entry point loads this module in every process that imports verl; it registers the trainer when needed.

verl loads its plugins before everything else. To import verl's trainers here would fix the hardware platform before
another plugin can register its own, and would cost every process seconds. The trainer is therefore registered right
after ``verl.trainer.ppo.v1`` has been imported. verl hides the failure of a plugin: here a class takes the trainer's
place and raises the error when verl makes the trainer.
"""

from importlib import import_module
from typing import Any

import wrapt

from progrpo.common.errors import ConfigError
from progrpo.verl.check import TRAINER_MODE, TRAINERS


def register(trainers: Any) -> None:
    """Register the trainer, or in its place a class that says why there is none.

    Args:
        trainers: verl's package of trainers, just imported.
    """
    try:
        import_module("progrpo.verl.trainer")
    except Exception as error:
        message = f"progrpo's trainer for verl can't be loaded: {type(error).__name__}: {error}"

        @trainers.register_trainer(TRAINER_MODE)
        class PluginFailed(trainers.PPOTrainerSync):
            problem = message

            def __init__(self, config: object) -> None:
                raise ConfigError(message)


wrapt.register_post_import_hook(register, TRAINERS)
