"""The two recipes of a pretrained model, cut short: a stop, a resume, and an evaluation before and after."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Once

pytestmark = pytest.mark.skipif(find_spec("math_verify") is None, reason="math-verify is not installed")

SHORT = [
    "training.prompts_per_step=1",
    "training.group_size=2",
    "training.micro_batch=2",
    "training.checkpoint_every=1",
    "training.max_response_tokens=8",
    "task.examples=0",
    "task.train.limit=4",
    "task.heldout.limit=2",
    "evaluation.samples=2",
    "evaluation.samples_in_training=2",
    "evaluation.problems_in_training=1",
]


@pytest.fixture
def cli_with_model(cli: Any, smollm2_cache: Path, once: Once) -> Any:
    """The cache holds SmolLM2's first two layers of 30, under its name: a step of them takes a fifth of the time."""
    from transformers import AutoModelForCausalLM

    def keep_two_layers(cache: Path) -> None:
        [whole] = (path.parent for path in smollm2_cache.glob("*/model.safetensors"))
        shutil.copytree(whole, cache / whole.name, ignore=shutil.ignore_patterns("model.safetensors"))
        AutoModelForCausalLM.from_pretrained(whole, num_hidden_layers=2).save_pretrained(cache / whole.name)

    cli.environment["PROGRPO_CACHE"] = str(once("smollm2-two-layers", keep_two_layers))
    return cli


def test_it_trains_and_is_evaluated(cli_with_model: Any) -> None:
    cli_with_model("train", "smollm2_small_functions_cpu", *SHORT, "training.steps=1", "--out", "run")
    check_run(cli_with_model.folder / "run", steps=1)


def test_it_goes_on_after_a_kill(cli_with_model: Any) -> None:
    cli_with_model("train", "smollm2_word_problems_cpu", *SHORT, "training.steps=1", "--out", "run")
    run: Path = cli_with_model.folder / "run"
    # Like a run that was killed after its first step: the recipe has two steps, and the run has not ended.
    settings = json.loads((run / "recipe.json").read_text())
    settings["training"]["steps"] = 2
    (run / "recipe.json").write_text(json.dumps(settings))
    (run / "evaluations" / "final.json").unlink()
    cli_with_model("train", "--resume", "run")
    check_run(run, steps=2)


def check_run(run: Path, steps: int) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    assert all({"reward", "entropy", "verifier/errors"} <= line.keys() for line in lines)
    assert all(line["verifier/errors"] == 0 for line in lines)
    for evaluation in ("step-000000", "final"):
        problems = json.loads((run / "evaluations" / f"{evaluation}.json").read_text())["problems"]
        assert problems
        assert all(problem["errors"] == 0 for problem in problems)
    assert (run / "report.html").exists()
