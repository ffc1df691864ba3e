"""``progrpo inspect`` on many rollouts: the command's time and peak memory, on files that this script writes.

    python benchmarks/inspect_rollouts.py --rows 1000000 --kind parquet

Each text has about 200 random words, and ``--logps`` adds 200 log-probs to each response. The file has one row group of
a million rows and more than a gigabyte of uncompressed text, as a simple logger would write it.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from record import record

GROUP = 16
GROUPS_PER_STEP = 64
TOKENS = 200
CHUNK = 2048
PEAK_OF = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""An intermediate process: a child's peak starts at its parent's memory, and this script's grew by writing the file."""


def rows(n: int, logps: bool, seed: int = 0) -> Iterator[dict[str, Any]]:
    """This number of responses from a run in which rewards rise and entropy falls."""
    rng = np.random.default_rng(seed)
    words = np.array([f"w{i}" for i in range(5000)])
    for i in range(n):
        group = i // GROUP
        done = i / n
        row = {
            "step": group // GROUPS_PER_STEP + 1,
            "prompt": f"problem {group}",
            "response": " ".join(words[rng.integers(0, len(words), TOKENS)]),
            "reward": float(rng.random() < 0.2 + 0.6 * done),
        }
        if logps:
            row["logps"] = np.round(-rng.exponential(0.6 - 0.4 * done, TOKENS), 4).tolist()
        yield row


def write(path: Path, n: int, logps: bool) -> None:
    """Write the rows as JSON lines, CSV or parquet, by the path's suffix."""
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(n, logps))
        return
    made = rows(n, logps)
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            first = next(made)
            writer = csv.DictWriter(file, first)
            writer.writeheader()
            writer.writerows(
                row | ({"logps": json.dumps(row["logps"])} if logps else {}) for row in chain([first], made)
            )
        return
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    table = pa.Table.from_pylist(list(islice(made, CHUNK)))
    batches = [table]
    while chunk := list(islice(made, CHUNK)):
        batches.append(pa.Table.from_pylist(chunk, schema=table.schema))
    with ParquetWriter(path, table.schema) as writer:
        writer.write_table(pa.concat_tables(batches), row_group_size=n)


def measure(path: Path, out: Path, *options: str) -> dict[str, float]:
    """Run the command on a file, and return its seconds and its peak resident memory in MB."""
    command = [sys.executable, "-m", "progrpo", "inspect", str(path), "--out", str(out), *options]
    named = ["--prompt", "prompt", "--response", "response", "--reward", "reward", "--step", "step"]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PEAK_OF, *command, *named], stdout=subprocess.PIPE, check=True)
    peak = int(done.stdout.splitlines()[-1]) * (1 if sys.platform == "darwin" else 1024)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_mb": round(peak / 1e6, 1),
        "file_mb": round(path.stat().st_size / 1e6, 1),
        "page_mb": round(out.stat().st_size / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kind", choices=("jsonl", "csv", "parquet"), default="parquet")
    parser.add_argument("--logps", action="store_true", help="write 200 log-probs for each response")
    parser.add_argument("--file", type=Path, help="keep the file here, and use it if it exists")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or Path(folder) / f"rollouts.{arguments.kind}"
        if not path.exists():
            write(path, arguments.rows, arguments.logps)
        options = ["--logps", "logps"] if arguments.logps else []
        figures = measure(path, Path(folder) / "inspect.html", *options)
        record(f"inspect_rollouts-{arguments.rows}-{arguments.kind}", {"logps": arguments.logps} | figures)


if __name__ == "__main__":
    main()
