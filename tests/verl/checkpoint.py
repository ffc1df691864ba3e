"""Test helper: a checkpoint of verl."""

import json
import shutil
from pathlib import Path

import torch

from progrpo.runs.folder import RunFolder
from progrpo.sampling.models import SHIPPED
from progrpo.verl.settings import VerlFolder


def write_checkpoint(folder: RunFolder, step: int, ranks: int = 2) -> Path:
    """A checkpoint as verl's FSDP writes it, and the record that it is complete."""
    paths = VerlFolder(folder)
    checkpoint = paths.checkpoint(step)
    exported = checkpoint / "actor" / "huggingface"
    exported.mkdir(parents=True)
    torch.save({"step": step}, checkpoint / "data.pt")
    for part in ("model", "optim", "extra_state"):
        for rank in range(ranks):
            torch.save({"rank": rank}, checkpoint / "actor" / f"{part}_world_size_{ranks}_rank_{rank}.pt")
    (checkpoint / "actor" / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": ranks}))
    for file in SHIPPED["countdown"].iterdir():
        shutil.copy(file, exported)
    (exported / "tokenizer_config.json").write_text("{}")  # verl's, which may have another chat template
    paths.tracker.write_text(str(step))
    return checkpoint
