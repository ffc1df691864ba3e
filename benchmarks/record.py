"""Writes the figures of docs/benchmarks.md to ``benchmarks/results/NAME.json``, one file per table."""

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


def record(name: str, figures: Any, *, folder: Path = RESULTS, shown: bool = True) -> None:
    """Write the figures of a benchmark to ``NAME.json``, with the machine and the command that produced them.

    Args:
        name: the file's name without its ending. A run with unusual options has another name.
        figures: any value that JSON can hold.
        folder: where the file goes.
        shown: also print the file's content.
    """
    kept = {"command": " ".join(["python", *command()]), "machine": machine(), "figures": figures}
    text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
    if shown:
        print(text, end="")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def command() -> list[str]:
    """The script and its options, as they are called from the project's folder: paths are relative to it."""
    folder = RESULTS.resolve().parent.parent
    options = [os.path.relpath(word, folder) if os.path.isabs(word) else word for word in sys.argv[1:]]
    return [os.path.relpath(Path(sys.argv[0]).resolve(), folder), *options]


def machine() -> str:
    """``AMD EPYC 7B13, 2 cores, Python 3.11.7, torch 2.13.0``"""
    return f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}"


def processor() -> str:
    """The processor's name if Linux reports it, otherwise its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n")
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
