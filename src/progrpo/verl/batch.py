"""A batch in verl's nested tensors, and its ProGRPO advantages: pure functions that do not import verl.

Axis suffixes: B rows of the batch, S responses (a response of several turns may be several rows), P prompt tokens,
T response tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from progrpo.common.errors import ConfigError
from progrpo.core import answer_confidence, arm_advantages, group_relative_advantages, prompt_confidence
from progrpo.core.exploration import exploration_metrics, solution_digest
from progrpo.core.masking import at_least_float32
from progrpo.methods.arm import ArmOptions

VERL_EPS = 1e-6
"""verl's GRPO adds this to the standard deviation."""


def confidences(logps: Tensor, response_mask: Tensor, *, low_prob_fraction: float) -> tuple[Tensor, Tensor]:
    """c(q) and c(o|q) of each row, shape (B,), from the log-probs of whole sequences; see :func:`split_logps`."""
    logps_BP, mask_BP, logps_BT, mask_BT = split_logps(logps, response_mask)
    return (
        prompt_confidence(logps_BP, mask_BP),
        answer_confidence(logps_BT, mask_BT, low_prob_fraction=low_prob_fraction),
    )


def split_logps(logps: Tensor, response_mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split the log-probs of whole sequences into those of the prompts and those of the responses.

    Args:
        logps: nested, (B, P + T): position j of a row has the log-prob of token j + 1; the last means nothing.
        response_mask: nested, (B, T); 1 at the tokens that the policy sampled.

    Returns:
        ``logps_BP, mask_BP, logps_BT, mask_BT``, padded on the right; masks are bool, True counts. The first token of
        a prompt has no log-prob, so P is one less than the longest prompt.

    >>> logps = torch.nested.nested_tensor([torch.tensor([-1.0, -2.0, -3.0, -4.0, 9.0])], layout=torch.jagged)
    >>> mask = torch.nested.nested_tensor([torch.tensor([1, 0])], layout=torch.jagged)
    >>> split_logps(logps, mask)
    (tensor([[-1., -2.]]), tensor([[True, True]]), tensor([[-3., -4.]]), tensor([[ True, False]]))
    """
    rows = [
        at_least_float32(row).split([len(row) - len(mask) - 1, len(mask), 1])
        for row, mask in zip(logps.unbind(), response_mask.unbind(), strict=True)
    ]
    logps_BP, logps_BT = (pad_sequence([row[part] for row in rows], batch_first=True) for part in (0, 1))
    mask_BP = pad_sequence([torch.ones_like(row[0], dtype=torch.bool) for row in rows], batch_first=True)
    return logps_BP, mask_BP, logps_BT, response_mask.to_padded_tensor(0) != 0


def final_rows(keys: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The row of each response's last output, shape (S,), and the place in S of each row's response, shape (B,).

    A key is verl's ``{prompt}_{response}_{output}``. An agent may give a response several outputs: verl's GRPO
    computes the advantage of the last one and hands it to all of them.

    >>> final_rows(["a_0_0", "a_1_0", "a_0_1"])
    (tensor([1, 2]), tensor([1, 0, 1]))
    """
    parts = pd.Series(keys).str.rsplit("_", n=1, expand=True)
    last = parts[1].astype(int).groupby(parts[0]).idxmax().sort_values()
    places = parts[0].map({response: place for place, response in enumerate(last.index)})
    return torch.tensor(last.tolist()), torch.tensor(places.tolist())


def per_response(values: Tensor, response_mask: Tensor) -> Tensor:
    """The value of each row at its first counted token, shape (B,); 0 where no token counts.

    >>> values = torch.nested.nested_tensor([torch.tensor([0.0, 0.5, 0.5])], layout=torch.jagged)
    >>> mask = torch.nested.nested_tensor([torch.tensor([0, 1, 1])], layout=torch.jagged)
    >>> per_response(values, mask)
    tensor([0.5000])
    """
    mask_BT = response_mask.to_padded_tensor(0) != 0
    first_B1 = mask_BT.byte().argmax(dim=1, keepdim=True)
    values_B = values.to_padded_tensor(0.0).gather(1, first_B1)[:, 0]
    return torch.where(mask_BT.any(dim=1), values_B, 0.0)


def per_token(values_B: Tensor, response_mask: Tensor) -> Tensor:
    """Each row's value at all its counted tokens, 0 at the others; nested as the mask is.

    >>> mask = torch.nested.nested_tensor([torch.tensor([1, 0, 1]), torch.tensor([1])], layout=torch.jagged)
    >>> per_token(torch.tensor([0.5, -1.0]), mask).values()
    tensor([ 0.5000,  0.0000,  0.5000, -1.0000])
    """
    offsets: Tensor = response_mask.offsets()  # type: ignore[attr-defined]
    values = torch.where(response_mask.values() != 0, values_B.repeat_interleave(offsets.diff()), 0.0)
    return torch.nested.nested_tensor_from_jagged(values, offsets)


@dataclass(frozen=True)
class Responses:
    """The responses of one step, without the rows that verl adds as padding."""

    advantages_S: Tensor
    """A, by verl's GRPO."""
    rewards_S: Tensor
    """The sum of a response's token-level scores."""
    shaped_rewards_S: Tensor
    """The reward that verl's GRPO used: the same, or with the KL penalty included."""
    correct_rewards_S: Tensor
    """The reward that says whether a response is right; see :func:`correct_rewards`."""
    failed_S: Tensor
    """bool: the verifier failed."""
    groups_S: Tensor
    prompt_confidence_S: Tensor
    answer_confidence_S: Tensor
    solutions: list[str | None]
    """The canonical form of each right response."""


def correct_rewards(infos: Sequence[Mapping[str, Any]], rewards_S: Tensor, name: str | None) -> Tensor:
    """The reward that says whether a response is right, shape (S,).

    Args:
        infos: for each response, what the reward function returned beside the score.
        rewards_S: the scores.
        name: a key of ``infos``, whose None becomes NaN; or None, which takes the scores.

    Raises:
        ConfigError: an info does not have this key, or its value is not a number.

    >>> correct_rewards([{"acc": True}, {"acc": None}], torch.tensor([0.9, 0.3]), "acc")
    tensor([1., nan])
    """
    if name is None:
        return rewards_S
    values = []
    for info in infos:
        if name not in info:
            raise ConfigError(
                f"correct_reward must be a key of what the reward function returns beside the score "
                f"({', '.join(info) or 'it returns nothing'}), got {name!r}."
            )
        try:
            values.append(math.nan if info[name] is None else float(info[name]))
        except (TypeError, ValueError):
            raise ConfigError(
                f"correct_reward must name a number, but for one response {name!r} is {info[name]!r}."
            ) from None
    return torch.tensor(values, dtype=rewards_S.dtype, device=rewards_S.device)


def without_failures(responses: Responses, *, scale: str = "group") -> Responses:
    """The same responses, with A computed without those that the verifier failed on.

    Such a response gets reward NaN and A = 0; verl had counted its score of 0 as a wrong answer. Groups without
    a failure keep verl's A to the bit.

    Args:
        responses: a reward of NaN counts as a failure.
        scale: ``"group"``, or ``"none"`` for Dr. GRPO (``algorithm.norm_adv_by_std_in_grpo=False``).
    """
    r = responses
    failed_S = r.failed_S | r.rewards_S.isnan()
    if not failed_S.any():
        return r
    affected_S = torch.isin(r.groups_S, r.groups_S[failed_S])
    without_S = group_relative_advantages(
        r.shaped_rewards_S.masked_fill(failed_S, torch.nan), r.groups_S, scale=scale, eps=VERL_EPS
    )
    return replace(
        r,
        advantages_S=torch.where(affected_S, without_S.to(r.advantages_S.dtype), r.advantages_S),
        rewards_S=r.rewards_S.masked_fill(failed_S, torch.nan),
        correct_rewards_S=r.correct_rewards_S.masked_fill(failed_S, torch.nan),
        failed_S=failed_S,
    )


def progrpo_advantages(responses: Responses, options: ArmOptions) -> tuple[Tensor, dict[str, float]]:
    """A~ of each response, shape (S,), and the step's metrics. With ``alpha=0`` A~ is A bit for bit.

    Args:
        responses: from :func:`without_failures`.
        options: the options of ARM.
    """
    r = responses
    advantages_S = arm_advantages(
        r.advantages_S,
        r.correct_rewards_S,
        r.prompt_confidence_S,
        r.answer_confidence_S,
        r.groups_S,
        alpha=options.alpha,
        activation=options.activation,
        center=options.center,
        correct_above=options.correct_above,
    )
    metrics = exploration_metrics(
        r.rewards_S,
        r.groups_S,
        torch.tensor([solution_digest(form) for form in r.solutions]),
        r.prompt_confidence_S,
        r.answer_confidence_S,
        advantages_S - r.advantages_S,
        activation=options.activation,
        correct_above=options.correct_above,
        correct_rewards_B=r.correct_rewards_S,
    )
    return advantages_S, metrics | {"verifier/errors": r.failed_S.float().mean().item()}
