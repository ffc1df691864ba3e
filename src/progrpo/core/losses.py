"""Per-token policy-gradient losses. The reductions of ``masking.py`` turn them into one number."""

import torch
from torch import Tensor

from progrpo.core.checks import check_axes, check_number
from progrpo.core.masking import at_least_float32


def clipped_surrogate(
    logps_BT: Tensor, old_logps_BT: Tensor, advantages_B: Tensor, *, clip_low: float = 0.2, clip_high: float = 0.28
) -> Tensor:
    r"""Per-token loss (to be minimised) of the clipped surrogate with asymmetric clipping.

    .. math::
        \ell_{it} = -\min\big(\rho_{it} A_i,\;
            \mathrm{clip}(\rho_{it}, 1 - \epsilon_{low}, 1 + \epsilon_{high}) A_i\big),
        \qquad \rho_{it} = \exp(\log \pi_{it} - \log \pi^{old}_{it})

    Args:
        logps_BT: log-probs of the sampled tokens under the policy being trained, in nats, shape (B, T).
        old_logps_BT: the same under the policy that sampled them, shape (B, T); it gets no gradient.
        advantages_B: one advantage per response, shape (B,); it gets no gradient.
        clip_low, clip_high: how far the ratio may fall below 1, in [0, 1], or rise above it, at least 0; equal values
            give PPO's clipping.

    Returns:
        Shape (B, T), in float32 where all inputs are coarser. Masked-out tokens get a loss as well: reduce with a mask,
        and keep NaN out of their log-probs, because their gradient would be NaN.

    Source: PPO (arXiv 1707.06347, Eq. 7) with DAPO's asymmetric bounds (arXiv 2503.14476, Eq. 10); ProGRPO's objective
    (arXiv 2602.05281) is minus its :func:`~progrpo.core.masking.token_mean`.

    >>> old, new = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    >>> clipped_surrogate(new, old, torch.tensor([1.0]))
    tensor([[-1.2800, -0.2000]])
    """
    check_axes("logps_BT", logps_BT)
    check_axes("old_logps_BT", old_logps_BT, "logps_BT", logps_BT)
    check_axes("advantages_B", advantages_B, "a column of logps_BT", logps_BT.new_empty(len(logps_BT)))
    check_number("clip_low", clip_low, low=0.0, high=1.0)
    check_number("clip_high", clip_high, low=0.0)
    ratio_BT = torch.exp(at_least_float32(logps_BT) - at_least_float32(old_logps_BT.detach()))
    advantages_B1 = advantages_B.detach()[:, None]
    return -torch.minimum(ratio_BT * advantages_B1, ratio_BT.clamp(1 - clip_low, 1 + clip_high) * advantages_B1)
