"""A batch in verl's nested tensors, its ProGRPO advantages, its rollout table: functions that do not import verl.

Axis suffixes: B rows of the batch, S responses (a response of several turns may be several rows), P prompt tokens,
T response tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from progrpo.common.errors import ConfigError
from progrpo.core import arm_advantages, group_relative_advantages
from progrpo.core.advantages import is_correct
from progrpo.core.exploration import exploration_metrics, solution_digest
from progrpo.core.masking import at_least_float32
from progrpo.methods.arm import ArmOptions
from progrpo.runs.rollouts import is_recorded, rollout_file, write_rollout
from progrpo.verify.thinking import begin_thinking, ends_in_thinking

VERL_EPS = 1e-6
"""verl's GRPO adds this to the standard deviation."""


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
    """The value of each row at its first counted token, shape (B,); 0 where no token counts."""
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
    """The responses of one step, without the rows that verl adds as padding.

    ``rewards_S`` is the sum of a response's token-level scores, NaN where the verifier failed. ``shaped_rewards_S``,
    from which verl's GRPO made ``advantages_S``, may include the KL penalty.
    """

    advantages_S: Tensor
    rewards_S: Tensor
    shaped_rewards_S: Tensor
    correct_rewards_S: Tensor
    """The reward that says whether a response is right; see :func:`correct_rewards`."""
    groups_S: Tensor
    prompt_confidence_S: Tensor
    answer_confidence_S: Tensor
    solutions: list[str | None]
    """The canonical form of each right response."""


def correct_rewards(infos: Sequence[Mapping[str, Any]], rewards_S: Tensor, name: str | None) -> Tensor:
    """The reward that says whether a response is right, shape (S,); NaN where ``rewards_S`` is.

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
    return rewards_S.new_tensor(values).masked_fill(rewards_S.isnan(), torch.nan)


def without_failures(responses: Responses, *, scale: str = "group") -> Responses:
    """The same responses, with A computed without those that the verifier failed on: they have A = 0.

    verl had counted their score of 0 as a wrong answer. Groups without a failure keep verl's A to the bit.
    ``scale="none"`` is Dr. GRPO's (``algorithm.norm_adv_by_std_in_grpo=False``).
    """
    r, failed_S = responses, responses.rewards_S.isnan()
    if not failed_S.any():
        return r
    rewards_S = r.shaped_rewards_S.masked_fill(failed_S, torch.nan)
    without_S = group_relative_advantages(rewards_S, r.groups_S, scale=scale, eps=VERL_EPS)
    affected_S = torch.isin(r.groups_S, r.groups_S[failed_S])
    return replace(r, advantages_S=torch.where(affected_S, without_S.to(r.advantages_S.dtype), r.advantages_S))


def progrpo_advantages(responses: Responses, options: ArmOptions) -> tuple[Tensor, dict[str, float]]:
    """A~ of each response, shape (S,), and the step's metrics. With ``alpha=0`` A~ is A bit for bit.

    ``responses`` are those that :func:`without_failures` returned.
    """
    r = responses
    rule: dict[str, Any] = {"activation": options.activation, "correct_above": options.correct_above}
    confidences = (r.prompt_confidence_S, r.answer_confidence_S)
    advantages_S = arm_advantages(
        r.advantages_S,
        r.correct_rewards_S,
        *confidences,
        r.groups_S,
        alpha=options.alpha,
        center=options.center,
        **rule,
    )
    metrics = exploration_metrics(
        r.rewards_S,
        r.groups_S,
        torch.tensor([solution_digest(form) for form in r.solutions]),
        *confidences,
        advantages_S - r.advantages_S,
        correct_rewards_B=r.correct_rewards_S,
        **rule,
    )
    return advantages_S, metrics | {"verifier/errors": r.rewards_S.isnan().float().mean().item()}


def write_rollouts(
    setting: Mapping[str, Any],
    verl_step: int,
    tokenizer: Any,
    responses: Responses,
    advantages_S: Tensor,
    infos: Sequence[Mapping[str, Any]],
    tokens: Mapping[str, Sequence[Tensor]],
    correct_above: float = 0.0,
) -> None:
    """Write a step's responses as ``step-000010-rank0.parquet``, if the setting asks for those of this step.

    Args:
        setting: ``+trainer.progrpo_rollouts``. ``folder`` is where to write. With ``every=10`` the first step and every
            tenth are written. With ``updates=4`` a rollout serves four optimiser steps, which a run folder counts.
        verl_step: the number of this step, as verl counts them.
        infos: for each response, what the reward function returned beside its score.
        tokens: for each response, ``prompts`` and ``responses`` (token ids) and ``old_log_probs`` (nats).
    """
    every, updates = setting.get("every", 1), setting.get("updates", 1)
    step = (verl_step - 1) * updates + 1
    if not is_recorded(step, every, updates):
        return
    r, is_right_S = responses, is_correct(responses.correct_rewards_S, correct_above)
    token_ids = [row.tolist() for row in tokens["responses"]]
    prompts, texts = (
        [tokenizer.decode(row, skip_special_tokens=True) for row in rows] for rows in (tokens["prompts"], token_ids)
    )
    values = {
        "step": step,
        "group": r.groups_S.tolist(),
        "problem_id": [info.get("problem_id") for info in infos],
        "prompt": prompts,
        "text": [
            begin_thinking(text) if ends_in_thinking(prompt) else text
            for prompt, text in zip(prompts, texts, strict=True)
        ],
        "status": [
            "error" if math.isnan(reward) else "correct" if right else "incorrect"
            for reward, right in zip(r.rewards_S.tolist(), is_right_S.tolist(), strict=True)
        ],
        "reason": [info.get("reason", "") for info in infos],
        "canonical": r.solutions,
        "token_ids": token_ids,
        "logps": [row[: len(ids)].tolist() for row, ids in zip(tokens["old_log_probs"], token_ids, strict=True)],
        "reward": r.rewards_S.tolist(),
        "prompt_confidence": r.prompt_confidence_S.tolist(),
        "answer_confidence": r.answer_confidence_S.tolist(),
        "grpo_advantage": r.advantages_S.tolist(),
        "correction": (advantages_S - r.advantages_S).tolist(),
        "advantage": advantages_S.tolist(),
    }
    write_rollout(rollout_file(Path(setting["folder"]), step), values)
