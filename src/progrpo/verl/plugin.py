"""verl's entry point loads this module in every process that imports verl; it registers the trainer when needed.

verl loads its plugins before everything else. Importing verl's trainers here would fix the hardware platform before
another plugin can register its own, and would cost every process seconds. The trainer is therefore registered right
after ``verl.trainer.ppo.v1`` has been imported. verl hides the failure of a plugin. If the trainer can't be loaded, a
class is therefore registered that raises the error when verl makes its trainer.
"""

from importlib import import_module
from typing import Any

import wrapt

from progrpo.common.errors import ConfigError
from progrpo.verl.check import TRAINER_MODE, TRAINERS


def register(trainers: Any) -> None:
    """Register the trainer or, if it can't be loaded, a class that says why.

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
