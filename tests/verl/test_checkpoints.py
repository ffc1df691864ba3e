"""verl's checkpoints: which ones are complete, which one a resume uses, and which models are published from them."""

import shutil

import pytest
from tests.verl.checkpoint import write_checkpoint
from transformers import AutoModelForCausalLM

from progrpo.common.errors import ConfigError
from progrpo.recipes.schema import Recipe
from progrpo.runs.folder import RunFolder
from progrpo.sampling.models import load_tokenizer
from progrpo.verl.checkpoints import check_tracked, is_complete, mend, publish
from progrpo.verl.settings import VerlFolder


@pytest.mark.parametrize("lost", ["data.pt", "actor/optim_world_size_2_rank_1.pt", "actor/fsdp_config.json"])
@pytest.mark.parametrize("how", ["gone", "cut short", "empty"])
def test_a_checkpoint_is_complete_or_not(lost: str, how: str, folder: RunFolder) -> None:
    checkpoint = write_checkpoint(folder, 3)
    assert is_complete(checkpoint)
    content = (checkpoint / lost).read_bytes()
    (checkpoint / lost).unlink()
    if how != "gone":
        (checkpoint / lost).write_bytes(content[: len(content) // 2] if how == "cut short" else b"")
    assert not is_complete(checkpoint)


def test_a_resume_starts_from_the_newest_complete_checkpoint(
    recipe: Recipe, folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    paths = VerlFolder(folder)
    mend(recipe, folder)  # nothing was saved yet: from the start
    for step in (2, 3):
        write_checkpoint(folder, step)
        publish(recipe, folder)
    mend(recipe, folder)
    assert paths.tracker.read_text() == "3"
    assert not caplog.messages

    (paths.checkpoint(3) / "actor" / "model_world_size_2_rank_0.pt").unlink()
    mend(recipe, folder)
    assert paths.tracker.read_text() == "2"
    assert caplog.messages == ["verl's checkpoint of step 3 is damaged or gone; the run goes on from step 2."]
    assert folder.rewind() == 2

    shutil.rmtree(paths.checkpoint(2))
    with pytest.raises(ConfigError, match="has no complete checkpoint of verl any more"):
        mend(recipe, folder)


def test_a_resume_names_the_published_checkpoint_that_is_missing(recipe: Recipe, folder: RunFolder) -> None:
    write_checkpoint(folder, 3)
    published = folder.checkpoints / "checkpoint-3"
    check_tracked(published, recipe, folder)
    with pytest.raises(ConfigError, match="has no whole checkpoint of step 3, from which verl would resume"):
        check_tracked(published.with_name("checkpoint-2"), recipe, folder)


def test_the_newest_model_is_published_without_a_copy(recipe: Recipe, folder: RunFolder) -> None:
    publish(recipe, folder)
    assert not folder.checkpoints.exists()
    for step in (1, 2, 3):
        exported = write_checkpoint(folder, step) / "actor" / "huggingface"
        publish(recipe, folder)
        publish(recipe, folder)  # the second call has nothing to do
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["checkpoint-2", "checkpoint-3"]
    last = folder.last_checkpoint()
    assert last is not None
    assert (last / "model.safetensors").samefile(exported / "model.safetensors")
    assert load_tokenizer(str(last)).get_vocab() == load_tokenizer("countdown").get_vocab()
    AutoModelForCausalLM.from_pretrained(last)
    shutil.rmtree(VerlFolder(folder).path)
    AutoModelForCausalLM.from_pretrained(last)
