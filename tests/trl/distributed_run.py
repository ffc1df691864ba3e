"""Run by test_distributed.py, on one process or several. In each case, some groups are split across processes. The
completions are scripted by global row, so that every split of the rows has the same rollout; everything else is real.
"""

import json
import sys
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from tests.trl.images_run import train_on_images

from progrpo.sampling.models import load_model
from progrpo.trl import ProGRPOConfig, ProGRPOTrainer, Rollout

ROWS, GROUP = 24, 8  # on two processes of 12 rows, the second group is split in the middle
STATE = PartialState(cpu=True)


def rollout(prompts: list[str], trainer: ProGRPOTrainer, case: str = "plain") -> dict[str, Any]:
    rows = [STATE.process_index * len(prompts) + i for i in range(len(prompts))]
    output: dict[str, Any] = {
        "prompt_ids": [trainer.processing_class(prompt)["input_ids"] for prompt in prompts],
        "completion_ids": [[13 + row % 7, 3, 14, 1] for row in rows],
        "logprobs": [[-0.05 * (row % 11), -0.3, -0.02 * (row % 5), -1.0 - 0.1 * row] for row in rows],
    }
    if case == "one_token":  # the prompts of the second process, if there are two
        output["prompt_ids"] = [
            ids[: 1 if row >= ROWS // 2 else None] for ids, row in zip(output["prompt_ids"], rows, strict=True)
        ]
    if case == "no_logps" and STATE.process_index == STATE.num_processes - 1:  # only on the last process
        output["logprobs"] = None
    return output


def reward(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
    return [None if ids[0] == 19 else float(ids[0] % 2) for ids in completion_ids]


def train(out: str, center: str, case: str) -> dict[str, Any]:
    if case == "images":
        return train_on_images(out, center)
    model, tokenizer = load_model("countdown")
    problems = [{"prompt": f"{i + 1} 2 3 : {i + 6} ;"} for i in range(6)]
    seen: list[Rollout] = []
    config = ProGRPOConfig(
        out,
        alpha=0.5,
        center=center,
        max_steps=1,
        num_generations=GROUP,
        per_device_train_batch_size=6 // STATE.num_processes,
        gradient_accumulation_steps=4,
        max_completion_length=4,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        seed=0,
    )
    trainer = ProGRPOTrainer(
        model,
        reward,
        config,
        train_dataset=Dataset.from_list(problems),
        processing_class=tokenizer,
        rollout_func=partial(rollout, case=case),
        on_rollout=seen.append,
    )
    trainer.train()
    of_rank = seen[0]
    return {
        "prompts": [row["prompt"] for row in of_rank.rows],
        "groups": of_rank.groups_B.tolist(),
        "c_q": of_rank.prompt_confidence_B.tolist(),
        "c_o": of_rank.answer_confidence_B.tolist(),
        "advantages": of_rank.advantages_B.tolist(),
        "log": {
            k: v for k, v in trainer.state.log_history[0].items() if k.startswith(("conf", "corr", "group", "dist"))
        },
        "weights": float(sum(p.double().abs().sum() for p in trainer.model.parameters())),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    out, *cases = sys.argv[1:]
    records = {case: train(out, *case.split("-")) for case in cases}
    with open(f"{out}-rank{STATE.process_index}.json", "w") as file:
        json.dump(records, file)
