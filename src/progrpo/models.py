"""Loading a causal language model and its tokenizer, the shipped one included."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from progrpo.config import ConfigError

SHIPPED = {"countdown": Path(str(files("progrpo") / "assets" / "countdown"))}


def load_model(path: str, dtype: str = "float32") -> tuple[Any, Any]:
    """A model and its tokenizer (padding on the left) from a shipped name, a folder, or a Hugging Face id.

    Raises:
        ConfigError: nothing loadable there.
    """
    source = str(SHIPPED.get(path, path))
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype))
        # A word-level tokenizer beside a Qwen2 config: AutoTokenizer would take it for Qwen2's byte-level one.
        is_word_level = '"WordLevel"' in _head(Path(source) / "tokenizer.json")
        tokenizer_class = PreTrainedTokenizerFast if is_word_level else AutoTokenizer
        tokenizer = tokenizer_class.from_pretrained(source, padding_side="left")
    except (OSError, ValueError) as error:
        shipped = ", ".join(SHIPPED)
        raise ConfigError(
            f"model {path!r} can't be loaded; give a shipped model ({shipped}), a folder with config.json, or a "
            f"Hugging Face id that can be reached: {str(error).splitlines()[0]}"
        ) from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def _head(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
