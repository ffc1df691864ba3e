"""The wheel is complete, and works without the checkout."""

import os
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_what_runs_need(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "progrpo/py.typed",
        "progrpo/recipes/countdown_cpu.toml",
        "progrpo/recipes/smollm2_word_problems_cpu.toml",
        "progrpo/verify/workers/worker.py",
        "progrpo/verify/code/sandbox/inside/__init__.py",
        "progrpo/models/countdown/model.safetensors",
        "progrpo/models/countdown/tokenizer.json",
        "progrpo/pages/templates/page.html.j2",
    ):
        assert needed in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "docs", "benchmarks"))]
    assert wheel.stat().st_size < 5_000_000


def test_extras_pull_only_what_they_need(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = message_from_string(archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode())
    requirements = metadata.get_all("Requires-Dist") or []
    bare = {r.split(">")[0].split("=")[0].strip() for r in requirements if "extra ==" not in r}
    assert bare == {"torch", "numpy", "pydantic", "rich", "typer", "filelock"}
    assert not [r for r in requirements if "extra == 'trl'" in r and ("plotly" in r or "pytest" in r)]


def test_it_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    code = (
        "import progrpo, progrpo.sampling.models, progrpo.recipes.schema; "
        f"assert progrpo.__file__.startswith({str(site)!r}), progrpo.__file__; "
        "progrpo.sampling.models.load_model('countdown'); "
        "print(progrpo.recipes.schema.load_recipe('countdown_cpu').name)"
    )
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "countdown_cpu"
