"""The shape of a model, from which parameters and memory are counted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.recipes.schema import LoraSection, Recipe
from progrpo.sampling.models import model_source

_FIELDS = (
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "tie_word_embeddings", "max_position_embeddings"),
)
_SHAPES: dict[str, tuple[Any, ...]] = {
    "Qwen/Qwen2.5-7B": ("qwen2", 152064, 3584, 18944, 28, 28, 4, False, 131072),
    "Qwen/Qwen2.5-32B": ("qwen2", 152064, 5120, 27648, 64, 40, 8, False, 131072),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": ("qwen2", 151936, 1536, 8960, 28, 12, 2, False, 131072),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": ("qwen2", 152064, 3584, 18944, 28, 28, 4, False, 131072),
    "smollm2": ("llama", 49152, 576, 1536, 30, 9, 3, True, 8192),
}
KNOWN = {path: dict(zip(_FIELDS, shape, strict=True)) for path, shape in _SHAPES.items()}
"""config.json of the paper's models and of SmolLM2 by ``model.path``, so that their recipes can be planned offline."""

DENSE = ("qwen2", "qwen3", "llama", "mistral")  # model types that Architecture describes


@dataclass(frozen=True)
class Architecture:
    """A dense decoder with gated MLPs and grouped-query attention, and what its parameters are counted from."""

    config: Any
    """transformers' configuration."""
    parameters: int
    layer_parameters: int
    """Parameters of one layer: sharded weights are gathered layer by layer."""
    linear_maps: dict[str, tuple[int, int]]
    """Inputs and outputs of each linear map of a layer, by the map's name."""

    def trained_parameters(self, lora: LoraSection | None) -> int:
        """All parameters, or those of low-rank adapters: r (inputs + outputs) for each linear map that has one.

        Raises:
            ConfigError: the model has no such target module.
        """
        if lora is None:
            return self.parameters
        names = [lora.target_modules] if isinstance(lora.target_modules, str) else lora.target_modules
        chosen = set(self.linear_maps if names == ["all-linear"] else names)
        unknown = sorted(chosen - set(self.linear_maps))
        if unknown:
            raise ConfigError(
                f"model.lora.target_modules has {unknown[0]!r}; a {self.config.model_type} model has "
                f"{', '.join(self.linear_maps)}, or say 'all-linear'."
            )
        return int(self.config.num_hidden_layers) * lora.r * sum(sum(self.linear_maps[name]) for name in chosen)


def architecture_of(recipe: Recipe) -> Architecture:
    """The shape of a recipe's model, which is built without memory for its weights. The models in :data:`KNOWN` need no
    config.json; others have it in their folder, in the Hugging Face cache or on the hub.

    Raises:
        ConfigError: no configuration can be read, or its model type is not one of :data:`DENSE`.

    >>> from progrpo.recipes.schema import load_recipe
    >>> architecture_of(load_recipe("countdown_cpu")).parameters
    887936
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = _config(recipe.model.path)
    if config.model_type not in DENSE:
        raise ConfigError(
            f"model {recipe.model.path!r} is of the type {config.model_type!r}, whose memory can't be estimated; a "
            f"plan can be made for {', '.join(DENSE)}."
        )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    layer = model.model.layers[0]
    modules = ((name.rpartition(".")[2], module) for name, module in layer.named_modules())
    linear = {name: module for name, module in modules if isinstance(module, torch.nn.Linear)}
    return Architecture(
        config,
        parameters=int(model.num_parameters()),
        layer_parameters=sum(weight.numel() for weight in layer.parameters()),
        linear_maps={name: (module.in_features, module.out_features) for name, module in linear.items()},
    )


def _config(path: str) -> Any:
    from transformers import AutoConfig

    if path in KNOWN and not Path(path).exists():
        return AutoConfig.for_model(**KNOWN[path])
    try:
        return AutoConfig.from_pretrained(model_source(path))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"a plan needs the configuration of model {path!r}, which can't be read; give a folder with config.json, "
            f"or an id that can be reached: {str(error).splitlines()[0]}"
        ) from None
