"""Benchmark rows that some machines have beside the checkout, and scripts of benchmarks/ that tests use.

The rows are never copied into the repository.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT.parent / "shared" / "data"
BENCHMARKS = ROOT / "benchmarks"


def shared_file(name: str) -> Path:
    """A file of benchmark rows; without it, the test is skipped."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"the benchmark rows are missing: ../shared/data/{name}")
    return path


def shared_rows(name: str) -> list[dict[str, Any]]:
    """The rows of a file; without it, the test is skipped."""
    return [json.loads(line) for line in shared_file(name).read_bytes().split(b"\n") if line.strip()]


def load_benchmark(name: str) -> ModuleType:
    """A script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
