import json
import subprocess
import sys

import progrpo
import progrpo.core

HEAVY = [
    "transformers",
    "trl",
    "verl",
    "vllm",
    "accelerate",
    "plotly",
    "pandas",
    "pyarrow",
    "datasets",
    "scipy",
    "peft",
    "sympy",
    "math_verify",
    "reasoning_gym",
    "openai",
    "sacrebleu",
    "sentence_transformers",
]

SCRIPT = f"""
import json, sys
heavy = {HEAVY!r}
loaded = {{}}
for module in ("progrpo", "progrpo.core", "progrpo.methods", "progrpo.verify", "progrpo.tasks", "progrpo.evaluation",
    "progrpo.recipes.schema"):
    __import__(module)
    loaded[module] = [name for name in heavy if name in sys.modules]
print(json.dumps(loaded))
"""


def test_importing_the_package_loads_nothing_heavier_than_torch() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    loaded = json.loads(run.stdout)
    assert len(loaded) == 7
    assert all(names == [] for names in loaded.values()), loaded
    assert run.stderr == ""


def test_every_public_name_is_there() -> None:
    for package in (progrpo, progrpo.core):
        assert len(package.__all__) == len(set(package.__all__)) > 0
        assert all(hasattr(package, name) for name in package.__all__)
    assert progrpo.arm_advantages is progrpo.core.arm_advantages


def test_the_version_is_that_of_the_distribution() -> None:
    assert progrpo.__version__.count(".") == 2
