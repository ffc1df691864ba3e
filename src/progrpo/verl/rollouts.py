"""The responses of a step on verl, written as a run folder's rollout table (:mod:`progrpo.runs.rollouts`).

``+trainer.progrpo_rollouts.folder=FOLDER`` makes the trainer write them. With ``+trainer.progrpo_rollouts.every=10`` it
writes the first step and every tenth step. ``+trainer.progrpo_rollouts.updates=4`` says that a rollout serves four
optimiser steps, which a run folder counts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progrpo.core.advantages import is_correct
from progrpo.runs.rollouts import is_recorded, rollout_file, write_rollout
from progrpo.verify.thinking import begin_thinking, ends_in_thinking
from progrpo.verl.batch import Responses

SETTING = "trainer.progrpo_rollouts"


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
        setting: ``folder``, ``every`` and ``updates``.
        verl_step: the number of this step, as verl counts them.
        infos: for each response, what the reward function returned beside its score.
        tokens: for each response, ``prompts`` and ``responses`` (token ids) and ``old_log_probs`` (nats).
    """
    every, updates = setting.get("every", 1), setting.get("updates", 1)
    step = (verl_step - 1) * updates + 1
    if not is_recorded(step, every, updates):
        return
    failed_S = responses.failed_S
    is_right_S = is_correct(responses.correct_rewards_S, correct_above)
    token_ids = [row.tolist() for row in tokens["responses"]]
    prompts = [tokenizer.decode(row, skip_special_tokens=True) for row in tokens["prompts"]]
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in token_ids]
    values = {
        "step": step,
        "group": responses.groups_S.tolist(),
        "problem_id": [info.get("problem_id") for info in infos],
        "prompt": prompts,
        "text": [
            begin_thinking(text) if ends_in_thinking(prompt) else text
            for prompt, text in zip(prompts, texts, strict=True)
        ],
        "status": [
            "error" if failed else "correct" if right else "incorrect"
            for failed, right in zip(failed_S.tolist(), is_right_S.tolist(), strict=True)
        ],
        "reason": [info.get("reason", "") for info in infos],
        "canonical": responses.solutions,
        "token_ids": token_ids,
        "logps": [row[: len(ids)].tolist() for row, ids in zip(tokens["old_log_probs"], token_ids, strict=True)],
        "reward": responses.rewards_S.masked_fill(failed_S, torch.nan).tolist(),
        "prompt_confidence": responses.prompt_confidence_S.tolist(),
        "answer_confidence": responses.answer_confidence_S.tolist(),
        "grpo_advantage": responses.advantages_S.tolist(),
        "correction": (advantages_S - responses.advantages_S).tolist(),
        "advantage": advantages_S.tolist(),
    }
    write_rollout(rollout_file(Path(setting["folder"]), step), values)
