"""Run by test_vllm_rollouts.py, on several processes: each process trains with its own vLLM engine."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate import PartialState
from datasets import Dataset
from tests.reference import forward
from tests.trl.colocate import run_on_cpu

from progrpo.sampling.models import load_model
from progrpo.tasks import Countdown
from progrpo.tasks.rewards import task_reward
from progrpo.trl import ProGRPOConfig, ProGRPOTrainer, Rollout


def main(out: Path) -> None:
    state = PartialState(cpu=True)
    run_on_cpu(pytest.MonkeyPatch())
    task = Countdown(numbers=3, train_size=32, heldout_size=8)
    model, tokenizer = load_model("countdown")
    frames = []

    def keep(rollout: Rollout) -> None:
        prompts = [tokenizer(row["prompt"])["input_ids"] for row in rollout.rows]
        both = zip(prompts, rollout.token_ids, strict=True)
        plain = [forward.token_logps(trainer.model, prompt, response, 1.0) for prompt, response in both]
        columns = {
            "step": len(frames),
            "rank": state.process_index,
            "prompt": [row["prompt"] for row in rollout.rows],
            "text": rollout.completions,
            "group": rollout.groups_B.tolist(),
            "reward": rollout.rewards_B.tolist(),
            "grpo_advantage": rollout.grpo_advantages_B.tolist(),
            "advantage": rollout.advantages_B.tolist(),
            "logps": [row[mask].tolist() for row, mask in zip(rollout.logps_BT, rollout.mask_BT, strict=True)],
            "plain_prompt_logps": [prompt for prompt, _ in plain],
            "plain_logps": [response for _, response in plain],
        }
        frames.append(pd.DataFrame(columns))

    config = ProGRPOConfig(
        str(out),
        max_steps=3,
        num_generations=4,
        per_device_train_batch_size=6,  # of 12 responses in 3 groups the second lies on both processes
        learning_rate=1e-3,
        max_completion_length=14,
        use_vllm=True,
        vllm_mode="colocate",
        vllm_importance_sampling_correction=False,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=1,
    )
    trainer = ProGRPOTrainer(
        model,
        task_reward(task),
        config,
        train_dataset=Dataset.from_list(task.train_problems()),
        processing_class=tokenizer,
        on_rollout=keep,
    )
    trainer.train()
    pd.concat(frames).to_parquet(out / f"rank{state.process_index}.parquet")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
