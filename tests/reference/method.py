"""The formulas of ``progrpo.core``, one response and one token at a time, in Python floats (float64)."""

import math

import torch
from torch import Tensor


def prompt_confidence(logps: list[float], mask: list[bool]) -> float:
    """c(q) of one prompt."""
    counted = [logp for logp, counts in zip(logps, mask, strict=True) if counts]
    return math.exp(sum(counted) / len(counted)) if counted else math.nan


def low_prob_count(length: int, fraction: float) -> int:
    """|T_low| of a response of this length."""
    return max(1, math.ceil(round(fraction * length, 9))) if length else 0


def low_probability_places(logps: list[float], mask: list[bool], fraction: float) -> list[int]:
    """The places of T_low in one row, the least likely first; of equals, the earlier one."""
    counted = [place for place, counts in enumerate(mask) if counts]
    ranked = sorted(counted, key=lambda place: (logps[place], place))
    return ranked[: low_prob_count(len(counted), fraction)]


def answer_confidence(logps: list[float], mask: list[bool], fraction: float) -> float:
    """c(o|q) of one response."""
    lowest = [logps[place] for place in low_probability_places(logps, mask, fraction)]
    return math.exp(sum(lowest) / len(lowest)) if lowest else math.nan


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _sample_std(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    mean = _mean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def group_relative_advantages(rewards: list[float], groups: list[int], scale: str, eps: float) -> list[float]:
    """A_i, by a loop over responses that looks up its group each time."""
    everyone = [r for r in rewards if not math.isnan(r)]
    advantages = []
    for reward, group in zip(rewards, groups, strict=True):
        others = [r for r, g in zip(rewards, groups, strict=True) if g == group and not math.isnan(r)]
        if math.isnan(reward) or len(set(others)) == 1:
            advantages.append(0.0)
            continue
        deviation = reward - _mean(others)
        if scale == "group":
            deviation /= _sample_std(others) + eps
        elif scale == "batch":
            deviation /= _sample_std(everyone) + eps
        advantages.append(deviation)
    return advantages


def arm_advantages(
    advantages: list[float],
    rewards: list[float],
    prompt_confidences: list[float],
    answer_confidences: list[float],
    groups: list[int],
    *,
    alpha: float,
    activation: str,
    center: str,
    correct_above: float = 0.0,
) -> list[float]:
    """A~_i, by a loop over responses that looks up its group each time."""
    reweighted = []
    for i, advantage in enumerate(advantages):
        members = [k for k, group in enumerate(groups) if group == groups[i] and not math.isnan(rewards[k])]
        correct = [k for k in members if rewards[k] > correct_above]
        active = bool(correct) and (activation == "any_correct" or len(correct) < len(members))
        kept = i not in members or math.isnan(answer_confidences[i]) or (center == "correct" and i not in correct)
        if not active or kept:
            reweighted.append(advantage)
            continue
        if center == "prompt":
            reference = prompt_confidences[i]
        else:
            pool = members if center == "group" else correct
            reference = _mean([answer_confidences[k] for k in pool if not math.isnan(answer_confidences[k])])
        if math.isnan(reference):
            reweighted.append(advantage)
            continue
        reweighted.append(advantage + alpha * (reference - answer_confidences[i]))
    return reweighted


def clipped_surrogate_token(
    logp: float, old_logp: float, advantage: float, clip_low: float, clip_high: float
) -> tuple[float, float]:
    """The loss of one token and its derivative with respect to ``logp``."""
    ratio = math.exp(logp - old_logp)
    clipped = min(max(ratio, 1 - clip_low), 1 + clip_high)
    if ratio * advantage <= clipped * advantage:
        return -ratio * advantage, -ratio * advantage
    return -clipped * advantage, 0.0


def token_mean(values: list[list[float]], mask: list[list[bool]]) -> float:
    counted = [v for row, m in zip(values, mask, strict=True) for v, counts in zip(row, m, strict=True) if counts]
    return _mean(counted) if counted else 0.0


def sequence_mean(values: list[list[float]], mask: list[list[bool]]) -> float:
    return _mean([token_mean([row], [m]) for row, m in zip(values, mask, strict=True)])


def constant_mean(values: list[list[float]], mask: list[list[bool]], max_tokens: int) -> float:
    total = 0.0
    for row, row_mask in zip(values, mask, strict=True):
        for value, counts in zip(row, row_mask, strict=True):
            total += value if counts else 0.0
    return total / (len(values) * max_tokens)


def token_logps(logits_BTV: Tensor, tokens_BT: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-prob and entropy of every token by a whole float64 log-softmax, token by token."""
    logps_BTV = (logits_BTV.double() / temperature).log_softmax(dim=-1)
    logps, entropies = [], []
    for b in range(tokens_BT.shape[0]):
        for t in range(tokens_BT.shape[1]):
            distribution_V = logps_BTV[b, t]
            logps.append(distribution_V[int(tokens_BT[b, t])])
            entropies.append(-(distribution_V.exp() * distribution_V).sum())
    return torch.stack(logps).view(tokens_BT.shape), torch.stack(entropies).view(tokens_BT.shape)
