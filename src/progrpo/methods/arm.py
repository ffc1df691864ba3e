"""ProGRPO's re-weighting of advantages (ARM): its options, and warnings where it does not act as the user expects."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from progrpo.common.errors import ConfigError
from progrpo.core.advantages import ACTIVATIONS, CENTERS, activated_groups
from progrpo.core.checks import check_choice, check_number

logger = logging.getLogger(__name__)

QUIET_STEPS = 20
"""After this many steps without an activated group, :class:`ActivationWatch` warns."""


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class ArmOptions:
    """The options of ProGRPO's advantage re-weighting (:func:`progrpo.core.arm_advantages`), the same for every engine.

    The paper's ``alpha`` was not available: the default is ours. A ValueError is raised if an option is outside its
    range.

    >>> ArmOptions(alpha=-1.0)
    Traceback (most recent call last):
    ValueError: alpha must be a number in [0.0, inf), got -1.0.
    """

    alpha: float = _option(1.0, "Strength of the confidence correction; 0 is GRPO.")
    low_prob_fraction: float = _option(0.2, "Share of least likely tokens that the answer confidence is taken over.")
    activation: str = _option("any_correct", "Groups that are re-weighted: 'any_correct' or 'mixed'.")
    center: str = _option("prompt", "What the answer confidence is compared with: prompt, group or correct.")
    correct_above: float = _option(0.0, "A response is right if its reward is above this.")
    correct_reward: str | None = _option(None, "Name of the reward that says what is right; None: the weighted sum.")

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, low=0.0)
        check_number("low_prob_fraction", self.low_prob_fraction, low=0.0, high=1.0, open_low=True)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("center", self.center, CENTERS)
        check_number("correct_above", self.correct_above, low=-math.inf)
        if self.correct_reward is not None and not (isinstance(self.correct_reward, str) and self.correct_reward):
            raise ValueError(f"correct_reward must be the name of a reward, or None, got {self.correct_reward!r}.")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any], *, where: str) -> "ArmOptions":
        """Options from a configuration file or a command line; ``where`` is what the user calls their place.

        Raises:
            ConfigError: an option is unknown, or outside its range.

        >>> ArmOptions.from_mapping({"alhpa": 0.5}, where="algorithm.progrpo")
        Traceback (most recent call last):
        progrpo.common.errors.ConfigError: algorithm.progrpo has no option 'alhpa'; it takes alpha, low_prob_fraction, \
activation, center, correct_above, correct_reward.
        """
        known = [option.name for option in fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(f"{where} has no option {name!r}; it takes {', '.join(known)}.")
        try:
            return cls(**options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where}.{error}") from None


class ActivationWatch:
    """Warns once about each of two things that nothing else shows, unless ``alpha`` is 0.

    The first is that the rewards are graded, so that the user should say which of them count as right, unless they know
    it already. The second is that ARM has acted on no group for ``QUIET_STEPS`` training steps in a row, so that the
    advantages are those of GRPO; the warning gives the reason.
    """

    def __init__(self, options: ArmOptions, *, knows_what_is_right: bool = False) -> None:
        self._options = options
        self._knows = knows_what_is_right or options.correct_reward is not None or options.correct_above != 0
        self._first_quiet_step: int | None = None
        self._lowest, self._highest = math.inf, -math.inf
        self._is_over = options.alpha == 0

    def see(self, step: int, correct_rewards_B: Tensor, groups_B: Tensor) -> None:
        """Take the responses of a training step's generation into account."""
        if self._is_over:
            return
        scored = correct_rewards_B[~correct_rewards_B.isnan()]
        lowest, highest = (scored.min().item(), scored.max().item()) if len(scored) else (math.inf, -math.inf)
        if not self._knows and len(scored.unique()) > 2:
            self._knows = True
            logger.warning(
                f"The rewards are graded, from {lowest:g} to {highest:g} in this step: a response counts as right if "
                "its reward is above correct_above=0. Set correct_above, or correct_reward to the name of the reward "
                "that says what is right."
            )
        activation, correct_above = self._options.activation, self._options.correct_above
        if activated_groups(correct_rewards_B, groups_B, activation=activation, correct_above=correct_above).any():
            self._first_quiet_step, self._lowest, self._highest = None, math.inf, -math.inf
            return
        self._lowest, self._highest = min(self._lowest, lowest), max(self._highest, highest)
        self._first_quiet_step = step if self._first_quiet_step is None else self._first_quiet_step
        if step - self._first_quiet_step + 1 >= QUIET_STEPS:
            self._is_over = True
            logger.warning(
                f"No group was re-weighted in steps {self._first_quiet_step} to {step}, so the advantages are those of "
                f"GRPO: {self._reason()}"
            )

    def _reason(self) -> str:
        name, correct_above = self._options.correct_reward, self._options.correct_above
        reward = f"reward {name!r}" if name else "reward"
        if self._highest == -math.inf:
            return f"no response had a {reward} at all."
        if self._highest <= correct_above:
            return (
                f"no response's {reward} was above correct_above={correct_above:g}, the highest was "
                f"{self._highest:g}. If some of them were right, set correct_above below what a right response gets, "
                "or correct_reward to the name of the reward that says whether a response is right."
            )
        return (
            f"activation='mixed' needs right and wrong responses in one group, and none had both: a response is right "
            f"if its {reward} is above correct_above={correct_above:g}, and the rewards were from {self._lowest:g} "
            f"to {self._highest:g}. Set correct_above or correct_reward, or activation='any_correct'."
        )
