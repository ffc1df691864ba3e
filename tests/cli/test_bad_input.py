"""Bad input: one sentence, exit code 2, no traceback, nothing left behind."""

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
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
        (
            ["train", "--resume", "nowhere"],
            "there is no run to resume at 'nowhere': give a run folder, or a recipe and",
        ),
        (["train", "."], "recipe '.' is a folder, not a TOML file"),
        (["train", ""], "recipe '' is a folder"),
        (["train", "countdown_cpu", "seed=99999999999999999999"], "seed should be less than or equal to 4294967295"),
        (
            ["train", "countdown_cpu", "training.steps=99999999999999999999"],
            "should be less than or equal to 2147483647",
        ),
        (["train", "countdown_cpu", "training.steps=" + "9" * 5000], "training.steps should be a valid integer"),
        (
            ["train", "countdown_cpu", "training.learning_rate=1e400"],
            "training.learning_rate should be a finite number",
        ),
        (["train", "countdown_cpu", "trl.adam_epsilon=inf"], "trl must hold texts, finite numbers, lists and tables"),
        (["train", "countdown_cpu", "trl.hub_revision=2026-01-01"], "trl must hold texts, finite numbers, lists and"),
        (["train", "countdown_cpu", "trl.loss_type=foo"], "trl.loss_type should be 'grpo', 'dapo', "),
        (["train", "countdown_cpu", "trl.beta=high"], "trl.beta should be a valid number, got 'high'"),
        (["train", "countdown_cpu", "trl.ddp_timeout=x"], "trl.ddp_timeout should be a valid integer, got 'x'"),
        (["train", "countdown_cpu", "trl.report_to=wandb"], "trl.report_to is 'wandb', whose package is not installed"),
        (["train", "countdown_cpu", "trl.report_to=foo"], "trl.report_to must be 'none', 'all' or one of azure_ml, "),
        (
            ["train", "countdown_cpu", "trl.reward_weights=[1, 2]"],
            "can't be trained with its settings: Number of reward weights (2)",
        ),
        (["train", "countdown_cpu", "trl.deepspeed=nowhere.json"], "the settings of recipe 'countdown_cpu' don't go"),
        (
            ["train", "countdown_cpu", "task.train_size=31"],
            "a rollout takes 32 different prompts (training.prompts_per",
        ),
        (["train", "countdown_cpu", "task.train_size=1000000"], "task.train_size is 1000000, and there are only 56021"),
        (["train", "countdown_cpu", "task.train_size=1000000", "--dry-run"], "and there are only 56021 such problems"),
        (["train", "countdown_cpu", "--dry-run", "trl.loss_type=foo"], "trl.loss_type should be 'grpo', 'dapo', "),
        (["compare", "countdown_cpu", "--methods", "grpo,,progrpo"], "--methods must be different names separated by"),
        (["compare", "countdown_cpu", "--seeds", "0,0"], "--seeds must be different names separated by commas"),
        (["report", "nowhere"], "'nowhere' is not a run folder: it does not exist"),
        (["report", "."], "'.' is not a run folder: it has no recipe.json, no run and no evaluation in it"),
        (["benchmarks", "--data", "rows.jsonl"], "--data is for one benchmark: name it, as in"),
        (["benchmarks", "aime24", "--data", ""], "--data must name a file, or be 'hub'; it is empty"),
        (["benchmarks", "aime24", "--data", "hub"], "give a local file with its rows instead: --data FILE."),
        (["evaluate", "countdown", "--benchmarks", "aime24"], "its rows instead: --data aime24=FILE."),
        (
            ["train", "countdown_cpu", "task={name='math', train={preset='gsm8k'}, heldout={preset='aime24'}}"],
            "give a local file with its rows instead: task.train.path=FILE.",
        ),
        (["evaluate", "nowhere"], "model 'nowhere' can't be loaded"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_one_sentence_and_exit_code_2(cli: Any, arguments: list[str], message: str) -> None:
    done = cli(*arguments, code=2)
    assert message in done.err
    assert "Traceback" not in done.err + done.out
    assert done.err.strip().count("\n") == 0
    assert not list(cli.folder.rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = = 3", "is not valid TOML"),
        ("method = 'grpo'", "lacks the key 'name'"),
        ("name = 3", "valid string, got 3"),
    ],
)
def test_a_bad_recipe_file(cli: Any, text: str, message: str) -> None:
    (cli.folder / "bad.toml").write_text(text)
    assert message in cli("train", "bad.toml", code=2).err


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


def test_a_file_cannot_be_written_where_a_folder_is(cli: Any, finished_run: Path) -> None:
    (cli.folder / "file").touch()
    for out, message in (
        (".", "progrpo: --out '.' is a folder; give the name of a file, such as 'page.html'."),
        (str(cli.folder), "is a folder; give the name of a file, such as"),
        ("file", "progrpo: --out 'file' is not the name of a page; let it end in .html."),
        ("file/page.html", "progrpo: the folder 'file' can't be written (File exists); choose another with --out"),
    ):
        done = cli("report", str(finished_run), "--out", out, code=2)
        assert message in done.err
        assert done.err.strip().count("\n") == 0


def test_the_systems_refusal_of_a_path_is_one_sentence_and_a_bug_is_a_traceback(forked: Any, tmp_path: Path) -> None:
    raised = "import progrpo.pages; progrpo.pages.summary_text = lambda folders: open({!r}, 'w')"
    (tmp_path / "recipe.json").write_text('{"name": "x"}')
    done = forked("report", str(tmp_path), code=1, patch=raised.format(str(tmp_path)))
    assert done.err == f"progrpo: {str(tmp_path)!r} can't be read or written: Is a directory.\n"
    for bug in ("open('/nowhere/x')", "{}['reward']", "__import__('progrpo.no_such_module')"):
        lines = f"import progrpo.pages; progrpo.pages.summary_text = lambda folders: {bug}"
        assert "Traceback" in forked("report", str(tmp_path), code=1, patch=lines).err


def test_fsdp_on_a_cpu_is_refused_by_name(cli: Any) -> None:
    cli.environment |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    done = cli("train", "countdown_cpu", *cli.tiny, "--out", "run", code=2)
    assert "asks for FSDP, which accelerate does not do on a CPU" in done.err
    assert not (cli.folder / "run" / "recipe.json").exists()
