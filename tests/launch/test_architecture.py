"""Parameter counts against published ones, and against transformers and PEFT."""

from pathlib import Path

import pytest
from tests.tiny import tiny_qwen2

from progrpo.common.errors import ConfigError
from progrpo.launch.architecture import KNOWN, Architecture, architecture_of
from progrpo.recipes.schema import LoraSection, load_recipe


def architecture_at(path: str) -> Architecture:
    return architecture_of(load_recipe("countdown_cpu", [f"model.path={path}"]))


# As the hub counts the parameters of their safetensors files.
@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("Qwen/Qwen2.5-32B", 32_763_876_352),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1_777_088_000),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 7_615_616_512),
        ("smollm2", 134_515_008),
    ],
)
def test_the_models_of_the_recipes_are_counted_offline(path: str, parameters: int) -> None:
    assert path in KNOWN
    assert architecture_at(path).parameters == parameters


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_in_a_folder_is_counted_as_it_loads(tmp_path: Path, tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_qwen2(tmp_path / "tiny", tied=tied, hidden=48, layers=3)
    model = AutoModelForCausalLM.from_pretrained(folder)
    architecture = architecture_at(str(folder))
    assert architecture.parameters == model.num_parameters()
    assert (architecture.config.hidden_size, architecture.config.num_hidden_layers) == (48, 3)
    assert (architecture.linear_maps["q_proj"], architecture.linear_maps["k_proj"]) == ((48, 48), (48, 24))
    layer = sum(weight.numel() for weight in model.model.layers[0].parameters())
    assert architecture.layer_parameters == layer


@pytest.mark.parametrize("target", ["all-linear", ["q_proj", "v_proj"], ["down_proj", "down_proj"]])
def test_adapters_are_counted_as_peft_makes_them(tmp_path: Path, target: str | list[str]) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    from progrpo.trl.settings import lora_config

    folder = tiny_qwen2(tmp_path / "tiny")
    recipe = load_recipe("countdown_cpu", [f"model.path={folder}", "model.lora.r=5"])
    assert recipe.model.lora is not None
    recipe.model.lora.target_modules = target
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), lora_config(recipe))
    trained, _ = adapted.get_nb_trainable_parameters()
    assert architecture_of(recipe).trained_parameters(recipe.model.lora) == trained


def test_an_unknown_target_module_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"target_modules has 'query'; a qwen2 model has q_proj, .* or say 'all-linear'"
    ):
        architecture_at("countdown").trained_parameters(LoraSection(target_modules=["query"]))


def test_a_model_of_another_type_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config

    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"of the type 'gpt2', whose memory can't be estimated; .* qwen2, qwen3"):
        architecture_at(str(tmp_path))


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"which can't be read; give a folder with config\.json"):
        architecture_at(str(tmp_path / "nothing"))
