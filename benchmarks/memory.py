"""``make bench``: the memory that ``progrpo train --dry-run`` reckons with, against the measured peak, on a CPU.

Each setting trains a few steps in a process of its own, by the same way as ``progrpo train``; measured is the most that
the process ever had resident. Written to benchmarks/results/memory.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from record import record

AIM = 0.15

COUNTDOWN = ["evaluation.samples=2", "evaluation.every=0", "task.heldout_size=20", "task.train_size=512"]
SMOLLM2 = ["evaluation.samples=2", "evaluation.every=0", "task.heldout.limit=2", "training.prompts_per_step=1"]
WORDS, PROGRAMS = "smollm2_word_problems_cpu", "smollm2_small_functions_cpu"
# HEAP_KEEPS and LIBRARIES_AT_WORK were chosen with countdown's first two and SmolLM2's whole recipe in view; the others
# say whether they hold.
SETTINGS: dict[str, tuple[str, list[str]]] = {
    "countdown, the recipe": ("countdown_cpu", COUNTDOWN),
    "countdown, passes of 128": ("countdown_cpu", [*COUNTDOWN, "training.micro_batch=128"]),
    "countdown, 1,024 responses": ("countdown_cpu", [*COUNTDOWN, "training.group_size=32"]),
    "countdown, 2,048 responses in passes of 1,024": (
        "countdown_cpu",
        [*COUNTDOWN, "training.group_size=64", "training.micro_batch=1024"],
    ),
    "SmolLM2, the recipe": (WORDS, [*SMOLLM2, "training.prompts_per_step=4"]),
    "SmolLM2, one pass of 8": (WORDS, SMOLLM2),
    "SmolLM2, passes of 2": (WORDS, [*SMOLLM2, "training.micro_batch=2"]),
    "SmolLM2, one pass of 16": (WORDS, [*SMOLLM2, "training.group_size=16", "training.micro_batch=16"]),
    "SmolLM2, responses of 128": (WORDS, [*SMOLLM2, "training.max_response_tokens=128", "training.micro_batch=4"]),
    "SmolLM2, recomputation": (WORDS, [*SMOLLM2, "trl.gradient_checkpointing=true"]),
    "SmolLM2, LoRA": (WORDS, [*SMOLLM2, "model.lora.r=16"]),
    "SmolLM2, programs": (PROGRAMS, SMOLLM2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2, help="training steps of each run")
    parser.add_argument("--only", nargs="*", help="those with one of these words in their names; nothing is written")
    parser.add_argument("--train", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        print(json.dumps(train(args.train[0], args.train[1:])))
        return
    rows = [
        compare(name, recipe, [*overrides, f"training.steps={args.steps}"])
        for name, (recipe, overrides) in SETTINGS.items()
        if not args.only or any(word in name for word in args.only)
    ]
    worst = max(abs(row["estimate / measured"] - 1) for row in rows)
    print(f"worst: {worst:.1%} of the measured peak; the aim is {AIM:.0%}")
    if not args.only:
        record("memory", rows)


def compare(name: str, recipe: str, overrides: list[str]) -> dict[str, Any]:
    """The estimate of a setting and the measured peak, in GB; both printed."""
    command = [sys.executable, __file__, "--train", recipe, *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.strip().split("\n")[-1])
    row = {"setting": name, **found, "estimate / measured": round(found["estimate"] / found["measured"], 3)}
    print(
        f"{name}: {row['estimate']:.2f} / {row['measured']:.2f} GB = {row['estimate / measured']:.3f}  {row['parts']}",
        flush=True,
    )
    return row


def train(source: str, overrides: list[str]) -> dict[str, Any]:
    """Reckon, then train, in this process; the estimate and the peak of the memory that was resident."""
    from progrpo.launch.plan import make_plan
    from progrpo.recipes.schema import load_recipe
    from progrpo.runs.folder import RunFolder
    from progrpo.trl.run import train as train_recipe

    warnings.simplefilter("ignore", FutureWarning)
    recipe = load_recipe(source, overrides)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        plan = make_plan(recipe, source, overrides, run)
        train_recipe(recipe, run, Silence())
        lengths = longest(run)
    memory = plan.memory
    parts = memory.always | max(memory.moments.values(), key=lambda moment: sum(moment.values()))
    return {
        "estimate": round(memory.peak / 1e9, 3),
        "measured": round(peak_resident() / 1e9, 3),
        "parts": {name: round(size / 1e9, 3) for name, size in parts.items()},
        "tokens": {"planned": plan.lengths.total, "met": lengths},
    }


def longest(run: Any) -> int:
    """Tokens of the longest prompt with the longest response of any step."""
    import pandas as pd

    from progrpo.recipes.build import prompt_length
    from progrpo.sampling.models import load_tokenizer

    recipe, most = run.recipe(), 0
    from progrpo.recipes.build import make_task

    tokenizer = load_tokenizer(recipe.model.path)
    lengths = {row["problem_id"]: prompt_length(row["prompt"], tokenizer) for row in make_task(recipe).train_problems()}
    for file in run.rollouts.glob("*.parquet"):
        step = pd.read_parquet(file)
        most = max(most, max(map(lengths.__getitem__, step["problem_id"])) + int(step["token_ids"].str.len().max()))
    return most


def peak_resident() -> int:
    """Bytes that this process had resident at most. ``getrusage`` on Linux counts those of the process that it was
    forked from as well."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


class Silence:
    def stage(self, name: str, total: int, completed: int = 0) -> None:
        """Progress that nobody watches."""

    def advance(self, amount: int = 1, **values: float) -> None:
        """Progress that nobody watches."""


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
