"""The structure of the source: its folders, the imports between them, its lines, and its start-up time.

Examples:
    python benchmarks/house.py                       # this checkout
    python benchmarks/house.py --root ../other       # another one, with this environment's packages
"""

import argparse
import ast
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from record import record

STARTS = {
    "import progrpo": ["-c", "import progrpo"],
    "import progrpo.verify": ["-c", "import progrpo.verify"],
    "progrpo --help": ["-m", "progrpo", "--help"],
}
REPEATS = 11


def folder_of(module: str, modules: set[str]) -> str:
    """The folder of a module: ``progrpo.verify`` for ``progrpo.verify.choice``, and for the package itself."""
    return module if f"{module}.__init__" in modules else module.rpartition(".")[0]


def imports_between_folders(source: Path) -> set[tuple[str, str]]:
    """The pairs of folders where the first imports from the second, also inside functions."""
    files = {".".join(path.relative_to(source.parent).with_suffix("").parts): path for path in source.rglob("*.py")}
    modules = set(files)
    edges = set()
    for module, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "progrpo"):
                continue
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                target = name if name in modules or f"{name}.__init__" in modules else node.module
                edges.add((module.rpartition(".")[0], folder_of(target, modules)))
    return {(a, b) for a, b in edges if a != b}


def seconds_to_start(source: Path) -> dict[str, float]:
    """The median time to start a new process, in seconds. The commands take turns."""
    environment = os.environ | {"PYTHONPATH": str(source.parent), "OMP_NUM_THREADS": "1"}
    seconds: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(REPEATS + 1):
        for name, arguments in STARTS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began)
    return {name: round(statistics.median(times[1:]), 3) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="the checkout")
    root: Path = parser.parse_args().root.resolve()
    source = root / "src" / "progrpo"
    files = sorted(source.rglob("*.py"))
    figures = {
        "folders with Python": len({path.parent for path in files}),
        "modules": len(files),
        "modules loose at the top": len([p for p in source.glob("*.py") if not p.name.startswith("__")]),
        "imports between folders": len(imports_between_folders(source)),
        "lines": sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files),
        "seconds to start": seconds_to_start(source),
    }
    record("house" if root == Path(__file__).resolve().parents[1] else f"house-{root.name}", figures)


if __name__ == "__main__":
    main()
