"""``progrpo train --dry-run`` and low-rank adapters, as users run them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import aime_rows, write_rows


@pytest.mark.parametrize("engine", ["trl", "verl"])
def test_the_plan_is_printed_and_nothing_is_written(cli: Any, engine: str) -> None:
    output = cli("train", "qwen2.5_7b_dapo_math", f"engine={engine}", "--dry-run").out
    words = " ".join(output.split())
    assert "7,615,616,512 parameters, all trained" in words
    assert "128 prompts x 16 = 2,048 responses = 8 processes x 128 passes x 2; one update" in words
    assert "up to 18,874,368 a step" in words
    assert "400, 819,200 responses in all" in words
    assert "progrpo evaluate on aime24, aime25, amc23, math500, minerva, olympiadbench" in words
    launcher = "accelerate launch" if engine == "trl" else "-m verl.trainer.main_ppo"
    assert sum(launcher in line for line in output.splitlines()) == 1, "on one line, for a shell"
    assert "of 80 GB" in words
    assert "Warning" not in words
    assert list(cli.folder.iterdir()) == []


def test_the_parts_add_up(cli: Any) -> None:
    output = cli("train", "countdown_cpu", "--dry-run").out.splitlines()
    head = next(i for i, line in enumerate(output) if line.split() == ["rollout", "update", "evaluation"])
    last = next(i for i, line in enumerate(output) if line.startswith("together"))
    until = output[head].index("update") + len("update")
    held = [line[until - 6 : until].strip() for line in output[head + 1 : last + 1]]
    *parts, total = [float(size) for size in held if size]
    assert len(parts) >= 4
    assert sum(parts) == pytest.approx(total, abs=0.04)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("countdown_cpu", "training.prompts_per_step=2000000"),
            r"Warning: this run does not fit: the \w+ needs about [\d,]+ GB, and this machine has \d+: lower training",
        ),
        (
            ("countdown_cpu", "evaluation.batch=2000000000", "evaluation.samples=2000000000"),
            r"Warning: this run does not fit: the evaluation needs about [\d,]+ GB, and this machine has \d+: lower",
        ),
        (
            ("qwen2.5_7b_dapo_math", "launch.gpu_memory_gb=20"),
            r"Warning: this run does not fit: the \w+ needs about \d+ GB, and each GPU has 20: lower",
        ),
    ],
)
def test_a_run_that_does_not_fit_causes_a_warning(cli: Any, arguments: tuple[str, ...], message: str) -> None:
    assert re.search(message, " ".join(cli("train", *arguments, "--dry-run").out.split()))


def test_a_plan_makes_no_more_problems_than_it_looks_at(cli: Any, forked: Any) -> None:
    """A million problems take minutes to make."""
    patch = """
from progrpo.tasks import Countdown
make = Countdown._problems
def few(self, rng, size, *, heldout):
    assert size <= 2000
    return make(self, rng, size, heldout=heldout)
Countdown._problems = few
"""
    forked("train", "countdown_cpu", "task.numbers=6", "task.train_size=1000000", "--dry-run", patch=patch)


def test_a_run_that_can_be_resumed_is_planned_too(cli: Any) -> None:
    cli("train", "countdown_cpu", *cli.tiny, "training.steps=2", "evaluation.every=0", "--out", "run")
    before = sorted(str(path) for path in cli.folder.rglob("*"))
    output = cli("train", "--resume", "run", "--dry-run").out
    assert "progrpo train run --resume" in output
    assert sorted(str(path) for path in cli.folder.rglob("*")) == before


def test_contradicting_settings_are_refused_in_one_sentence(cli: Any) -> None:
    output = cli("train", "qwen2.5_7b_dapo_math", "trl.vllm_mode=server", "--dry-run", code=2).err
    assert output.startswith("progrpo: trl.vllm_mode = 'server' needs GPUs of its own: set launch.server_gpus to 1..7")
    assert len(output.strip().splitlines()) == 1


def test_a_recipe_for_more_processes_is_not_started_on_one(cli: Any) -> None:
    output = cli("train", "qwen2.5_7b_dapo_math", "trl.use_vllm=false", code=2).err
    assert "for 8 processes, but this launch has 1: start it as progrpo train qwen2.5_7b_dapo_math --dry-run" in output
    assert not list(cli.folder.rglob("recipe.json")), "nothing was begun"


def test_adapters_are_trained_resumed_and_evaluated(cli: Any) -> None:
    lora = ("model.lora.r=4", "model.lora.alpha=8", 'model.lora.target_modules=["q_proj", "down_proj"]')
    tiny = (*cli.tiny, "training.steps=2", "training.checkpoint_every=1", "evaluation.every=1")
    cli("train", "countdown_cpu", *tiny, *lora, "--out", "whole")
    whole = lines(cli.folder / "whole")
    assert [line["step"] for line in whole] == [1, 2]
    checkpoint = cli.folder / "whole" / "checkpoints" / "checkpoint-2"
    config = json.loads((checkpoint / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], sorted(config["target_modules"])) == (4, 8, ["down_proj", "q_proj"])
    assert not (checkpoint / "model.safetensors").exists(), "the model itself is not trained, and not kept"

    # Like a run that was killed after its first step.
    stopped = cli.folder / "stopped"
    shutil.copytree(cli.folder / "whole", stopped)
    shutil.rmtree(stopped / "checkpoints" / "checkpoint-2")
    (stopped / "evaluations" / "final.json").unlink()
    cli("train", "--resume", "stopped")
    for resumed, first in zip(lines(stopped), whole, strict=True):
        for name in ("reward", "loss", "grad_norm", "entropy"):
            assert resumed[name] == pytest.approx(first[name], abs=1e-5), name

    output = cli("evaluate", "whole", "--samples", "2", "--out", "e").out
    assert "pass@2" in output
    final = json.loads((cli.folder / "whole" / "evaluations" / "final.json").read_text())
    assert len(final["problems"]) == 8
    refused = cli("evaluate", "whole", "--backend", "vllm", code=2).err
    assert "holds low-rank adapters and vLLM loads whole models" in refused


def test_a_recipe_is_evaluated_on_its_benchmarks(cli: Any) -> None:
    (cli.folder / "own.toml").write_text('name = "own"\n[evaluation]\nbenchmarks = ["aime24"]\nsamples = 2\n')
    rows = write_rows(cli.folder / "rows.jsonl", aime_rows(2))
    asked = ("evaluate", "countdown", "--recipe", "own.toml", "--samples", "2", "--max-new-tokens", "4", "--out", "e")
    cli(*asked, "--data", f"aime24={rows}", "--template", "{problem} {instruction}")
    assert [path.name for path in (cli.folder / "e").glob("*.json")] == ["aime24.json"]
    cli(*asked[:4], "evaluation.benchmarks=[]", "task.heldout_size=2", *asked[4:-1], "h")
    assert [path.name for path in (cli.folder / "h").glob("*.json")] == ["countdown.json"]


def test_an_unknown_benchmark_is_refused(cli: Any) -> None:
    output = cli("train", "countdown_cpu", 'evaluation.benchmarks=["aime26"]', code=2).err
    assert "evaluation.benchmarks has 'aime26', which is not one of aime24, aime25" in output


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
