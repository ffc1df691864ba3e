"""``make bench``: paired timings, printed and written to benchmarks/results/bench.json.

The two things that are compared run in one process and take turns, step by step, so that a drifting machine slows both.
The result is the median of the pairs' ratios, with the 95 % interval from 10,000 bootstrap resamples of the pairs.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
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
    parser.add_argument("--steps", type=int, default=42, help="training steps of each trainer")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    if args.only:
        print(json.dumps(ALONE[args.only](args.steps)))
        return
    results = {
        "answer_confidence / torch.sort, (512, 8192) float32": confidence_against_sort(),
        "ProGRPOTrainer step / GRPOTrainer step": steps_against(our_trainer, their_trainer, args.steps),
        "ProGRPOTrainer peak memory / GRPOTrainer peak memory": memory_against(),
        "TRL's default step / the recipe's step": steps_against(trl_default_trainer, our_trainer, args.steps // 2),
        "the same, TRL with the recipe's micro-batch": steps_against(trl_large_batch, our_trainer, args.steps // 2),
        "the same, on a CPU without bfloat16 units": alone("without-bf16", 6, ONEDNN_MAX_CPU_ISA="AVX2"),
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


def steps_against(one: Callable[[int], Any], other: Callable[[int], Any], steps: int) -> dict[str, float]:
    """Seconds per step of two trainers that take turns and draw the same responses."""
    turns = Turns()
    trainers = [one(steps), other(steps)]
    timings = [turns.timing(i) for i in range(2)]
    threads = []
    for trainer, timing in zip(trainers, timings, strict=True):
        trainer.add_callback(timing)
        threads.append(threading.Thread(target=run_quietly, args=(trainer, timing)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if any(timing.error for timing in timings):
        raise next(timing.error for timing in timings if timing.error)
    warm_up = 2
    return ratio(timings[0].seconds[warm_up:], timings[1].seconds[warm_up:])


def run_quietly(trainer: Any, timing: Any) -> None:
    try:
        trainer.train()
    except BaseException as error:
        timing.error = error
    finally:
        timing.leave()


class Turns:
    """Lets two threads take steps in turn: after its step, a thread hands over to the other."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.turn = 0
        self.left: set[int] = set()

    def timing(self, index: int) -> Any:
        from transformers import TrainerCallback

        turns = self

        class Timing(TrainerCallback):
            seconds: list[float]
            error: BaseException | None = None

            def __init__(self) -> None:
                self.seconds = []

            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                with turns.condition:
                    turns.condition.wait_for(lambda: turns.turn == index or turns.left)
                torch.manual_seed(state.global_step)  # both trainers draw the same responses, of the same lengths
                self.start = time.perf_counter()

            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                self.seconds.append(time.perf_counter() - self.start)
                with turns.condition:
                    turns.turn = 1 - index
                    turns.condition.notify_all()

            def leave(self) -> None:
                with turns.condition:
                    turns.left.add(index)
                    turns.condition.notify_all()

        return Timing()


def memory_against(rounds: int = 3) -> dict[str, float]:
    """The peak resident memory of a training process, ours divided by TRL's; each measurement has its own process."""
    peaks: dict[str, list[float]] = {"our": [], "their": []}
    for _ in range(rounds):
        for whose, gigabytes in peaks.items():
            gigabytes.append(alone(f"{whose}-memory", 6)["gigabytes"])
    measured = ratio(peaks["our"], peaks["their"])
    return {"ratio": measured["ratio"], "gigabytes": measured["seconds"], "pairs": rounds}


def peak_memory(trainer: Any) -> dict[str, float]:
    """Peak resident gigabytes of this process after some steps."""
    trainer.train()
    unit = 1 if sys.platform == "darwin" else 1024
    return {"gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}


# Measurements that need a process of their own.
ALONE: dict[str, Callable[[int], dict[str, float]]] = {
    "our-memory": lambda steps: peak_memory(our_trainer(steps)),
    "their-memory": lambda steps: peak_memory(their_trainer(steps)),
    "without-bf16": lambda steps: steps_against(trl_large_batch, our_trainer, steps),
}


def alone(what: str, steps: int, **environment: str) -> dict[str, float]:
    """Run one of ``ALONE`` in its own process."""
    command = [sys.executable, __file__, "--only", what, "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    measured: dict[str, float] = json.loads(done.stdout.strip().split("\n")[-1])
    return measured


if __name__ == "__main__":
    main()
