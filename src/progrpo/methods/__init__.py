"""The table of methods: each is a set of settings for the same trainer, so that methods differ in nothing else.

The settings are fields of :class:`progrpo.trl.trainer.ProGRPOConfig`. ``alpha=0`` is TRL's GRPOTrainer, bit for bit. A
recipe may override them under ``[methods.NAME]``.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Method:
    """A method: its title, the arXiv number of its paper, and its settings."""

    title: str
    paper: str
    settings: dict[str, Any]


SHARED_SETTINGS = {"loss_type": "dapo", "scale_rewards": "group", "importance_sampling_level": "token"}
"""The settings of a method that does not set them. The loss ``dapo`` is a mean over the tokens of the global batch."""

METHODS = {
    "grpo": Method("GRPO", "2402.03300", {"alpha": 0.0}),
    "dr_grpo": Method("Dr. GRPO", "2503.20783", {"alpha": 0.0, "loss_type": "dr_grpo", "scale_rewards": "none"}),
    "gspo": Method(
        "GSPO",
        "2507.18071",
        {
            "alpha": 0.0,
            "loss_type": "grpo",
            "importance_sampling_level": "sequence",
            "epsilon": 3e-4,
            "epsilon_high": 4e-4,
        },
    ),
    "entropy_bonus": Method("GRPO + entropy bonus", "1602.01783", {"alpha": 0.0, "entropy_coef": 0.01}),
    "high_entropy_tokens": Method(
        "GRPO on the 20 % most uncertain tokens", "2506.01939", {"alpha": 0.0, "top_entropy_quantile": 0.2}
    ),
    "progrpo": Method("ProGRPO", "2602.05281", {"alpha": 1.0, "center": "prompt"}),
    "progrpo_group": Method("ProGRPO, centred on the group", "2602.05281", {"alpha": 1.0, "center": "group"}),
    "progrpo_correct": Method("ProGRPO, centred on the correct", "2602.05281", {"alpha": 3.0, "center": "correct"}),
}
