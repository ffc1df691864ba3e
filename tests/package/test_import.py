"""What an import loads: it should not cost seconds for modules that are not needed."""

import json
import subprocess
import sys

import pytest

import progrpo
import progrpo.core

HEAVY = (
    *("torch", "numpy", "transformers", "trl", "verl", "vllm", "accelerate", "plotly", "pandas", "pyarrow", "datasets"),
    *("scipy", "peft", "sympy", "math_verify", "reasoning_gym", "openai", "sacrebleu", "sentence_transformers"),
)


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        ("progrpo", []),
        ("progrpo.verify", []),
        ("progrpo.tasks", []),
        ("progrpo.tasks.rewards", []),
        ("progrpo.methods", []),
        ("progrpo.recipes.schema", []),
        ("progrpo.cli", []),
        ("progrpo.trl", []),
        ("progrpo.verl", []),
        ("progrpo.launch.engines", ["numpy"]),
        ("progrpo.evaluation", ["numpy"]),
        ("progrpo.core", ["torch", "numpy"]),
    ],
)
def test_an_import_loads_only_what_it_needs(module: str, needed: list[str]) -> None:
    script = f"import json, sys; import {module}; print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(run.stdout) == needed
    assert run.stderr == ""


def test_verifiers_and_tasks_work_where_torch_is_not_installed() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from progrpo.tasks import Countdown\n"
        "from progrpo.verify import verify_math\n"
        "problem = Countdown(train_size=1).train_problems()[0]\n"
        r"print(verify_math(r'\boxed{4}', '4').status, Countdown().verify(problem, '1 + 1 = 3').status)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == ["correct", "incorrect"]


def test_every_public_name_is_there() -> None:
    for package in (progrpo, progrpo.core):
        assert len(package.__all__) == len(set(package.__all__)) > 0
        assert all(hasattr(package, name) for name in package.__all__)
    assert progrpo.arm_advantages is progrpo.core.arm_advantages
    with pytest.raises(AttributeError, match="has no attribute 'arm_advantage'"):
        _ = progrpo.arm_advantage  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_distribution() -> None:
    assert progrpo.__version__.count(".") == 2
