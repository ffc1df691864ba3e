"""Recipes on verl itself.

verl reads and checks every recipe of the paper's scale as shipped. One recipe of each task trains a tiny model of its
architecture on Ray, by ``progrpo train`` as users run it, on a few rows in the schemas of its data sets.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl.trainer", reason="verl is not installed: make test-verl")

import pandas as pd
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tests import tiny
from tests.conftest import Once
from tests.verl.in_verl.verl_run import run_with_ray
from transformers import AutoModelForCausalLM, AutoTokenizer

from progrpo.common.errors import ConfigError
from progrpo.recipes.build import make_task
from progrpo.recipes.schema import Recipe, builtin_recipes, load_recipe
from progrpo.runs.folder import RunFolder
from progrpo.tasks.rewards import compute_score
from progrpo.verl.check import check_settings
from progrpo.verl.checkpoints import is_complete
from progrpo.verl.data import write_data
from progrpo.verl.settings import CHAT_TEMPLATE, VerlFolder, verl_command, verl_settings

PAPER = [name for name in builtin_recipes() if load_recipe(name).launch.gpus_per_node]
"""On verl, the recipes of one task differ only in their models and sizes, so one recipe of each task is trained."""
STOPPED, TWO_WORKERS = PAPER[0], "r1_distill_qwen_7b_deepcoder"

CPU = {
    "trainer.device": "cpu",
    "actor_rollout_ref.rollout.name": "hf",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "actor_rollout_ref.rollout.free_cache_engine": False,
    "actor_rollout_ref.rollout.load_format": "auto",
    "actor_rollout_ref.rollout.agent.num_workers": 1,
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.actor.use_torch_compile": False,
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile": False,
    "data.dataloader_num_workers": 0,
    "reward.num_workers": 1,
    "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    "transfer_queue.backend.SimpleStorage.total_storage_size": 1000,
    "+ray_kwargs.ray_init.include_dashboard": False,
    "+ray_kwargs.ray_init.object_store_memory": 200000000,
    "ray_kwargs.ray_init.num_cpus": 32,
}
"""The overrides that a CPU needs, all of them through ``[verl]``. Otherwise only sizes and paths change."""


def on_the_cpu(gpus: int = 1) -> list[str]:
    forced = CPU | {"+ray_kwargs.ray_init.num_gpus": gpus}
    return [
        "launch.nodes=1",
        f"launch.gpus_per_node={gpus}",
        "training.rollouts_every=1",
        *(f"verl.{key}={json.dumps(value)}" for key, value in forced.items()),
    ]


SMALL = [
    "model.attention=sdpa",
    "training.steps=2",
    "training.prompts_per_step=4",
    "training.group_size=8",
    "training.micro_batch=8",
    "training.checkpoint_every=1",
    "evaluation.samples=4",
    "evaluation.every=1",
    "evaluation.samples_in_training=2",
]

OF_RESPONSES = re.compile(r"step$|reward|entropy|completions/|confidence/|correction/|groups/|distinct|verifier/")
REFERENCE_MODEL = {
    "actor_rollout_ref.actor.use_kl_loss": True,
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": 8,
    "actor_rollout_ref.ref.strategy": "fsdp2",
    "actor_rollout_ref.ref.use_torch_compile": False,
    "actor_rollout_ref.ref.fsdp_config.use_torch_compile": False,
}

ROWS = {
    "dapo_math_17k": tiny.dapo_rows,
    "aime24": tiny.aime_rows,
    "deepcoder": tiny.deepcoder_rows,
    "livecodebench_v5_window": tiny.livecodebench_rows,
}
RESPONSES = {
    "math": [rf"\boxed{{{digit}}}" for digit in range(10)],
    "code": [f"```python\nprint(int(input())+{digit})\n```" for digit in range(6)],
}
"""The answers that the tiny models have learnt, whatever the problem: an answer is sometimes right."""


@pytest.fixture(scope="session")
def models(once: Once) -> dict[str, Path]:
    """For each task, a tiny model that answers in the right form."""

    def train_all(folder: Path) -> None:
        for name in (STOPPED, TWO_WORKERS):
            recipe = load_recipe(name, data_paths(name, folder))
            prompts = [problem["prompt"] for problem in make_task(recipe).train_problems()]
            train_model(folder / recipe.task.name, prompts, RESPONSES[recipe.task.name])

    folder = once("verl-models", train_all)
    return {name: folder / name for name in RESPONSES}


def train_model(folder: Path, prompts: list[Any], responses: list[str]) -> None:
    """A tiny Qwen2 that gives each of these responses equally often, whatever the prompt."""
    torch.set_num_threads(1)
    tiny.tiny_qwen2(folder, hidden=64)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    answers = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in responses]
    longest = max(map(len, answers))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(120):
        chat = prompts[step % len(prompts)]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = torch.tensor([prompt + row + [tokenizer.pad_token_id] * (longest - len(row)) for row in answers])
        labels = ids.masked_fill((ids == tokenizer.pad_token_id) | (torch.arange(ids.shape[1]) < len(prompt)), -100)
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)


def data_paths(name: str, folder: Path) -> list[str]:
    """The recipe's datasets as files of a few rows."""
    parts = {part: getattr(load_recipe(name).task, part).preset for part in ("train", "heldout")}
    return [
        f"task.{part}.path={tiny.write_rows(folder / f'{preset}.jsonl', ROWS[preset]())}"
        for part, preset in parts.items()
    ]


def arguments(name: str, folder: Path, models: dict[str, Path], gpus: int = 1) -> list[str]:
    """The recipe as shipped, except for SMALL and CPU and the paths of its model and data."""
    task = load_recipe(name).task.name
    return [
        name,
        "engine=verl",
        *data_paths(name, folder),
        f"model.path={models[task]}",
        f"training.max_response_tokens={48 if task == 'code' else 12}",
        *SMALL,
        *on_the_cpu(gpus),
    ]


def progrpo(folder: Path, *words: str, check: bool = True, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
    return run_with_ray([sys.executable, "-m", "progrpo", *words], folder, check=check, timeout=timeout)


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def evaluation(run: Path, name: str) -> dict[str, Any]:
    return json.loads((run / "evaluations" / f"{name}.json").read_text())


def test_the_papers_recipes_exist() -> None:
    assert len(PAPER) >= 5
    assert {load_recipe(name).task.name for name in PAPER} == {load_recipe(n).task.name for n in (STOPPED, TWO_WORKERS)}


@pytest.mark.parametrize("name", PAPER)
def test_verl_accepts_the_recipe_as_shipped(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, ["engine=verl"])
    command = verl_command(recipe, RunFolder(tmp_path))
    check_settings(command)
    config = composed(command)
    assert config.actor_rollout_ref.model.path == recipe.model.path
    assert config.data.train_batch_size == recipe.training.prompts_per_step
    assert config.actor_rollout_ref.actor.ppo_mini_batch_size == recipe.training.prompts_per_step
    assert config.actor_rollout_ref.rollout.n == recipe.training.group_size
    assert_training_settings(config, recipe, recipe.training.learning_rate)


def composed(command: list[str]) -> Any:
    """verl's configuration from a command, as Hydra reads it."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", [part for part in command[3:] if not part.startswith("hydra.")])


def assert_training_settings(config: Any, recipe: Recipe, learning_rate: float) -> None:
    assert config.actor_rollout_ref.actor.optim.lr == learning_rate
    assert config.actor_rollout_ref.actor.clip_ratio_high == recipe.training.clip_high
    assert config.algorithm.progrpo.alpha == recipe.method_settings()["alpha"]


def test_verl_accepts_the_command_in_the_docs() -> None:
    docs = (Path(__file__).parents[3] / "docs" / "verl.md").read_text(encoding="utf-8")
    [command] = re.findall(r"```bash\n(python -m verl.*?)```", docs, re.DOTALL)
    check_settings(shlex.split(command.replace("\\\n", " ")))


def test_settings_that_verl_refuses_are_reported_before_ray_is_started(tmp_path: Path) -> None:
    for override, message in (
        ("verl.actor_rollout_ref.rollout.no_such=1", "no_such"),
        ("verl.actor_rollout_ref.actor.loss_agg_mode=nonsense", "nonsense"),
        ("methods.progrpo.alpha=-1.0", "alpha must be a number in"),
        ("verl.algorithm.adv_estimator=gae", "adv_estimator must be grpo"),
    ):
        command = verl_command(load_recipe(PAPER[0], ["engine=verl", override]), RunFolder(tmp_path))
        with pytest.raises(ConfigError, match=r"^[^\n]*$") as refused:
            check_settings(command)
        assert message in str(refused.value)


def test_values_arrive_unchanged(tmp_path: Path) -> None:
    odd = {
        "actor_rollout_ref.model.custom_chat_template": "{% for m in messages %}{{ m['content'] }}\n\"\\{% endfor %}",
        "trainer.experiment_name": "1e-3",
        "trainer.project_name": "a 'b', c=[d] {e:f} \\' g\\",
        "+trainer.nothing": None,
        "+trainer.several": [1, 2.5, True, "null", "x y", []],
        "+trainer.table": {"a": 1, "b": "true"},
    }
    recipe = load_recipe(PAPER[0], ["engine=verl"])
    recipe.verl |= odd
    config = composed(verl_command(recipe, RunFolder(tmp_path / "a folder, with 'quotes' = odd")))
    for key, value in odd.items():
        read = OmegaConf.select(config, key.lstrip("+"))
        assert (OmegaConf.to_container(read) if OmegaConf.is_config(read) else read) == value, key
    assert config.trainer.default_local_dir.startswith(str(tmp_path / "a folder, with 'quotes' = odd"))


def test_programs_on_two_workers(tmp_path: Path, models: dict[str, Path]) -> None:
    progrpo(tmp_path, "train", *arguments(TWO_WORKERS, tmp_path, models, gpus=2), "--out", "run")
    check_finished_run(tmp_path / "run", TWO_WORKERS, models, steps=2)
    assert "in the driver and in 3 workers" in (tmp_path / "run" / "verl" / "verl.log").read_text()


def check_finished_run(
    run: Path,
    name: str,
    models: dict[str, Path],
    *,
    steps: int,
    updates: int = 1,
    learning_rate: float | None = None,
) -> None:
    """Check the folder of a finished run of a recipe.

    Args:
        steps: optimiser steps of the run.
        updates: how many of them each rollout serves.
        learning_rate: the recipe's by default.
    """
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(updates, steps + 1, updates)), "each rollout appears once"
    for line in lines:
        assert {"reward", "entropy", "loss", "grad_norm", "completions/mean_length", "seconds"} <= line.keys()
        assert line["verifier/errors"] == 0
        assert 0 < line["confidence/answer/mean"] < 1
        assert 0 < line["confidence/prompt/mean"] < 1
    assert any(line["reward"] > 0 and line["groups/activated"] > 0 for line in lines), "no step has a right response"
    assert any(line["correction/min"] != 0 for line in lines)

    rollouts = pd.concat(pd.read_parquet(path) for path in sorted((run / "rollouts").iterdir()))
    assert len(rollouts) == steps // updates * 4 * 8
    assert set(rollouts["problem_id"]) <= set(
        pd.read_parquet(run / "verl" / "train.parquet")["extra_info"].str["index"]
    )
    for line in lines:
        rollout = rollouts[rollouts["step"] == line["step"] - updates + 1]
        assert rollout["reward"].mean() == pytest.approx(line["reward"])
        assert rollout["answer_confidence"].mean() == pytest.approx(line["confidence/answer/mean"], rel=1e-5)
        assert rollout["correction"].min() == pytest.approx(line["correction/min"], abs=1e-6)
        assert rollout["token_ids"].str.len().mean() == pytest.approx(line["completions/mean_length"])
        assert (rollout["logps"].str.len() == rollout["token_ids"].str.len()).all()
        assert ((rollout["reward"] > 0) == (rollout["status"] == "correct")).all()

    config = OmegaConf.load(run / "verl" / "hydra" / ".hydra" / "config.yaml")
    shipped = load_recipe(name)
    assert config.actor_rollout_ref.actor.ppo_mini_batch_size == 4 // updates
    assert_training_settings(config, shipped, learning_rate or shipped.training.learning_rate)

    first, last = (run / "checkpoints" / f"checkpoint-{step}" for step in (steps - updates, steps))
    assert {path.name for path in (run / "checkpoints").iterdir()} == {first.name, last.name}
    before, after = (load_file(folder / "model.safetensors") for folder in (first, last))
    assert any(not torch.equal(before[key], after[key]) for key in before), "the last step changed nothing"
    model, info = AutoModelForCausalLM.from_pretrained(last, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(model).__name__ == "Qwen2ForCausalLM"
    saved, original = (AutoTokenizer.from_pretrained(folder) for folder in (last, models[shipped.task.name]))
    assert saved.chat_template == original.chat_template
    assert saved.get_vocab() == original.get_vocab()
    assert is_complete(run / "verl" / "checkpoints" / f"global_step_{steps // updates}")

    in_training = f"step-{updates:06d}"
    for evaluated in ("step-000000", in_training, "final"):
        problems = evaluation(run, evaluated)["problems"]
        assert problems
        assert all(problem["errors"] == 0 and problem["samples"] > 0 for problem in problems)
    assert evaluation(run, in_training)["settings"]["backend"] == "verl"
    assert evaluation(run, "final")["settings"]["samples"] == 4
    assert (run / "environment.json").exists()


def test_a_stopped_run_goes_on_from_its_newest_complete_checkpoint_as_the_run_did(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    """Each rollout serves two optimiser steps, so that verl's step 1 is step 2 of the run folder. A resumed run has two
    models, as the confidences must be the policy's: the reference model is the one that the run started from."""
    words = [
        *arguments(STOPPED, tmp_path, models),
        *("training.updates_per_rollout=2", "training.checkpoint_every=2", "evaluation.every=2"),
        *("training.steps=500", "training.learning_rate=1e-2"),
        *(f"verl.{key}={json.dumps(value)}" for key, value in REFERENCE_MODEL.items()),
    ]
    run, stopped = tmp_path / "run", []

    def stop_after_two_checkpoints() -> None:
        while not (run / "checkpoints" / "checkpoint-4").exists() or len(metrics(run)) < 2:
            time.sleep(0.2)
        pid = int(next(iter((tmp_path / "pid").read_text().split())))
        os.kill(pid, signal.SIGTERM)
        stopped.append(pid)

    threading.Thread(target=stop_after_two_checkpoints, daemon=True).start()
    script = (
        "import os, pathlib; pathlib.Path('pid').write_text(str(os.getpid())); from progrpo.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "train", *words, "--out", "run"]
    done = run_with_ray(command, tmp_path, check=False)
    assert done.returncode == 128 + signal.SIGTERM, done.stdout
    assert stopped
    assert "Continue with: progrpo train --resume run" in done.stdout
    assert not left_over(run), "processes of verl or Ray outlive the run"
    recorded = metrics(run)
    assert [line["step"] for line in recorded] == list(range(2, 2 * len(recorded) + 1, 2))

    # The newest checkpoint is cut short, as by a full disk; the run goes on from the one before it.
    checkpoints = run / "verl" / "checkpoints"
    newest = int((checkpoints / "latest_checkpointed_iteration.txt").read_text())
    damaged = checkpoints / f"global_step_{newest}" / "actor" / "optim_world_size_1_rank_0.pt"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    first_time = responses(run, 2 * newest - 1)
    steps = 2 * (newest + 1)
    settings = json.loads((run / "recipe.json").read_text())
    settings["training"]["steps"] = steps
    (run / "recipe.json").write_text(json.dumps(settings))
    for path in (run / "rollouts").iterdir():  # the run is shorter now: later steps do not come again
        if int(path.name.split("-")[1]) > steps:
            path.unlink()
    done = progrpo(tmp_path, "train", "--resume", "run")
    assert f"checkpoint of step {newest} is damaged or gone; the run goes on from step {newest - 1}" in done.stdout
    assert f"Resuming from {checkpoints / f'global_step_{newest - 1}'}" in (run / "verl" / "verl.log").read_text()
    check_finished_run(run, STOPPED, models, steps=steps, updates=2, learning_rate=1e-2)
    # verl's step `newest` was done again: with the same responses and advantages. How verl then splits the rows in two
    # updates depends on which of them are done first.
    for before, now in zip(recorded, metrics(run), strict=False):
        compared = {name: value for name, value in before.items() if OF_RESPONSES.match(name)}
        assert {name: now[name] for name in compared} == pytest.approx(compared, rel=1e-4, abs=1e-6)
    again = responses(run, 2 * newest - 1)
    columns = ["problem_id", "text", "status"]
    pd.testing.assert_frame_equal(again[columns], first_time[columns])
    for name in ("reward", "prompt_confidence", "answer_confidence", "correction", "advantage"):
        assert again[name].tolist() == pytest.approx(first_time[name].tolist(), rel=1e-4, abs=1e-5), name
    assert again["correction"].any()
    # The first rollout's learning rate is that of the start of the warm-up, 0.
    assert metrics(run)[1]["approx_kl"] != 0, "the second update's ratios are not 1"


def responses(run: Path, step: int) -> pd.DataFrame:
    """The responses that the update of a step was the first to learn from, in an order that does not depend on time."""
    rows = pd.concat(map(pd.read_parquet, (run / "rollouts").glob(f"step-{step:06d}-*")))
    return rows.sort_values(["problem_id", "text", "answer_confidence"], ignore_index=True)


def left_over(run: Path) -> list[str]:
    import psutil

    commands = (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    return [command[:200] for command in commands if str(run) in command and "pytest" not in command]


def test_a_failed_run_says_why_in_one_sentence(tmp_path: Path, models: dict[str, Path]) -> None:
    words = arguments(PAPER[0], tmp_path, models)
    done = progrpo(tmp_path, "train", *words, "verl.trainer.v1.trainer_mode=no_such", "--out", "run", check=False)
    assert done.returncode == 1
    [message] = [line for line in done.stdout.splitlines() if line.startswith("progrpo: ")]
    assert "ValueError: Unknown trainer 'no_such'" in message
    assert str(tmp_path / "run" / "verl" / "verl.log") in message
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.prompts_per_step=64"], "8 training problems, fewer than the 64 of a step"),
        (["training.max_prompt_tokens=20"], "training.max_prompt_tokens is 20"),
        (["model.path=countdown"], "'countdown' has no chat template"),
        (["model.path=countdown", "task.template=base"], "verl reads the first prompt as the tokens"),
        (["task.template=base"], None),
        (["task.template=chat"], None),
    ],
)
def test_prompts_are_checked_before_verl_reads_them(
    overrides: list[str], message: str | None, tmp_path: Path, models: dict[str, Path]
) -> None:
    name, *words = arguments(PAPER[0], tmp_path, models)
    recipe, folder = load_recipe(name, [*words, *overrides]), RunFolder(tmp_path / "run")
    task, settings = make_task(recipe), verl_settings(recipe, folder)
    if message is not None:
        with pytest.raises(ConfigError, match=r"^[^\n]*$") as refused:
            write_data(recipe, task, settings)
        assert message in str(refused.value)
        return
    write_data(recipe, task, settings)
    # verl's agent loop reads the first row in the same way as TRL reads the problem.
    tokenizer = AutoTokenizer.from_pretrained(recipe.model.path)
    [problem, *_], row = task.train_problems(), pd.read_parquet(VerlFolder(folder).train_data).iloc[0]
    assert row["extra_info"]["index"] == problem["problem_id"]
    how = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
    template = {"chat_template": settings[CHAT_TEMPLATE]} if CHAT_TEMPLATE in settings else {}
    read = tokenizer.apply_chat_template(list(row["prompt"]), **how, **template)
    prompt = problem["prompt"]
    assert read == (
        tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else tokenizer.apply_chat_template(prompt, **how)
    )


def test_prompts_that_verl_would_cut_are_refused(tmp_path: Path, models: dict[str, Path]) -> None:
    name, *words = arguments(PAPER[0], tmp_path, models)
    recipe, folder = load_recipe(name, words), RunFolder(tmp_path / "run")
    recipe.training.max_prompt_tokens = None
    recipe.verl |= {"data.max_prompt_length": 20}
    with pytest.raises(ConfigError, match="8 of 8 prompts have more than 20 tokens"):
        write_data(recipe, make_task(recipe), verl_settings(recipe, folder))


GENERATION = "<|im_start|>assistant\n"
THINKING = tiny.CHAT_TEMPLATE.replace(
    GENERATION, GENERATION + "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}"
)
"""Opens a thinking part as DeepSeek-R1's template does, unless ``enable_thinking`` is false as in Qwen3.5's."""


@pytest.mark.parametrize(
    ("settings", "opens"),
    [
        ({}, False),
        ({CHAT_TEMPLATE: THINKING}, True),
        ({CHAT_TEMPLATE: THINKING, "+data.apply_chat_template_kwargs.enable_thinking": False}, False),
    ],
)
def test_verls_rows_say_whether_the_template_opens_a_thinking_part(
    settings: dict[str, Any], opens: bool, tmp_path: Path, models: dict[str, Path]
) -> None:
    name, *words = arguments(PAPER[0], tmp_path, models)
    recipe, folder = load_recipe(name, words), RunFolder(tmp_path / "run")
    recipe.verl |= settings
    write_data(recipe, make_task(recipe), verl_settings(recipe, folder))
    for file in (VerlFolder(folder).train_data, VerlFolder(folder).validation_data):
        rows = pd.read_parquet(file)
        assert len(rows)
        for row in rows.itertuples():
            assert row.extra_info["opens_thinking"] == opens
            gold = row.reward_model["ground_truth"]
            cut_off = compute_score(row.data_source, rf"Maybe \boxed{{{gold}}}? Wait", gold, row.extra_info)
            assert cut_off["score"] == float(not opens)
