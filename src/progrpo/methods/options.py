"""ARM's options, the same in every adapter."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.core.advantages import ACTIVATIONS, CENTERS
from progrpo.core.checks import check_choice, check_number


@dataclass(frozen=True)
class ArmOptions:
    """The options of ProGRPO's advantage re-weighting; see :func:`progrpo.core.arm_advantages`.

    Args:
        alpha, low_prob_fraction, activation, center: of the formulas.
        correct_above: a response is right if its reward is above this number.
        correct_reward: the name of the reward that says so; None takes the reward that the advantages are made from.

    Raises:
        ValueError: an option outside its range.

    >>> ArmOptions(alpha=-1.0)
    Traceback (most recent call last):
    ValueError: alpha must be a number in [0.0, inf), got -1.0.
    """

    alpha: float = 1.0
    low_prob_fraction: float = 0.2
    activation: str = "any_correct"
    center: str = "prompt"
    correct_above: float = 0.0
    correct_reward: str | None = None

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, low=0.0)
        check_number("low_prob_fraction", self.low_prob_fraction, low=0.0, high=1.0, open_low=True)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("center", self.center, CENTERS)
        check_number("correct_above", self.correct_above, low=-math.inf)
        if self.correct_reward is not None and not (isinstance(self.correct_reward, str) and self.correct_reward):
            raise ValueError(f"correct_reward must be the name of a reward, or None, got {self.correct_reward!r}.")

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any], *, where: str) -> "ArmOptions":
        """Options read from a configuration file or a command line.

        Args:
            given: by name; what is left out has its default.
            where: what the user calls the place, for messages.

        Raises:
            ConfigError: an unknown option, or one outside its range.

        >>> ArmOptions.from_mapping({"alpha": 0.5}, where="algorithm.progrpo").center
        'prompt'
        >>> ArmOptions.from_mapping({"alhpa": 0.5}, where="algorithm.progrpo")
        Traceback (most recent call last):
        progrpo.common.errors.ConfigError: algorithm.progrpo has no option 'alhpa'; it takes alpha, low_prob_fraction, \
activation, center, correct_above, correct_reward.
        """
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise ConfigError(f"{where} has no option {name!r}; it takes {', '.join(known)}.")
        try:
            return cls(**given)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where}.{error}") from None
