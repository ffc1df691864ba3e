"""Run by distributed_run.py on two processes: the prompts of the first one have images, the others have none."""

from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from PIL import Image
from tests.tiny import tiny_llava

from progrpo.trl import ProGRPOConfig, ProGRPOTrainer
from trl import GRPOConfig, GRPOTrainer

STATE = PartialState(cpu=True)


def train_on_images(out: str, center: str) -> dict[str, Any]:
    model, processor = tiny_llava(Path(f"{out}-{center}-model{STATE.process_index}"))
    problems = [
        {
            "prompt": [{"role": "user", "content": f"What is {i}?"}],
            "images": [Image.new("RGB", (20, 20), (20 * i, 0, 0))] if i < 2 else [],
        }
        for i in range(4)
    ]
    settings = {
        "max_steps": 2,
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 6,
        "shuffle_dataset": False,
        "log_multimodal": False,  # TRL itself would gather the images of the processes that have some, and wait
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    config = GRPOConfig(out, **settings) if center == "grpo" else ProGRPOConfig(out, center=center, **settings)
    trainer = (GRPOTrainer if center == "grpo" else ProGRPOTrainer)(
        model,
        lambda completion_ids, **columns: [float(ids[0] % 2) for ids in completion_ids],
        config,
        train_dataset=Dataset.from_list(problems),
        processing_class=processor,
    )
    said = None
    try:
        trainer.train()
    except ValueError as error:
        said = str(error)
    return {"steps": trainer.state.global_step, "said": said, "log": trainer.state.log_history[:1]}
