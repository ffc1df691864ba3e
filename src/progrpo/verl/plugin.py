"""What verl's entry point loads, in every process that imports verl: the trainer is registered once it is needed.

verl loads its plugins before all else, and importing its trainers then would settle the hardware platform before
another plugin has registered its own, and cost every process seconds. So the trainer is registered right after
``verl.trainer.ppo.v1`` was imported. verl hides a plugin's failure; here it is kept, and said by the trainer in its
place.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from progrpo.common.errors import ConfigError
from progrpo.verl.check import TRAINER_MODE, TRAINERS


def register() -> None:
    """Register the trainer, or else one that says why it could not be."""
    try:
        import_module("progrpo.verl.trainer")
    except Exception as error:
        _register_failure(f"progrpo's trainer for verl can't be loaded: {type(error).__name__}: {error}")


def _register_failure(message: str) -> None:
    from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer

    @register_trainer(TRAINER_MODE)
    class PluginFailed(PPOTrainerSync):
        problem = message

        def __init__(self, config: object) -> None:
            raise ConfigError(message)


class AfterTrainers(MetaPathFinder):
    """Finds verl's trainers as the other finders do, and has ours registered when they are there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TRAINERS:
            return None
        others = (finder for finder in sys.meta_path if not isinstance(finder, AfterTrainers))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


if TRAINERS in sys.modules:
    register()
else:
    sys.meta_path.insert(0, AfterTrainers())
