"""The benchmark rows that some machines have beside the checkout, for tests and measurements; never copied in here."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def shared_file(name: str) -> Path:
    """The file, or the test is skipped."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"the benchmark rows are missing: ../shared/data/{name}")
    return path


def shared_rows(name: str) -> list[dict[str, Any]]:
    """Its rows, or the test is skipped."""
    return [json.loads(line) for line in shared_file(name).read_bytes().split(b"\n") if line.strip()]
