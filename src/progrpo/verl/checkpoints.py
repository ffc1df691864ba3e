"""verl's checkpoints: each exported model is published in the run folder, and a resume starts from a complete one.

verl writes ``RUN/verl/checkpoints/global_step_N`` (torch pickles, which only verl loads) and then records N in
``latest_checkpointed_iteration.txt``. The model in it is published as ``RUN/checkpoints/checkpoint-M`` (safetensors).
verl counts rollouts in N; a run folder counts optimiser steps in M.
"""

import json
import logging
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from progrpo.common.errors import ConfigError
from progrpo.common.files import write_text
from progrpo.recipes.schema import Recipe
from progrpo.runs import checkpoints
from progrpo.runs.folder import RunFolder
from progrpo.sampling.models import load_tokenizer
from progrpo.verl.settings import VerlFolder

logger = logging.getLogger(__name__)

TOKENIZER_FILES = ("tokenizer", "chat_template", "special_tokens", "added_tokens", "vocab", "merges")


def optimizer_step(recipe: Recipe, verl_step: int) -> int:
    """The optimiser step with which a step of verl, which is a rollout, ends."""
    return verl_step * recipe.training.updates_per_rollout


def tracked_step(folder: RunFolder) -> int | None:
    """verl's step of the checkpoint that it finished last, by its own record; verl resumes from it."""
    try:
        return int(VerlFolder(folder).tracker.read_text())
    except (FileNotFoundError, ValueError):
        return None


def publish(recipe: Recipe, folder: RunFolder) -> None:
    """Publish the model of verl's newest checkpoint in the run folder, unless that is done already: as links, with the
    tokenizer of the recipe's model, because verl may have been told to ignore the model's chat template."""
    tracked = tracked_step(folder)
    if tracked is None:
        return
    exported = VerlFolder(folder).checkpoint(tracked) / "actor" / "huggingface"
    target = folder.checkpoints / f"checkpoint-{optimizer_step(recipe, tracked)}"
    if target.exists() or not exported.is_dir():
        return
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder.checkpoints) as staging:
        written = Path(staging) / target.name
        written.mkdir()
        for file in exported.iterdir():
            if file.name.startswith(TOKENIZER_FILES):
                continue
            try:
                os.link(file, written / file.name)
            except OSError:  # another file system, or one without links
                shutil.copy2(file, written)
        load_tokenizer(recipe.model.path).save_pretrained(written)
        checkpoints.publish(written, folder.checkpoints, recipe.training.keep_checkpoints)


def remove_old(folder: RunFolder, keep: int) -> None:
    """Remove all but the newest checkpoints of verl. verl itself removes only weights, and only those of one launch."""
    for old in list(_by_step(folder).values())[:-keep]:
        shutil.rmtree(old)


def mend(recipe: Recipe, folder: RunFolder) -> None:
    """Before a resume, make verl's record name its newest complete checkpoint.

    Raises:
        ConfigError: verl had written checkpoints, and none of them is complete.
    """
    paths, tracked = VerlFolder(folder), tracked_step(folder)
    complete = [step for step, path in _by_step(folder).items() if is_complete(path)]
    if tracked in complete or (tracked is None and not checkpoints.in_folder(folder.checkpoints)):
        return
    if not complete:
        raise ConfigError(
            f"{str(paths.checkpoints)!r} has no complete checkpoint of verl any more, so the run can't go on; start a "
            f"new one in another folder, if you like with model.path = a checkpoint in {str(folder.checkpoints)!r}."
        )
    newest = complete[-1]
    logger.warning("verl's checkpoint of step %s is damaged or gone; the run goes on from step %d.", tracked, newest)
    write_text(paths.tracker, str(newest))
    for path in checkpoints.in_folder(folder.checkpoints):
        if checkpoints.step_of(path) > optimizer_step(recipe, newest):
            shutil.rmtree(path)


def check_tracked(checkpoint: Path, recipe: Recipe, folder: RunFolder) -> None:
    """Raise a ConfigError unless verl will resume from the step of this checkpoint, to which the folder goes back."""
    tracked = optimizer_step(recipe, tracked_step(folder) or 0)
    if checkpoints.step_of(checkpoint) != tracked:
        raise ConfigError(
            f"{str(checkpoint.parent)!r} has no whole checkpoint of step {tracked}, from which verl would resume; "
            "remove the damaged checkpoint, and progrpo makes it again from verl's."
        )


def is_complete(checkpoint: Path) -> bool:
    """Whether verl's FSDP checkpoint has the files of every process, and none is cut short. Nothing is loaded."""
    actor = checkpoint / "actor"
    try:
        ranks = json.loads((actor / "fsdp_config.json").read_text(encoding="utf-8"))["world_size"]
    except (OSError, ValueError, KeyError):
        return False
    parts = ("model", "optim", "extra_state")
    files = [actor / f"{part}_world_size_{ranks}_rank_{rank}.pt" for part in parts for rank in range(ranks)]
    # torch writes ZIP files, whose directory is at their end.
    return all(zipfile.is_zipfile(path) for path in (checkpoint / "data.pt", *files))


def _by_step(folder: RunFolder) -> dict[int, Path]:
    """verl's checkpoints in the order of their steps."""
    paths = VerlFolder(folder).checkpoints.glob("global_step_*")
    return dict(sorted((int(path.name.rpartition("_")[2]), path) for path in paths))
