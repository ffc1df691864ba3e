"""A run folder of a small recipe on verl, before verl starts."""

from pathlib import Path

import pytest

from progrpo.recipes.schema import Recipe, load_recipe
from progrpo.runs.folder import RunFolder
from progrpo.verl.settings import VerlFolder


@pytest.fixture
def recipe() -> Recipe:
    small = ["training.steps=5", "task.train_size=8", "task.heldout_size=2", "evaluation.samples_in_training=2"]
    return load_recipe("countdown_cpu", ["engine=verl", "training.keep_checkpoints=2", *small])


@pytest.fixture
def folder(tmp_path: Path, recipe: Recipe) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.start(recipe, {})
    VerlFolder(folder).validations.mkdir(parents=True)
    return folder
