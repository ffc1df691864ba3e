"""Bad input: one sentence, exit code 2, no traceback, nothing left behind."""

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["train", "no-such.toml"],
            "recipe 'no-such.toml' is neither a file nor a built-in recipe (countdown_cpu, ",
        ),
        (["train", "countdown_cpu", "training.step=3"], "unknown key 'training.step'; known keys there are steps,"),
        (["train", "countdown_cpu", "optimizer.lr=3"], "unknown key 'optimizer'; known keys there are name, method,"),
        (["train", "countdown_cpu", "training.steps=many"], "training.steps should be a valid integer, got 'many'"),
        (["train", "countdown_cpu", "training.steps=0"], "training.steps should be greater than or equal to 1, got 0"),
        (["train", "countdown_cpu", "method=grop"], "method must be one of grpo, dr_grpo"),
        (["train", "countdown_cpu", "steps"], "override 'steps' is not of the form key=value"),
        (["train", "countdown_cpu", "name.x=1"], "goes through 'name', which is a value and not a table"),
        (["train", "countdown_cpu", "task.numbers=7"], "task.numbers should be 3, 4, 5 or 6, got 7"),
        (["train", "countdown_cpu", "trl.no_such_field=1"], "'no_such_field' is not a field of ProGRPOConfig"),
        (
            ["train", "countdown_cpu", "trl.use_vllm=true"],
            "trl.use_vllm needs vLLM, which is not installed; pip install 'trl[vllm]' where there is a GPU, and leave",
        ),
        (["train", "countdown_cpu", "methods.progrpo.alpha=-1.0"], "alpha must be a number in [0.0, inf), got -1.0"),
        (["train", "countdown_cpu", "training.micro_batch=7"], "choose training.micro_batch to divide 512"),
        (
            ["train", "countdown_cpu", "model.path=/nowhere"],
            "model '/nowhere' can't be loaded; give countdown, smollm2, a folder",
        ),
        (["train", "--resume", "nowhere"], "recipe 'nowhere' is neither a file nor a built-in recipe"),
        (["compare", "countdown_cpu", "--methods", "grpo,,progrpo"], "--methods must be different names separated by"),
        (["compare", "countdown_cpu", "--seeds", "0,0"], "--seeds must be different names separated by commas"),
        (["report", "nowhere"], "'nowhere' is not a run folder: it has no recipe.json"),
        (["evaluate", "nowhere"], "model 'nowhere' can't be loaded"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_one_sentence_and_exit_code_2(cli: Any, arguments: list[str], said: str) -> None:
    done = cli(*arguments, code=2)
    assert said in done.err
    assert "Traceback" not in done.err + done.out
    assert done.err.strip().count("\n") == 0
    assert not list(cli.folder.rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps = = 3", "is not valid TOML"),
        ("method = 'grpo'", "lacks the key 'name'"),
        ("name = 3", "valid string, got 3"),
    ],
)
def test_a_bad_recipe_file(cli: Any, text: str, said: str) -> None:
    (cli.folder / "bad.toml").write_text(text)
    assert said in cli("train", "bad.toml", code=2).err


def test_a_folder_with_a_run_is_not_overwritten(cli: Any, finished_run: Path) -> None:
    before = (finished_run / "metrics.jsonl").read_text()
    done = cli("train", "countdown_cpu", *cli.tiny, "--out", str(finished_run), code=2)
    assert "already holds a run; continue it with --resume, or choose another folder with --out" in done.err
    done = cli("train", "countdown_cpu", *cli.tiny, "seed=5", "--out", str(finished_run), "--resume", code=2)
    assert "holds a run of another recipe" in done.err
    assert (finished_run / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("command", ["train", "evaluate", "compare", "report", "doctor"])
def test_help_shows_examples(cli: Any, command: str) -> None:
    shown = cli(command, "--help").out
    assert "Examples" in shown or "Example" in shown
    assert f"progrpo {command}" in shown
