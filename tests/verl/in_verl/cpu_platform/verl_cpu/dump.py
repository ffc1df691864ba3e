"""``trainer.checkpoint_callback_class=verl_cpu.dump.StepDump`` writes a step's batch beside the step's checkpoint."""

import json
from pathlib import Path
from typing import Any

import transfer_queue as tq
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

FIELDS = ["uid", "prompts", "responses", "response_mask", "rm_scores", "old_log_probs", "advantages", "extra_fields"]


class StepDump(CheckpointCallback):
    """Writes ``batch.json``: for each response the fields that the update read, and the trainer's confidences.

    verl writes a checkpoint after the update and before it clears the queue.
    """

    def on_save(self, trainer: Any, global_step: int, checkpoint_dir: str, **kwargs: Any) -> None:
        tags = {key: tag for key, tag in tq.kv_list("train")["train"].items() if not tag.get("is_prompt")}
        data = tq.kv_batch_get(keys=list(tags), partition_id="train", select_fields=FIELDS)
        rows = []
        for i, (key, tag) in enumerate(tags.items()):
            row: dict[str, Any] = {"key": key, "is_padding": bool(tag.get("is_padding"))}
            for field in FIELDS:
                value = data[field].unbind()[i] if hasattr(data[field], "unbind") else data[field][i]
                row[field] = value.tolist() if hasattr(value, "tolist") else getattr(value, "data", value)
            row["reward_extra_info"] = row.pop("extra_fields").get("reward_extra_info", {})
            row["confidences"] = getattr(trainer, "_confidences", {}).get(key)
            rows.append(row)
        Path(checkpoint_dir, "batch.json").write_text(json.dumps(rows, default=lambda value: value.tolist()))
