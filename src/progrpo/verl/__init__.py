"""progrpo with verl on Ray: the engine of ``engine = "verl"``, and a plugin for verl runs of your own.

``plugin.py`` is what ``import verl`` loads; it registers the trainer of ``trainer.py``. ``run.py`` runs a recipe.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from progrpo.verl.trainer import ProGRPOTrainer

__all__ = ["ProGRPOTrainer"]


def __getattr__(name: str) -> Any:
    """Import the trainer where it is used: verl takes seconds to import."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from progrpo.verl import trainer

    return getattr(trainer, name)
