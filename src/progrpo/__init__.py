"""progrpo: reinforcement learning with verifiable rewards that keeps exploring.

``progrpo.core`` holds the method (torch only), ``progrpo.trl.trainer`` the drop-in trainer,
``progrpo.tasks`` and ``progrpo.verify`` prompts and verifiers, ``progrpo.evaluation`` pass@k and diversity.
Importing ``progrpo`` loads torch and nothing heavier.
"""

from importlib.metadata import version

from progrpo.core import (
    answer_confidence,
    arm_advantages,
    clipped_surrogate,
    group_relative_advantages,
    low_probability_mask,
    prompt_confidence,
    token_mean,
)

__version__ = version("progrpo")
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
