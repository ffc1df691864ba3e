"""A recipe in verl's terms. tests/verl/in_verl/test_recipes.py tests that verl itself accepts them."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from progrpo.common.errors import ConfigError
from progrpo.methods import METHODS
from progrpo.methods.arm import ArmOptions
from progrpo.recipes.schema import Recipe, builtin_recipes, load_recipe
from progrpo.runs.folder import RunFolder
from progrpo.tasks.templates import BASE_STOP
from progrpo.verl.engine import processes
from progrpo.verl.settings import ACTOR, MODEL, ROLLOUT, verl_command, verl_settings

FOLDER = RunFolder(Path("runs/here"))
SECTIONS = ("model", "training", "evaluation", "launch")


def settings(*overrides: str, recipe: str = "countdown_cpu") -> dict[str, Any]:
    return verl_settings(load_recipe(recipe, ["engine=verl", *overrides]), FOLDER)


@pytest.mark.parametrize(
    ("field", "name", "value"),
    [
        ("training.steps=7", "trainer.total_training_steps", 7),
        ("training.prompts_per_step=8", "data.train_batch_size", 8),
        ("training.prompts_per_step=8", f"{ACTOR}.ppo_mini_batch_size", 8),
        ("training.group_size=4", f"{ROLLOUT}.n", 4),
        ("training.updates_per_rollout=2", f"{ACTOR}.ppo_mini_batch_size", 16),
        ("training.updates_per_rollout=2", f"{ACTOR}.ppo_micro_batch_size_per_gpu", 256),
        ("training.updates_per_rollout=2", "data.train_batch_size", 32),
        ("training.updates_per_rollout=2", "trainer.total_training_steps", 100),
        ("training.updates_per_rollout=2", "trainer.save_freq", 25),
        ("training.updates_per_rollout=2", "trainer.test_freq", 25),
        ("training.updates_per_rollout=2", "+trainer.progrpo_rollouts.updates", 2),
        ("training.micro_batch=16", f"{ACTOR}.ppo_micro_batch_size_per_gpu", 16),
        ("training.micro_batch=16", f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu", 16),
        ("training.learning_rate=3e-6", f"{ACTOR}.optim.lr", 3e-6),
        ("training.lr_schedule=cosine", f"{ACTOR}.optim.lr_scheduler_type", "cosine"),
        ("training.warmup_steps=5", f"{ACTOR}.optim.lr_warmup_steps", 5),
        ("training.weight_decay=0.1", f"{ACTOR}.optim.weight_decay", 0.1),
        ("training.max_grad_norm=0.5", f"{ACTOR}.optim.clip_grad", 0.5),
        ("training.temperature=0.7", f"{ROLLOUT}.temperature", 0.7),
        ("training.max_prompt_tokens=99", "data.max_prompt_length", 99),
        ("training.max_response_tokens=33", "data.max_response_length", 33),
        ("training.clip_low=0.1", f"{ACTOR}.clip_ratio_low", 0.1),
        ("training.clip_high=0.3", f"{ACTOR}.clip_ratio_high", 0.3),
        ("training.checkpoint_every=5", "trainer.save_freq", 5),
        ("training.rollouts_every=4", "+trainer.progrpo_rollouts.every", 4),
        ("training.keep_checkpoints=3", "trainer.max_actor_ckpt_to_keep", 3),
        ("evaluation.every=25", "trainer.test_freq", 25),
        ("evaluation.every=0", "trainer.test_freq", -1),
        ("evaluation.every=0", "trainer.val_before_train", False),
        ("evaluation.samples_in_training=6", f"{ROLLOUT}.val_kwargs.n", 6),
        ("evaluation.temperature=0.6", f"{ROLLOUT}.val_kwargs.temperature", 0.6),
        ("model.dtype=bfloat16", f"{ACTOR}.fsdp_config.dtype", "bfloat16"),
        ("model.dtype=bfloat16", f"{ROLLOUT}.dtype", "bfloat16"),
        ("model.dtype=float32", f"+{ACTOR}.fsdp_config.mixed_precision.param_dtype", "fp32"),
        ("model.path=some/model", f"{MODEL}.path", "some/model"),
        ("model.attention=eager", f"+{MODEL}.override_config.attn_implementation", "eager"),
        ("model.dtype=float32", f"+{MODEL}.override_config.attn_implementation", "sdpa"),
        ("launch.nodes=2", "trainer.nnodes", 2),
        ("launch.gpus_per_node=8", "trainer.n_gpus_per_node", 8),
        *(("seed=5", name, 5) for name in ("data.seed", f"{ACTOR}.data_loader_seed", f"{ROLLOUT}.seed")),
    ],
)
def test_a_field_arrives_under_verls_name(field: str, name: str, value: Any) -> None:
    assert settings(field)[name] == value


ELSEWHERE = {
    "model.lora": "refused, in test_what_has_no_counterpart_is_refused_by_name",
    "training.seeded_responses": "refused, in test_what_has_no_counterpart_is_refused_by_name",
    "training.max_verifier_errors": "watched by the launcher",
    "evaluation.samples": "used by the final evaluation, which verl does not make",
    "evaluation.problems_in_training": "the number of rows in the validation file",
    "evaluation.batch": "used by the final evaluation",
    "evaluation.benchmarks": "used by progrpo evaluate",
    "launch.gpu_memory_gb": "used by --dry-run",
    "launch.accelerate": "only for TRL, as its description says",
    "launch.server_gpus": "only for TRL, as its description says",
}


def test_no_field_is_forgotten() -> None:
    """Each field of a recipe changes verl's settings, or is listed above with the place where it counts."""
    table = test_a_field_arrives_under_verls_name.pytestmark[0].args[1]
    mapped = {field.partition("=")[0] for field, _, _ in table}
    for section in SECTIONS:
        fields = Recipe.model_fields[section].default_factory().__class__.model_fields  # type: ignore[misc,call-arg]
        for name in fields:
            assert (f"{section}.{name}" in mapped) != (f"{section}.{name}" in ELSEWHERE), f"{section}.{name}"


@pytest.mark.parametrize("option", [option.name for option in fields(ArmOptions)])
def test_each_option_of_arm_arrives_under_verls_name(option: str) -> None:
    value = {"correct_above": -5.0, "correct_reward": "acc", "activation": "mixed", "center": "group"}.get(option, 0.5)
    assert settings(f"methods.progrpo.{option}={value}")[f"+algorithm.progrpo.{option}"] == value


@pytest.mark.parametrize("method", [name for name in METHODS if name != "high_entropy_tokens"])
def test_a_method_becomes_settings_of_verl(method: str) -> None:
    options = METHODS[method].settings
    made = settings(f"method={method}", *([] if method != "progrpo" else ["methods.progrpo.alpha=1.0"]))
    assert made["trainer.v1.trainer_mode"] == "progrpo", "all methods use one trainer, so that nothing else differs"
    assert made["+algorithm.progrpo.alpha"] == options["alpha"]
    assert made.get("+algorithm.progrpo.center", "prompt") == options.get("center", "prompt")
    expected = {
        "dr_grpo": ("seq-mean-token-sum-norm", False, "vanilla", 0.2, 0.28, 0.0, 18),
        "gspo": ("seq-mean-token-mean", True, "gspo", 3e-4, 4e-4, 0.0, None),
        "entropy_bonus": ("token-mean", True, "vanilla", 0.2, 0.28, 0.01, None),
    }.get(method, ("token-mean", True, "vanilla", 0.2, 0.28, 0.0, None))
    assert expected == (
        made[f"{ACTOR}.loss_agg_mode"],
        made["algorithm.norm_adv_by_std_in_grpo"],
        made[f"{ACTOR}.policy_loss.loss_mode"],
        made[f"{ACTOR}.clip_ratio_low"],
        made[f"{ACTOR}.clip_ratio_high"],
        made[f"{ACTOR}.entropy_coeff"],
        made.get(f"{ACTOR}.loss_scale_factor"),
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=high_entropy_tokens"], "top_entropy_quantile = 0.2, which has no counterpart in verl"),
        (["methods.progrpo.beta=0.04"], "beta = 0.04, which has no counterpart"),
        (["methods.progrpo.reward_weights=[1.0]"], "reward_weights = [1.0], which has no counterpart"),
        (["methods.progrpo.loss_type=cispo"], "loss_type = 'cispo', which has no counterpart"),
        (["methods.progrpo.importance_sampling_level=sequence"], "needs loss_type 'grpo'"),
        (["training.lr_schedule=linear"], "training.lr_schedule 'linear' has no counterpart in verl"),
        (["training.seeded_responses=true"], "training.seeded_responses has no counterpart"),
        (["model.lora.r=8"], "model.lora has no counterpart"),
        (["model.attention=flash_attention_2"], "model.attention 'flash_attention_2' computes only in 16 bits"),
        (["launch.gpus_per_node=3"], "512, which 3 process"),
        (["training.micro_batch=5"], "micro-batches of 5"),
        (["training.updates_per_rollout=3"], "training.steps is 200, which training.updates_per_rollout (3) does not"),
        (["training.updates_per_rollout=4"], "training.checkpoint_every is 50, which training.updates_per_rollout (4)"),
        (
            [
                "training.updates_per_rollout=64",
                "training.steps=64",
                "training.checkpoint_every=64",
                "evaluation.every=0",
            ],
            "training.prompts_per_step is 32, which training.updates_per_rollout (64) does not divide",
        ),
        ([f"verl.{ROLLOUT}.tensor_model_parallel_size=2"], "which does not divide the 1 GPU"),
        (["verl.trainer.default_local_dir=elsewhere"], "verl.trainer.default_local_dir is set by the run folder"),
        (["verl.+trainer.resume_mode=disable"], "is set by the run folder"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as refused:
        settings(*overrides)
    assert message in str(refused.value)


def test_the_verl_table_wins_and_may_be_nested() -> None:
    recipe = load_recipe("countdown_cpu", ["engine=verl", "verl.data.seed=9", "verl.+ray_kwargs.ray_init.num_gpus=1"])
    recipe.verl |= {f"{ROLLOUT}.gpu_memory_utilization": 0.8, "algorithm.progrpo.alpha": 0.25}
    made = verl_settings(recipe, FOLDER)
    assert made["data.seed"] == 9
    assert made["+ray_kwargs.ray_init.num_gpus"] == 1
    assert made[f"{ROLLOUT}.gpu_memory_utilization"] == 0.8
    assert made["+algorithm.progrpo.alpha"] == 0.25
    assert "algorithm.progrpo.alpha" not in made, "one setting has one name"


@pytest.mark.parametrize(("chosen", "used"), [('["wandb"]', ["wandb", "file"]), ('"file"', ["file"])])
def test_verls_log_file_is_always_among_the_loggers(chosen: str, used: list[str]) -> None:
    assert settings(f"verl.trainer.logger={chosen}")["trainer.logger"] == used


def test_gpus_of_the_verl_table_count_in_the_batch_arithmetic() -> None:
    recipe = load_recipe("countdown_cpu", ["engine=verl", "launch.gpus_per_node=8", "verl.trainer.n_gpus_per_node=4"])
    assert processes(recipe) == 4
    assert verl_settings(recipe, FOLDER)[f"{ACTOR}.ppo_micro_batch_size_per_gpu"] == 32 * 16 // 4


def test_a_prompt_that_is_a_text_stays_one() -> None:
    import jinja2

    template = jinja2.Template(settings()[f"{MODEL}.custom_chat_template"])
    text = "2 3 5 : {{ 16 }} \\boxed{x} ;"
    assert template.render(messages=[{"role": "user", "content": text}], add_generation_prompt=True) == text
    assert f"{MODEL}.custom_chat_template" not in settings(recipe="smollm2_word_problems_cpu")


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_recipe_has_a_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The real function would convert the model.
    monkeypatch.setattr("progrpo.sampling.models.smollm2_folder", lambda: Path("smollm2"))
    recipe = load_recipe(name, ["engine=verl"])
    command = verl_command(recipe, FOLDER)
    assert command[1:3] == ["-m", "verl.trainer.main_ppo"]
    assert f"data.train_batch_size={recipe.training.prompts_per_step}" in command
    assert len({part.partition("=")[0].lstrip("+") for part in command[3:]}) == len(command) - 3, (
        "a setting appears twice"
    )


def test_a_response_is_cut_where_the_task_cuts_it() -> None:
    from progrpo.tasks import MathTask
    from progrpo.tasks.rewards import compute_score, verl_row
    from progrpo.tasks.rows import Data

    data = Data(preset="word_problems", limit=1)
    for template, judged_right in (("base", True), ("plain", False)):
        task = MathTask(data, data.model_copy(update={"seed": 1}), template=template)
        problem = task.train_problems()[0]
        response = rf"\boxed{{{problem['gold']}}}{BASE_STOP} 1 + 1?" + "\n" + r"\boxed{-1}"
        row = verl_row(task, problem)
        scored = compute_score(row["data_source"], response, row["reward_model"]["ground_truth"], row["extra_info"])
        assert scored["score"] == task.verify(problem, response).reward == float(judged_right)
        assert scored["problem_id"] == problem["problem_id"]
