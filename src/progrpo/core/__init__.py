"""The method as pure tensor functions. This package imports torch and nothing else.

The names of tensors end in these axis suffixes::

    B  responses (rows of the batch)      T  response tokens
    P  prompt tokens                      V  vocabulary
    N  groups, one per prompt             D  hidden size

``groups_B`` holds an integer group id per response. Groups may be ragged and in any order. A mask is bool, and True
means that the token counts. Log-probs are natural logarithms (nats) at the sampling temperature.

Every function checks its arguments: a TypeError or a ValueError names the one whose type, shape, device or value is
wrong, and says what to do.

Paper: ProGRPO, arXiv 2602.05281. ``docs/method.md`` lists the function and the tests of each equation.
"""

from progrpo.core.advantages import arm_advantages, group_relative_advantages
from progrpo.core.confidence import answer_confidence, low_probability_mask, prompt_confidence
from progrpo.core.logprobs import token_logps, token_logps_from_hidden
from progrpo.core.losses import clipped_surrogate
from progrpo.core.masking import constant_mean, sequence_mean, token_mean

__all__ = [
    "answer_confidence",
    "arm_advantages",
    "clipped_surrogate",
    "constant_mean",
    "group_relative_advantages",
    "low_probability_mask",
    "prompt_confidence",
    "sequence_mean",
    "token_logps",
    "token_logps_from_hidden",
    "token_mean",
]
