"""progrpo with TRL: a drop-in trainer, and the engine of ``engine = "trl"``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from progrpo.trl.trainer import ProGRPOConfig, ProGRPOTrainer, Rollout

__all__ = ["ProGRPOConfig", "ProGRPOTrainer", "Rollout"]


def __getattr__(name: str) -> Any:
    """Import TRL, which takes seconds, when one of these names is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from progrpo.trl import trainer

    return getattr(trainer, name)
