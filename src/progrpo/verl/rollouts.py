"""The rollouts of a step on verl, written as those of a run folder are (``docs/run-folder.md``).

``+trainer.progrpo_rollouts.folder=FOLDER`` has the trainer write them, ``+trainer.progrpo_rollouts.every=10`` every
tenth step and the first. With ``+trainer.progrpo_rollouts.updates=4`` a rollout counts as the four optimiser steps that
it serves, as in a run folder, and has the number of the first of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progrpo.common.files import write_file
from progrpo.core.advantages import is_correct
from progrpo.verify.thinking import begin_thinking, ends_in_thinking
from progrpo.verl.batch import Responses

SETTING = "trainer.progrpo_rollouts"


def write_rollouts(
    setting: Mapping[str, Any] | None,
    step: int,
    tokenizer: Any,
    responses: Responses,
    advantages_S: Tensor,
    infos: Sequence[Mapping[str, Any]],
    tokens: Mapping[str, Sequence[Tensor]],
    correct_above: float = 0.0,
) -> None:
    """Write a step's responses as ``step-000010-rank0.parquet``, if the setting asks for them at this step.

    Args:
        setting: ``folder``, ``every`` and ``updates``; None writes nothing.
        step: the number of this step, as verl counts them.
        tokenizer: turns tokens into text.
        responses: of this step, S of them.
        advantages_S: A~.
        infos: what the reward function returned of each, beside its score.
        tokens: of each, ``prompts`` and ``responses`` (token ids) and ``old_log_probs`` (nats).
        correct_above: a response is right if its reward is above this number.
    """
    if setting is None:
        return
    every, updates = setting.get("every", 1), setting.get("updates", 1)
    step = (step - 1) * updates + 1
    if step != 1 and step // every == (step - updates) // every:
        return
    with write_file(Path(setting["folder"]) / f"step-{step:06d}-rank0.parquet") as beside:
        frame = rollout_frame(step, tokenizer, responses, advantages_S, infos, tokens, correct_above)
        frame.to_parquet(beside, index=False)


def rollout_frame(
    step: int,
    tokenizer: Any,
    responses: Responses,
    advantages_S: Tensor,
    infos: Sequence[Mapping[str, Any]],
    tokens: Mapping[str, Sequence[Tensor]],
    correct_above: float = 0.0,
) -> Any:
    """A table with one row a response, the group's together; arguments as in :func:`write_rollouts`."""
    import pandas as pd

    failed_S = responses.failed_S.tolist()
    rewards_S = responses.rewards_S.masked_fill(responses.failed_S, torch.nan)
    ids = [row.tolist() for row in tokens["responses"]]
    prompts = [tokenizer.decode(row, skip_special_tokens=True) for row in tokens["prompts"]]
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    status = [
        "error" if failed else "correct" if right else "incorrect"
        for failed, right in zip(failed_S, is_correct(responses.correct_rewards_S, correct_above).tolist(), strict=True)
    ]
    frame = pd.DataFrame(
        {
            "step": step,
            "group": responses.groups_S.tolist(),
            "problem_id": [info.get("problem_id") for info in infos],
            "prompt": prompts,
            "text": [
                begin_thinking(text) if ends_in_thinking(prompt) else text
                for prompt, text in zip(prompts, texts, strict=True)
            ],
            "status": status,
            "reason": [info.get("reason", "") for info in infos],
            "canonical": responses.solutions,
            "token_ids": ids,
            "logps": [row[: len(own)].tolist() for row, own in zip(tokens["old_log_probs"], ids, strict=True)],
            "reward": rewards_S.tolist(),
            "prompt_confidence": responses.prompt_confidence_S.tolist(),
            "answer_confidence": responses.answer_confidence_S.tolist(),
            "grpo_advantage": responses.advantages_S.tolist(),
            "correction": (advantages_S - responses.advantages_S).tolist(),
            "advantage": advantages_S.tolist(),
        }
    )
    return frame.sort_values("group", kind="stable")
