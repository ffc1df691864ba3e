"""How confident the policy is in a prompt and in its own answers."""

import torch
from torch import Tensor

from progrpo.core.checks import check_masked, check_number, check_values
from progrpo.core.masking import at_least_float32, token_counts

# The rounding of a log-softmax in bfloat16 can exceed 0 by a little; a probability passed by mistake exceeds it by far.
LOGP_ROUNDING = 1e-2


def prompt_confidence(logps_BP: Tensor, mask_BP: Tensor) -> Tensor:
    r"""Confidence in the prompt: the inverse of its perplexity.

    .. math:: c(q) = \exp\Big(\frac{1}{M} \sum_{m=1}^{M} \log \pi(q_m \mid q_{<m})\Big)

    Args:
        logps_BP: log-prob of each prompt token given those before it, in nats, shape (B, P); finite and at most 0
            where it counts. The first token has no log-prob: leave it out, or mask it out.
        mask_BP: bool, shape (B, P); True counts.

    Returns:
        Shape (B,), in (0, 1], without gradient; float64 for float64 log-probs, float32 for all others. NaN for a prompt
        with no token that counts (a prompt of one token).

    Source: ProGRPO (arXiv 2602.05281), prompt confidence c(q).

    >>> logps = torch.tensor([[0.5, 0.125], [0.5, 0.5]]).log()
    >>> prompt_confidence(logps, torch.tensor([[True, True], [True, False]]))
    tensor([0.2500, 0.5000])
    """
    check_masked("logps_BP", logps_BP, "mask_BP", mask_BP)
    return _exp_mean(_counted_logps("logps_BP", logps_BP, mask_BP).sum(dim=1), token_counts(mask_BP))


def answer_confidence(logps_BT: Tensor, mask_BT: Tensor, *, low_prob_fraction: float = 0.2) -> Tensor:
    r"""Confidence in each response, over its least likely tokens only.

    .. math:: c(o|q) = \exp\Big(\frac{1}{|T_{low}|} \sum_{t \in T_{low}} \log \pi(o_t \mid q, o_{<t})\Big)

    :math:`T_{low}` holds the ``ceil(low_prob_fraction * T_i)`` tokens of response i with the lowest probability, at
    least one (:func:`low_probability_mask` marks them). About 80 % of the tokens of a reasoning chain are near certain,
    and the mean over all tokens would hide the signal.

    Args:
        logps_BT: log-prob of each sampled token under the policy that sampled it, in nats, shape (B, T); finite and
            at most 0 where it counts.
        mask_BT: bool, shape (B, T); True counts.
        low_prob_fraction: the share of a response's tokens that are in T_low, in (0, 1]; 1 is the whole response.

    Returns:
        Shape (B,), in (0, 1], without gradient; float64 for float64 log-probs, float32 for all others. NaN for a
        response with no token that counts.

    Source: ProGRPO (arXiv 2602.05281), answer confidence c(o|q) with low-probability token length normalisation.
    T_low is taken per response. The paper's text was not available, so it may be over the batch there.

    >>> logps = torch.tensor([[0.9, 0.1, 0.9, 0.4, 0.9], [0.5, 0.25, 0.1, 0.1, 0.1]]).log()
    >>> mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    >>> answer_confidence(logps, mask)
    tensor([0.1000, 0.2500])
    """
    counted_BT, counts_B = _counted_and_low(logps_BT, mask_BT, low_prob_fraction)
    k = int(counts_B.max()) if len(counts_B) else 0
    # Selecting k of T costs a fifth of sorting T. Rows with a smaller T_low use a prefix of their k. A masked-out
    # position holds 0, the highest log-prob possible, so it never comes before a token that counts and is less likely.
    lowest_BK = counted_BT.topk(k, dim=1, largest=False).values
    in_T_low_BK = torch.arange(k, device=lowest_BK.device) < counts_B[:, None]
    return _exp_mean(torch.where(in_T_low_BK, lowest_BK, 0.0).sum(dim=1), counts_B)


def low_probability_mask(logps_BT: Tensor, mask_BT: Tensor, *, low_prob_fraction: float = 0.2) -> Tensor:
    """T_low: True at the least likely tokens of each response. Of equally likely tokens the earlier ones come first.

    The result is bool, shape (B, T): ``ceil(low_prob_fraction * T_i)`` True in row i, at least 1 if any token counts.
    The product is rounded to 9 decimals first, so that 0.07 * 100 is 7, not 7.000000000000001. The arguments and
    the source are those of :func:`answer_confidence`.

    >>> logps = torch.tensor([[0.9, 0.1, 0.9, 0.4, 0.9]]).log()
    >>> low_probability_mask(logps, torch.ones(1, 5, dtype=torch.bool), low_prob_fraction=0.4)
    tensor([[False,  True, False,  True, False]])
    """
    counted_BT, counts_B = _counted_and_low(logps_BT, mask_BT, low_prob_fraction)
    lowest_first_BT = torch.where(mask_BT, counted_BT, torch.inf).argsort(dim=1, stable=True)
    in_T_low_BT = torch.arange(mask_BT.shape[1], device=mask_BT.device) < counts_B[:, None]
    return torch.zeros_like(mask_BT).scatter(1, lowest_first_BT, in_T_low_BT)


def _counted_and_low(logps_BT: Tensor, mask_BT: Tensor, low_prob_fraction: float) -> tuple[Tensor, Tensor]:
    """The checked log-probs that count (B, T), and the size of each row's T_low (B,)."""
    check_masked("logps_BT", logps_BT, "mask_BT", mask_BT)
    check_number("low_prob_fraction", low_prob_fraction, low=0.0, high=1.0, open_low=True)
    counted_BT = _counted_logps("logps_BT", logps_BT, mask_BT)
    return counted_BT, _low_prob_counts(token_counts(mask_BT), low_prob_fraction)


def _counted_logps(name: str, logps: Tensor, mask: Tensor) -> Tensor:
    """The log-probs that count, in float32 or float64, at most 0 and without gradient; 0 where the mask is False."""
    counted = torch.where(mask, at_least_float32(logps.detach()), 0.0)
    if counted.numel() == 0:
        return counted
    low, high = counted.aminmax()  # one pass, which keeps NaN
    if not (low.isfinite() and high <= LOGP_ROUNDING):
        rule = "hold finite log-probabilities (at most 0) where its mask is True"
        remedy = "pass log-softmax values, and mask out tokens whose log-prob is unknown"
        check_values(name, counted, ~(counted.isfinite() & (counted <= LOGP_ROUNDING)), rule, remedy)
    return counted.clamp_(max=0.0)


def _low_prob_counts(lengths_B: Tensor, low_prob_fraction: float) -> Tensor:
    """``ceil(fraction * length)`` of every length. The table is made in float64 on the CPU, because float32 is too
    coarse for 9 decimals and not every device has float64."""
    longest = int(lengths_B.max()) if len(lengths_B) else 0
    table = torch.arange(longest + 1, dtype=torch.float64).mul(low_prob_fraction).round(decimals=9).ceil().long()
    return torch.maximum(table.to(lengths_B.device)[lengths_B], lengths_B.clamp(max=1))


def _exp_mean(sums_B: Tensor, counts_B: Tensor) -> Tensor:
    """exp(sum / count), NaN where count is 0."""
    return torch.where(counts_B > 0, torch.exp(sums_B / counts_B.clamp(min=1)), torch.nan)
