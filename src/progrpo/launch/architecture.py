"""The shape of a model: what parameter counts and memory are reckoned from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from progrpo.common.errors import ConfigError
from progrpo.recipes.schema import LoraSection, Recipe
from progrpo.sampling.models import model_source

# The paper's models and SmolLM2, so that their recipes are planned without the hub. Source: config.json of each.
_QWEN2_7B = {
    "model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
}  # fmt: skip
KNOWN: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-7B": _QWEN2_7B,
    "Qwen/Qwen2.5-32B": {
        "model_type": "qwen2", "vocab_size": 152064, "hidden_size": 5120, "intermediate_size": 27648,
        "num_hidden_layers": 64, "num_attention_heads": 40, "num_key_value_heads": 8, "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960,
        "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": _QWEN2_7B,
    "smollm2": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
    },
}  # fmt: skip
"""Fields of config.json by ``model.path``."""

DENSE = ("qwen2", "qwen3", "llama", "mistral")
"""The model types whose layers are as :class:`Architecture` has them."""


@dataclass(frozen=True)
class Architecture:
    """A dense decoder with gated MLPs and grouped-query attention. Sizes are in numbers of features."""

    kind: str
    """transformers' ``model_type``."""
    parameters: int
    """All of them, shared ones once."""
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    tied: bool
    """Whether the LM head is the embedding."""
    positions: int
    """Tokens of prompt and response together, at most."""

    @property
    def queries(self) -> int:
        """Width of q, of the attention's output, and of k and v once repeated for each head."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of k and of v."""
        return self.kv_heads * self.head_size

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the LM head."""
        return self.vocabulary * self.hidden

    @property
    def layer_parameters(self) -> int:
        """Of one layer: what is gathered at a time when weights are sharded."""
        return (self.parameters - self.embedding * (1 if self.tied else 2)) // self.layers

    def lora_parameters(self, lora: LoraSection) -> int:
        """Parameters of low-rank adapters: r (inputs + outputs) for each linear map that has one.

        Raises:
            ConfigError: target modules that such a model has not.
        """
        maps = {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }
        names = [lora.target_modules] if isinstance(lora.target_modules, str) else lora.target_modules
        chosen = list(maps) if names == ["all-linear"] else names
        unknown = [name for name in chosen if name not in maps]
        if unknown:
            raise ConfigError(
                f"model.lora.target_modules has {unknown[0]!r}; a {self.kind} model has {', '.join(maps)}, or say "
                "'all-linear'."
            )
        return self.layers * lora.r * sum(sum(maps[name]) for name in set(chosen))


def architecture_of(recipe: Recipe) -> Architecture:
    """The shape of a recipe's model, from its config.json: no weights are loaded.

    The paper's models are known; others are read from their folder, from the Hugging Face cache, or from the hub.

    Raises:
        ConfigError: there is no configuration to be had, or not one of the types in :data:`DENSE`.

    >>> from progrpo.recipes.schema import load_recipe
    >>> architecture_of(load_recipe("countdown_cpu")).layers
    4
    """
    config = _config(recipe.model.path)
    if config.model_type not in DENSE:
        raise ConfigError(
            f"model {recipe.model.path!r} is of the type {config.model_type!r}, whose memory is not known here; a plan "
            f"can be made for {', '.join(DENSE)}."
        )
    return Architecture(
        kind=config.model_type,
        parameters=_count_parameters(config),
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        tied=bool(config.tie_word_embeddings),
        positions=config.max_position_embeddings,
    )


def _config(path: str) -> Any:
    from transformers import AutoConfig

    if path in KNOWN and not Path(path).exists():
        return AutoConfig.for_model(**KNOWN[path])
    try:
        return AutoConfig.from_pretrained(model_source(path))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the configuration of model {path!r} can't be read, which a plan needs; give a folder with config.json, "
            f"or an id that can be reached: {str(error).splitlines()[0]}"
        ) from None


def _count_parameters(config: Any) -> int:
    """By building the model without memory for its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(config).num_parameters())
