"""Checkpoints that are sealed, damaged in every way in which files get damaged, and removed."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from progrpo.common.errors import ConfigError
from progrpo.runs.checkpoints import MODEL_PARTS, check_model, fault, in_folder, publish, seal, set_aside


def make(folder: Path, step: int = 6) -> Path:
    """A small version of what a trainer saves."""
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "optimizer").mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "empty").touch()
    (checkpoint / "optimizer" / "shard-0.safetensors").write_bytes(b"moments")
    return checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    made = make(tmp_path)
    seal(made)
    return made


def test_the_manifest_names_every_file_its_size_and_its_sha256(checkpoint: Path) -> None:
    manifest = json.loads((checkpoint / "digests.json").read_text())
    assert manifest["algorithm"] == "sha256"
    assert sorted(manifest["files"]) == ["config.json", "empty", "model.safetensors", "optimizer/shard-0.safetensors"]
    for name, record in manifest["files"].items():
        content = (checkpoint / name).read_bytes()
        assert record == {"bytes": len(content), "digest": hashlib.sha256(content).hexdigest()}
    assert fault(checkpoint) is None


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def overwrite(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("model.safetensors", flip_a_bit, "model.safetensors has changed, as its sha256 shows"),
        (
            "model.safetensors",
            lambda path: os.truncate(path, 100),
            "model.safetensors has 100 bytes, but 10,240 were",
        ),
        ("model.safetensors", lambda path: path.write_bytes(b""), "model.safetensors has 0 bytes"),
        ("empty", overwrite("x"), "empty has 1 bytes, but 0 were written"),
        ("optimizer/shard-0.safetensors", Path.unlink, "optimizer/shard-0.safetensors is missing"),
        ("optimizer", shutil.rmtree, "optimizer/shard-0.safetensors is missing"),
        ("digests.json", Path.unlink, "it has no digests.json"),
        ("digests.json", lambda path: os.truncate(path, 20), "its digests.json is damaged"),
        ("digests.json", overwrite("[]"), "its digests.json is damaged"),
        ("digests.json", overwrite('{"algorithm": "sha256", "files": {"a": 3}}'), "its digests.json is damaged"),
        ("digests.json", overwrite('{"algorithm": "md5", "files": {}}'), "names 'md5', but only sha256 is known"),
    ],
)
def test_every_damage_is_found_and_named(
    checkpoint: Path, name: str, damage: Callable[[Path], object], said: str
) -> None:
    damage(checkpoint / name)
    assert said in (fault(checkpoint) or "nothing was found")


def test_only_the_files_that_matter_are_checked(checkpoint: Path) -> None:
    flip_a_bit(checkpoint / "optimizer" / "shard-0.safetensors")
    assert fault(checkpoint) is not None
    assert fault(checkpoint, MODEL_PARTS) is None
    check_model(str(checkpoint))
    flip_a_bit(checkpoint / "model.safetensors")
    with pytest.raises(ConfigError, match=r"checkpoint-6' is damaged: model.safetensors has changed"):
        check_model(str(checkpoint))


def test_a_model_that_was_never_sealed_passes(tmp_path: Path) -> None:
    check_model(str(make(tmp_path)))
    check_model("countdown")


def test_published_checkpoints_replace_the_oldest(tmp_path: Path) -> None:
    final = tmp_path / "checkpoints"
    final.mkdir()
    for step in (8, 9, 10, 100):
        there = publish(make(tmp_path / "beside", step), final, keep=2)
        assert there == final / f"checkpoint-{step}"
        assert fault(there) is None
    assert [path.name for path in in_folder(final)] == ["checkpoint-100", "checkpoint-10"]
    assert sorted(path.name for path in final.iterdir()) == ["checkpoint-10", "checkpoint-100"]
    again = make(tmp_path / "beside", 100)
    (again / "config.json").write_text('{"of": "the second time"}')
    assert (publish(again, final, keep=2) / "config.json").read_text() == '{"of": "the second time"}'


def test_copies_and_archives_do_not_count_as_checkpoints(tmp_path: Path) -> None:
    for name in ("checkpoint-5", "checkpoint-50", "checkpoint-50-copy", "checkpoint-60.bak"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-70").touch()
    assert [path.name for path in in_folder(tmp_path)] == ["checkpoint-50", "checkpoint-5"]


def test_a_checkpoint_that_is_set_aside_no_longer_counts(tmp_path: Path) -> None:
    for content in ("first", "second"):
        damaged = make(tmp_path)
        (damaged / "config.json").write_text(content)
        assert set_aside(damaged).name == "damaged-checkpoint-6"
    assert in_folder(tmp_path) == []
    assert (tmp_path / "damaged-checkpoint-6" / "config.json").read_text() == "second"
