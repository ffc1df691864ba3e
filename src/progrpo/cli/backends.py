"""The options of ``progrpo evaluate`` that choose who samples, and the backend that they open."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from typer import Option

from progrpo.common.errors import ConfigError

if TYPE_CHECKING:
    from progrpo.sampling import Backend

BASE_URL = "http://127.0.0.1:8000/v1"


@dataclass(kw_only=True)
class BackendOptions:
    """Options for who samples, and how."""

    backend: Literal["transformers", "vllm", "http"] = Option("transformers", help="Where samples come from.")
    base_url: str | None = Option(
        None,
        help=f"For --backend http: an OpenAI-compatible server; by default {BASE_URL}. $OPENAI_API_KEY is its key.",
    )
    concurrency: int | None = Option(None, min=1, help="Requests to a server at the same time; by default 16.")
    timeout: float | None = Option(None, help="Seconds that one answer of a server may take; by default 600.")
    retries: int | None = Option(None, min=0, help="How often a failed request is repeated; by default 5.")
    patience: float | None = Option(None, min=0, help="Seconds to wait for a server that went away; by default 300.")
    opens_thinking: bool = Option(
        False,
        "--opens-thinking",
        help="The server's chat template ends prompts in `<think>`, as DeepSeek-R1's does: a response cut off in that "
        "part has no answer. The other backends read the template themselves.",
    )
    batch: int | None = Option(None, min=1, help="Samples generated at a time by transformers.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = Option(
        None, help="The dtype of the weights; auto, the default for benchmarks, keeps the dtype of the files."
    )
    engine: list[str] | None = Option(
        None, metavar="KEY=VALUE", help="An argument of vLLM's LLM, e.g. tensor_parallel_size=4; repeatable."
    )


OF_BACKEND: dict[str, tuple[str, ...]] = {
    "transformers": ("batch", "dtype"),
    "vllm": ("engine", "dtype"),
    "http": ("base_url", "concurrency", "timeout", "retries", "patience", "opens_thinking"),
}
"""The options that each backend takes."""


def backend_settings(options: BackendOptions, **defaults: Any) -> dict[str, Any]:
    """The settings of the backend: the options that are set, and the defaults that it takes.

    Raises:
        ConfigError: an option is set that only another backend takes.
    """
    chosen = {}
    for name in dict.fromkeys(name for taken in OF_BACKEND.values() for name in taken):
        value = getattr(options, name)
        if value is None or value is False or value == []:
            continue
        chosen[name] = value
        if name not in OF_BACKEND[options.backend]:
            owners = " or ".join(owner for owner, taken in OF_BACKEND.items() if name in taken)
            text = "" if value is True else f" {value[0] if isinstance(value, list) else value}"
            raise ConfigError(
                f"--{name.replace('_', '-')}{text} is for --backend {owners}, and the backend is {options.backend}: "
                "choose that backend, or remove the option."
            )
    return {name: value for name, value in defaults.items() if name in OF_BACKEND[options.backend]} | chosen


def open_backend(name: str, path: str, settings: dict[str, Any]) -> "Backend":
    """The backend that samples from the model at ``path``, or from the server's model of that name."""
    if name == "http":
        from progrpo.sampling.http import HttpBackend

        return HttpBackend(model=path, **({"base_url": BASE_URL} | settings))
    if name == "vllm":
        if (Path(path) / "adapter_config.json").exists():
            raise ConfigError(
                f"{path!r} holds low-rank adapters and vLLM loads whole models: remove --backend vllm, or merge them "
                "(peft.AutoPeftModelForCausalLM.from_pretrained(...).merge_and_unload().save_pretrained(FOLDER))."
            )
        from progrpo.sampling.vllm import VllmBackend

        engine = dict(_key_and_value(text) for text in settings.get("engine", ()))
        return VllmBackend(path, **({"dtype": settings["dtype"]} | engine))
    from transformers.utils import logging

    from progrpo.sampling.models import best_device, load_model, model_digest
    from progrpo.sampling.transformers import TransformersBackend

    logging.disable_progress_bar()
    model, tokenizer = load_model(path, settings["dtype"])
    digest = f"{model_digest(path)} {model.dtype}".replace("torch.", "")
    return TransformersBackend(model.to(best_device()), tokenizer, batch=settings["batch"], model_digest=digest)


def _key_and_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key.isidentifier() and equals):
        raise ConfigError(f"--engine must be of the form KEY=VALUE, e.g. tensor_parallel_size=4, got {text!r}.")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # ValueError: TOMLDecodeError, and a number of thousands of digits
        return key, value
