"""``make bench``: paired timings, printed and written to benchmarks/results/bench.json.

The two things that are compared take turns, step by step, so that a drifting machine slows both.
The result is the median of the pairs' ratios, with the 95 % interval from 10,000 bootstrap resamples of the pairs.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import record

RECIPE = "countdown_cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=82, help="training steps of each trainer")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    if args.only:
        measure, name = args.only.split(":")
        trainer = TRAINERS[name](args.steps)
        take_steps(trainer) if measure == "steps" else print_peak_memory(trainer)
        return
    results = {
        "answer_confidence / torch.sort, (512, 8192) float32": confidence_against_sort(),
        "ProGRPOTrainer step / GRPOTrainer step": steps_against("ours", "grpo", args.steps),
        "ProGRPOTrainer peak memory / GRPOTrainer peak memory": memory_against(),
        "TRL's default step / the recipe's step": steps_against("trl-defaults", "ours", args.steps // 4),
        "the same, TRL with the recipe's micro-batch": steps_against("trl-large-batch", "ours", args.steps // 4),
        "the same, on a CPU without bfloat16 units": steps_against(
            "trl-large-batch", "ours", 6, ONEDNN_MAX_CPU_ISA="AVX2"
        ),
    }
    record("bench", results)


def confidence_against_sort(rounds: int = 20) -> dict[str, float]:
    """The time of ``answer_confidence`` divided by that of one ``torch.sort`` of the same matrix."""
    from progrpo.core import answer_confidence

    generator = torch.Generator().manual_seed(0)
    logps_BT = -torch.rand(512, 8192, generator=generator) * 5
    lengths_B = torch.randint(1, 8193, (512,), generator=generator)
    mask_BT = torch.arange(8192) < lengths_B[:, None]
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(seconds(lambda: answer_confidence(logps_BT, mask_BT)))
        theirs.append(seconds(lambda: torch.sort(logps_BT, dim=1)))
    return ratio(ours[1:], theirs[1:])


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratio(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """The median of the pairs' ratios and its 95 % bootstrap interval over the pairs.

    The two of a pair do the same work one after the other, so the ratio of a pair is free of most of what slows both.
    """
    ratios = np.array(numerator) / np.array(denominator)
    rows = np.random.default_rng(0).integers(len(ratios), size=(10_000, len(ratios)))
    low, high = np.percentile(np.median(ratios[rows], axis=1), [2.5, 97.5])
    named = {
        "ratio": np.median(ratios),
        "low": low,
        "high": high,
        "seconds": np.median(numerator),
        "seconds_of_the_other": np.median(denominator),
        "pairs": len(ratios),
    }
    return {name: round(float(value), 4) for name, value in named.items()}


def our_trainer(steps: int, **settings: Any) -> Any:
    """ProGRPOTrainer with the recipe's settings; with a learning rate near 0, both policies and lengths stay alike."""
    from progrpo.trl import ProGRPOTrainer

    return make_trainer(ProGRPOTrainer, steps, {}, settings)


def their_trainer(steps: int, **settings: Any) -> Any:
    """TRL's GRPOTrainer with identical settings."""
    from trl import GRPOTrainer

    return make_trainer(GRPOTrainer, steps, {}, settings)


TRL_DEFAULTS = {"bf16": True, "gradient_checkpointing": True}


def trl_default_trainer(steps: int) -> Any:
    """TRL's GRPOTrainer on the same model and batch, with TRL's defaults where the recipe is tuned for a CPU: bfloat16,
    recomputation, and micro-batches of 8 responses."""
    from trl import GRPOTrainer

    return make_trainer(GRPOTrainer, steps, TRL_DEFAULTS | {"per_device_train_batch_size": 8}, {})


def trl_large_batch(steps: int) -> Any:
    """The same with the recipe's micro-batch, which holds all responses."""
    from trl import GRPOTrainer

    return make_trainer(GRPOTrainer, steps, TRL_DEFAULTS, {})


def make_trainer(trainer_class: Any, steps: int, changes: dict[str, Any], more: dict[str, Any]) -> Any:
    from dataclasses import fields

    from datasets import Dataset
    from transformers import PrinterCallback

    from progrpo.recipes.build import make_task
    from progrpo.recipes.schema import load_recipe
    from progrpo.sampling.models import load_model
    from progrpo.tasks.rewards import task_reward
    from progrpo.trl import ProGRPOTrainer
    from progrpo.trl.settings import trl_config
    from trl import GRPOConfig

    recipe = load_recipe(RECIPE, [f"training.steps={steps}", "training.learning_rate=1e-12"])
    task = make_task(recipe)
    config = trl_config(recipe, task, Path("unused"))
    if trainer_class is not ProGRPOTrainer or changes:
        fields_of_trl = {f.name for f in fields(GRPOConfig) if f.init}
        settings = {name: value for name, value in vars(config).items() if name in fields_of_trl}
        responses = settings.pop("generation_batch_size")
        settings |= changes
        steps_a_batch = responses // settings["per_device_train_batch_size"]
        settings |= {"gradient_accumulation_steps": steps_a_batch, "steps_per_generation": steps_a_batch}
        config = GRPOConfig(**settings)
    config.save_strategy = "no"
    model, tokenizer = load_model(recipe.model.path, recipe.model.dtype)
    reward = task_reward(task)
    dataset = Dataset.from_list(task.train_problems())
    trainer = trainer_class(model, reward, config, train_dataset=dataset, processing_class=tokenizer, **more)
    trainer.remove_callback(PrinterCallback)
    return trainer


def steps_against(one: str, other: str, steps: int, **environment: str) -> dict[str, float]:
    """The ratio of the seconds per step of two of ``TRAINERS`` that take turns and draw the same responses.

    Each has its own process, which sleeps while the other takes a step. In one process, two trainers would have more
    threads than there are cores, and OpenMP would wake them anew for each operation.
    """
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "env": os.environ | environment}
    processes = [start(f"steps:{name}", steps, **options) for name in (one, other)]
    measured: tuple[list[float], list[float]] = ([], [])
    try:
        for _ in range(steps):
            for process, times in zip(processes, measured, strict=True):
                print("go", file=process.stdin, flush=True)
                times.append(answer(process))
    finally:  # if one fails, the other must not train on alone
        for process in processes:
            process.kill()
            process.communicate()
    warm_up = 2
    return ratio(measured[0][warm_up:], measured[1][warm_up:])


def take_steps(trainer: Any) -> None:
    """Train, and before each step wait for a line on stdin; after it print the seconds that it took."""
    from transformers import TrainerCallback

    class Turn(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            sys.stdin.readline()
            torch.manual_seed(state.global_step)  # both trainers draw the same responses, of the same lengths
            self.start = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            print(f"{ANSWER}{time.perf_counter() - self.start}", flush=True)

    trainer.add_callback(Turn())
    trainer.train()


def start(what: str, steps: int, **options: Any) -> "subprocess.Popen[str]":
    """Start this script for one measurement in a process of its own."""
    command = [sys.executable, __file__, "--only", what, "--steps", str(steps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def answer(process: "subprocess.Popen[str]") -> float:
    """The next number that a process printed as its answer."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(ANSWER):
            return float(line.removeprefix(ANSWER))
    raise RuntimeError(f"{process.args!r} ended without an answer, exit code {process.wait()}")


def memory_against(rounds: int = 3) -> dict[str, float]:
    """The peak resident memory of a training process, ours divided by TRL's; each measurement has its own process."""
    peaks: dict[str, list[float]] = {"ours": [], "grpo": []}
    for _ in range(rounds):
        for name, gigabytes in peaks.items():
            with start(f"memory:{name}", 6) as process:
                gigabytes.append(answer(process))
    measured = ratio(peaks["ours"], peaks["grpo"])
    return {"ratio": measured["ratio"], "gigabytes": measured["seconds"], "pairs": rounds}


def print_peak_memory(trainer: Any) -> None:
    """Train, and print the peak resident gigabytes of this process."""
    trainer.train()
    unit = 1 if sys.platform == "darwin" else 1024
    print(f"{ANSWER}{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}")


ANSWER = "answer: "
TRAINERS: dict[str, Callable[[int], Any]] = {
    "ours": our_trainer,
    "grpo": their_trainer,
    "trl-defaults": trl_default_trainer,
    "trl-large-batch": trl_large_batch,
}


if __name__ == "__main__":
    main()
