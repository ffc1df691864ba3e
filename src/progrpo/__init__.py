"""progrpo: reinforcement learning with verifiable rewards that keeps exploring.

======================  ==================================================================================
``progrpo.core``        the method as tensor functions, which need torch alone
``progrpo.trl``         the drop-in trainer for TRL: ``ProGRPOConfig`` and ``ProGRPOTrainer``
``progrpo.verl``        the plugin for verl on Ray
``progrpo.tasks``       prompts and their verifiers; ``progrpo.verify`` has the verifiers alone
``progrpo.evaluation``  pass@k, diversity and entropy, with intervals
======================  ==================================================================================

``import progrpo`` loads nothing else: torch is loaded where one of the functions below is first used (PEP 562).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from progrpo.core import (
        answer_confidence,
        arm_advantages,
        clipped_surrogate,
        group_relative_advantages,
        low_probability_mask,
        prompt_confidence,
        token_mean,
    )

    __version__: str

__all__ = [
    "__version__",
    "answer_confidence",
    "arm_advantages",
    "clipped_surrogate",
    "group_relative_advantages",
    "low_probability_mask",
    "prompt_confidence",
    "token_mean",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("progrpo")
    if name in __all__:
        from progrpo import core

        return getattr(core, name)
    raise AttributeError(f"module 'progrpo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
