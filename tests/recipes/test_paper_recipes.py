"""The recipes at the paper's scale: planned for both engines, and run two steps by TRL on a tiny model.

The tests run the shipped recipes with the overrides of ``ON_A_CPU`` and new paths: to a tiny Qwen2, which has the chat
template of the recipe's model as TRL ships it, and to a few rows in the schemas of the datasets. tests/verl/in_verl/
runs the same in verl.
"""

import json
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.tiny import aime_rows, dapo_rows, deepcoder_rows, livecodebench_rows, tiny_qwen2, trl_template, write_rows

from progrpo.common.errors import ConfigError
from progrpo.evaluation.benchmarks import BENCHMARKS
from progrpo.launch.plan import make_plan
from progrpo.recipes.build import make_task, training_problems
from progrpo.recipes.schema import Recipe, builtin_recipes, load_recipe
from progrpo.runs.folder import RunFolder
from progrpo.sampling.models import load_tokenizer
from progrpo.sampling.transformers import token_ids
from progrpo.tasks.templates import template_opens_thinking
from progrpo.trl import ProGRPOConfig
from progrpo.trl.run import train
from progrpo.trl.settings import batch_settings, trl_config

PAPER = [name for name in builtin_recipes() if load_recipe(name).launch.gpus_per_node]

ON_A_CPU = [
    "launch.nodes=1",
    "launch.gpus_per_node=0",
    "model.dtype=float32",
    "model.attention=sdpa",
    "trl.use_vllm=false",
    "training.steps=2",
    "training.prompts_per_step=2",
    "training.group_size=4",
    "training.max_response_tokens=16",
    "training.checkpoint_every=2",
    "training.rollouts_every=1",
    "evaluation.samples=2",
    "evaluation.samples_in_training=2",
]
"""Overrides that a CPU needs, and overrides that make a recipe small."""


def is_r1(recipe: Recipe) -> bool:
    return "R1-Distill" in recipe.model.path


def chat_template(recipe: Recipe) -> str:
    """The chat template of the recipe's model."""
    return trl_template("deepseek_r1_distill" if is_r1(recipe) else "qwen2_5")


def tiny_overrides(recipe: Recipe, folder: Path) -> list[str]:
    """``ON_A_CPU``, and a model and data made in a folder."""
    rows = {
        "dapo_math_17k": dapo_rows(),
        "aime24": aime_rows(),
        "deepcoder": deepcoder_rows(8),
        "livecodebench_v5_window": livecodebench_rows(),
    }
    train_rows, heldout_rows = rows[recipe.task.train.preset], rows[recipe.task.heldout.preset]
    return [
        *ON_A_CPU,
        f"model.path={tiny_qwen2(folder / 'model', template=chat_template(recipe))}",
        f"task.train.path={write_rows(folder / 'train.parquet', train_rows)}",
        f"task.heldout.path={write_rows(folder / 'heldout.jsonl', heldout_rows)}",
    ]


class Silence:
    def stage(self, name: str, total: int, completed: int = 0) -> None: ...

    def advance(self, amount: int = 1, **values: float) -> None: ...


def test_the_papers_models_and_data_have_recipes() -> None:
    sources = {(load_recipe(name).model.path, load_recipe(name).task.train.preset) for name in PAPER}
    assert sources == {
        ("Qwen/Qwen2.5-7B", "dapo_math_17k"),
        ("Qwen/Qwen2.5-32B", "dapo_math_17k"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "dapo_math_17k"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "dapo_math_17k"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepcoder"),
    }


@pytest.mark.parametrize("name", PAPER)
def test_the_recipes_have_the_settings_of_the_paper(name: str) -> None:
    recipe = load_recipe(name)
    assert (recipe.training.clip_low, recipe.training.clip_high) == (0.2, 0.28)
    method = recipe.method_settings()
    assert (method["low_prob_fraction"], method["activation"], method["center"]) == (0.2, "any_correct", "prompt")
    assert "beta" not in recipe.trl, "no KL term"
    assert "loss_type" not in recipe.trl, "the token mean"
    samples = {BENCHMARKS[benchmark].samples for benchmark in recipe.evaluation.benchmarks}
    assert recipe.evaluation.samples in samples or not recipe.evaluation.every
    # A comment on every setting names its source, except on lines that open a table or continue a comment.
    for line in builtin_recipes()[name].read_text().split("[trl]")[0].splitlines():
        if " = " in line and not line.startswith(("name", "benchmarks", "nodes", "gpus", "accelerate", "#")):
            assert "paper" in line or "ours" in line or 'name = "' in line or "method =" in line or "engine" in line, (
                line
            )


@pytest.mark.parametrize("engine", ["trl", "verl"])
@pytest.mark.parametrize("name", PAPER)
def test_it_is_planned_without_hub_or_gpu(name: str, engine: str, tmp_path: Path) -> None:
    overrides = [f"engine={engine}"]
    plan = make_plan(load_recipe(name, overrides), name, overrides, RunFolder(tmp_path / "run"))
    assert plan.processes == (32 if "32B" in plan.recipe.model.path else 8)
    assert plan.processes * plan.micro_batch * plan.accumulation == plan.responses == 2048
    assert 20e9 < plan.memory.peak < 80e9
    assert not plan.warnings
    words = plan.commands[-1].words
    if engine == "trl":
        assert words[:3] == ["accelerate", "launch", "--config_file"]
        assert words[words.index("--num_processes") + 1] == str(plan.processes)
    else:
        assert words[1:3] == ["-m", "verl.trainer.main_ppo"]
        assert f"trainer.nnodes={plan.recipe.launch.nodes}" in words


@pytest.mark.parametrize("name", PAPER)
def test_trl_takes_its_settings(name: str, tmp_path: Path) -> None:
    """On one process. More processes change only the batch, as the recipes say."""
    recipe = load_recipe(name, ["launch.gpus_per_node=0", "launch.nodes=1"])
    config = trl_config(recipe, make_task(recipe), tmp_path)
    assert isinstance(config, ProGRPOConfig)
    assert (config.bf16, config.use_vllm, config.gradient_checkpointing) == (True, True, True)
    assert (config.epsilon, config.epsilon_high, config.beta, config.loss_type) == (0.2, 0.28, 0.0, "dapo")
    for processes in (1, 8, 32):
        batch = batch_settings(recipe, processes)
        assert batch["per_device_train_batch_size"] == recipe.training.micro_batch
        assert batch["gradient_accumulation_steps"] * recipe.training.micro_batch * processes == 2048


@pytest.mark.parametrize("name", PAPER)
def test_two_steps_on_a_tiny_model_of_the_same_architecture(name: str, tmp_path: Path) -> None:
    shipped = load_recipe(name)
    recipe = load_recipe(name, tiny_overrides(shipped, tmp_path))
    run = RunFolder(tmp_path / "run")
    train(recipe, run, Silence())
    records = run.metrics()
    assert [record["step"] for record in records] == [1, 2]
    assert all(record["verifier/errors"] == 0 for record in records)
    assert records[-1]["learning_rate"] > 0
    rollouts = pd.concat([pd.read_parquet(file) for file in sorted(run.rollouts.glob("*.parquet"))])
    assert len(rollouts) == 2 * 2 * 4
    assert rollouts["answer_confidence"].between(0, 1).all()
    assert rollouts["prompt_confidence"].between(0, 1).all()
    assert rollouts["prompt"].str.contains("boxed" if recipe.task.name == "math" else "```python").all()
    # The verifier knows that R1's template opens a thinking part, in training and in every evaluation.
    samples = [pd.read_parquet(folder) for folder in run.evaluations.glob("*-samples")]
    assert samples
    for texts in (rollouts["text"], *(one["text"] for one in samples)):
        assert texts.str.startswith("<think>\n").all() == is_r1(shipped)
        assert texts.str.startswith("<think>\n").any() == is_r1(shipped)
    final = json.loads((run.evaluations / "final.json").read_text())
    assert [(problem["samples"], problem["errors"]) for problem in final["problems"]] == [(2, 0)] * 2
    changed = {override.split("=")[0] for override in tiny_overrides(shipped, tmp_path)}
    written = json.loads(run.recipe_file.read_text())
    for table, values in shipped.model_dump().items():
        for key, value in values.items() if isinstance(values, dict) else ():
            if not any(change.startswith(f"{table}.{key}") for change in changed):
                assert written[table][key] == value, f"{table}.{key} is not as shipped"


def test_problems_with_long_prompts_are_not_trained_on(tmp_path: Path) -> None:
    [name] = [name for name in PAPER if "deepcoder" in name]
    shipped = load_recipe(name)
    overrides = tiny_overrides(shipped, tmp_path)
    tokenizer = load_tokenizer(str(tmp_path / "model"))
    lengths = {}
    for most in (10_000, 150):
        recipe = load_recipe(name, [*overrides, f"training.max_prompt_tokens={most}"])
        problems = training_problems(recipe, make_task(recipe), tokenizer)
        texts = [
            tokenizer.apply_chat_template(p["prompt"], tokenize=False, add_generation_prompt=True) for p in problems
        ]
        # A special token is one, all else is bytes.
        lengths[most] = [len(_with_short_specials(text, tokenizer).encode()) for text in texts]
    assert len(lengths[10_000]) == 8
    assert lengths[150] == [length for length in lengths[10_000] if length <= 150]
    assert 0 < len(lengths[150]) < 8
    recipe = load_recipe(name, [*overrides, "training.max_prompt_tokens=5"])
    with pytest.raises(
        ConfigError, match="max_prompt_tokens is 5, and the prompts of all 8 training problems are longer"
    ):
        training_problems(recipe, make_task(recipe), tokenizer)


def _with_short_specials(text: str, tokenizer: Any) -> str:
    for token in tokenizer.all_special_tokens:
        text = text.replace(token, "x")
    return text


INSTRUCTIONS = {
    "math": r"Please reason step by step, and put your final answer within \boxed{}.",
    "code": "Write the program in Python, in one ```python code block.",
}
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


@pytest.mark.parametrize("name", PAPER)
def test_the_model_sees_what_its_authors_show_it(name: str, tmp_path: Path) -> None:
    """Qwen2.5's and DeepSeek-R1-Distill's model cards have the same instruction for mathematics: Qwen's in ChatML below
    its system message, R1's without any and with an opened thinking part."""
    shipped = load_recipe(name)
    recipe = load_recipe(name, tiny_overrides(shipped, tmp_path))
    tokenizer = load_tokenizer(recipe.model.path)
    problem = training_problems(recipe, make_task(recipe), tokenizer)[0]
    rendered = tokenizer.decode(token_ids(tokenizer, [problem["prompt"]])[0])
    asked = problem["prompt"][0]["content"]
    assert len(problem["prompt"]) == 1
    assert asked.endswith("\n\n" + INSTRUCTIONS[recipe.task.name])
    if is_r1(shipped):
        assert rendered == f"<｜begin▁of▁sentence｜><｜User｜>{asked}<｜Assistant｜><think>\n"
    else:
        user = f"<|im_start|>user\n{asked}<|im_end|>\n"
        assert rendered == f"<|im_start|>system\n{QWEN_SYSTEM}<|im_end|>\n{user}<|im_start|>assistant\n"
    assert template_opens_thinking(tokenizer) == is_r1(shipped)


def test_a_recipe_for_eight_processes_is_refused_on_one(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"is for 8 processes, but this launch has 1: start it as progrpo train .* --dry-run"
    ):
        train(load_recipe(PAPER[0], ["launch.nodes=1"]), RunFolder(tmp_path / "run"), Silence())


def test_the_commands_are_what_a_shell_takes(tmp_path: Path) -> None:
    overrides = ["task.template=Q: {problem}"]
    name = next(name for name in PAPER if "qwen2.5_7b" in name)
    plan = make_plan(load_recipe(name, overrides), name, overrides, RunFolder(tmp_path / "a run"))
    [command] = plan.commands
    assert shlex.split(str(command)) == command.words
    assert command.words[-5:] == ["train", name, *overrides, "--out", str(tmp_path / "a run")]
