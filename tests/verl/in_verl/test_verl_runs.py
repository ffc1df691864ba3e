"""The plugin in verl itself: ``python -m verl.trainer.main_ppo`` on Ray, on the CPU, with a tiny Qwen2."""

import math
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from tests.reference import method
from tests.verl.in_verl.verl_run import (
    count_rows,
    make_data,
    make_model,
    read_batch,
    read_metrics,
    run_verl,
    skip_without_verl,
)

skip_without_verl()

STEPS, ALPHA, TEMPERATURE, FRACTION, BROKEN = 4, 0.5, 0.7, 0.3, "XYZ"
OURS = re.compile(r"confidence/|correction/|groups/|distinct_solutions|verifier/")
# What depends on the machine's speed, and statistics of rounding errors between rollout and actor.
UNSTABLE = re.compile(r"timing|perf/|memory|throughput|mfu|rollout_probs|pearson|rollout_corr/")
PROGRPO = [
    "trainer.v1.trainer_mode=progrpo",
    "algorithm.adv_estimator=grpo",
    f"+algorithm.progrpo.alpha={ALPHA}",
    f"+algorithm.progrpo.low_prob_fraction={FRACTION}",
    # A reference model's forward pass overwrites the log-probs that the prompts' confidence is read from.
    "actor_rollout_ref.actor.use_kl_loss=True",
    f"actor_rollout_ref.rollout.temperature={TEMPERATURE}",
    f"+reward.custom_reward_function.reward_kwargs.broken_by={BROKEN}",
    "data.shuffle=False",
    "trainer.save_freq=1",
    "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
    "trainer.checkpoint_callback_class=verl_cpu.dump.StepDump",
    f"trainer.total_training_steps={STEPS}",
    f"trainer.test_freq={STEPS}",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Groups of 4, 3, 2 and 5: verl fills a step's batch of 14 up to 16 with rows of its own."""
    rows = [row | {"__rollout_n__": (4, 3, 2, 5)[i % 4]} for i, row in enumerate(count_rows())]
    return make_data(tmp_path_factory.mktemp("data") / "ragged.parquet", rows)


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "validation.parquet", count_rows(4))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path, validation: Path) -> Path:
    """The folder of a run with one worker, not disturbed."""
    folder = tmp_path_factory.mktemp("one")
    run_verl(folder, *PROGRPO, train_files=data, val_files=validation)
    return folder


def same_metrics(actual: list[dict[str, Any]], expected: list[dict[str, Any]], *, rel: float, abs: float) -> None:
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        names = sorted(name for name in e if not UNSTABLE.search(name))
        assert {name: a[name] for name in names} == pytest.approx(
            {name: e[name] for name in names}, rel=rel, abs=abs, nan_ok=True
        )


def test_the_plugin_is_loaded_in_driver_and_workers(run: Path) -> None:
    assert re.search(
        r"progrpo \S+: the verl plugin is loaded in the driver and in 2 workers", (run / "verl.log").read_text()
    )


def test_it_trains_and_validates(run: Path) -> None:
    steps = read_metrics(run)
    assert [step["training/global_step"] for step in steps] == [1, 2, 3, 4]
    assert all(step["actor/grad_norm"] > 0 for step in steps)
    assert "val-core/count/reward/mean@1" in steps[-1]


def test_the_metrics_are_those_of_the_trl_adapter(run: Path) -> None:
    statistics = ("mean", "min", "max")
    named = [f"{name}/{s}" for name in ("confidence/prompt", "confidence/answer", "correction") for s in statistics]
    named += [f"groups/{kind}" for kind in ("activated", "all_right", "all_wrong", "mixed", "zero_variance")]
    for step in read_metrics(run):
        assert {name for name in step if OURS.match(name)} == {*named, "distinct_solutions", "verifier/errors"}


def real_rows(run: Path, step: int) -> list[dict[str, Any]]:
    rows = read_batch(run, step)
    real = [row for row in rows if not row["is_padding"]]
    assert (len(real), len(rows)) == (14, 16)
    return real


def plain_prompt_confidence(model: Any, prompt: list[int]) -> float:
    """c(q) by one forward pass of transformers, at the temperature of the rollouts."""
    import torch

    with torch.no_grad():
        logps = (model(torch.tensor([prompt])).logits[0].double() / TEMPERATURE).log_softmax(dim=-1)
    return math.exp(sum(float(logps[m, token]) for m, token in enumerate(prompt[1:])) / (len(prompt) - 1))


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_the_prompts_confidence_is_the_policy_s(run: Path, step: int) -> None:
    # Not the reference model's, which is the first step's policy.
    from transformers import AutoModelForCausalLM

    trained = run / "checkpoints" / f"global_step_{step - 1}" / "actor" / "huggingface"
    model = AutoModelForCausalLM.from_pretrained(trained if step > 1 else run / "model", dtype="float32").eval()
    rows = real_rows(run, step)
    expected = [plain_prompt_confidence(model, row["prompts"]) for row in rows]
    assert [row["confidences"][0] for row in rows] == pytest.approx(expected, rel=1e-5)
    assert len({round(c, 8) for c in expected}) == 4
    assert len({len(row["prompts"]) for row in rows}) == 4


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_the_advantages_of_a_step_are_the_paper_s(run: Path, step: int) -> None:
    rows = real_rows(run, step)
    masks = [[bool(counts) for counts in row["response_mask"]] for row in rows]
    c_o = [
        method.answer_confidence(row["old_log_probs"], mask, FRACTION) for row, mask in zip(rows, masks, strict=True)
    ]
    rewards = [math.nan if row["reward_extra_info"]["verifier_error"] else sum(row["rm_scores"]) for row in rows]
    groups = [row["uid"] for row in rows]
    expected = method.arm_advantages(
        method.group_relative_advantages(rewards, groups, "group", 1e-6),
        rewards,
        [row["confidences"][0] for row in rows],
        c_o,
        groups,
        alpha=ALPHA,
        activation="any_correct",
        center="prompt",
    )
    for row, mask, advantage in zip(rows, masks, expected, strict=True):
        assert row["advantages"] == pytest.approx([advantage * counts for counts in mask], rel=1e-4, abs=1e-5)
    assert all(value == 0 for row in read_batch(run, step) if row["is_padding"] for value in row["advantages"])


def test_the_metrics_are_of_the_step_s_responses(run: Path) -> None:
    seen_errors = 0
    for step, metrics in enumerate(read_metrics(run), start=1):
        rows = real_rows(run, step)
        groups = defaultdict(list)
        for row in rows:
            groups[row["uid"]].append(row)
        assert sorted(len(group) for group in groups.values()) == [2, 3, 4, 5]
        errors = sum(row["reward_extra_info"]["verifier_error"] for row in rows)
        right = [{r["reward_extra_info"]["canonical"] for r in g if sum(r["rm_scores"]) > 0} for g in groups.values()]
        assert metrics["verifier/errors"] == pytest.approx(errors / 14)
        assert metrics["distinct_solutions"] == pytest.approx(sum(map(len, right)) / 4)
        assert metrics["groups/activated"] == pytest.approx(sum(map(bool, right)) / 4)
        assert metrics["confidence/answer/mean"] == pytest.approx(sum(row["confidences"][1] for row in rows) / 14)
        seen_errors += errors
    assert seen_errors > 0, "no response has shown that the verifier's failures are left out"


def test_right_is_what_the_named_reward_says(tmp_path: Path, data: Path, validation: Path) -> None:
    """All scores are above 0, as with a bonus for the format; ``is_right`` says which responses are right."""
    settings = [
        "+algorithm.progrpo.correct_reward=is_right",
        "+algorithm.progrpo.center=correct",
        "+reward.custom_reward_function.reward_kwargs.bonus=0.25",
        "trainer.total_training_steps=1",
        "trainer.test_freq=-1",
    ]
    run_verl(tmp_path, *PROGRPO, *settings, train_files=data, val_files=validation)
    [metrics], rows = read_metrics(tmp_path), real_rows(tmp_path, 1)
    broken = [bool(row["reward_extra_info"]["verifier_error"]) for row in rows]
    right, rewards = (
        [math.nan if failed else value for failed, value in zip(broken, values, strict=True)]
        for values in ([r["reward_extra_info"]["is_right"] for r in rows], [sum(r["rm_scores"]) for r in rows])
    )
    groups = [row["uid"] for row in rows]
    kinds = [
        {r for r, g in zip(right, groups, strict=True) if g == group and not math.isnan(r)} for group in set(groups)
    ]
    assert metrics["groups/all_right"] == pytest.approx(kinds.count({1.0}) / 4)
    assert metrics["groups/mixed"] == pytest.approx(kinds.count({0.0, 1.0}) / 4)
    assert metrics["groups/all_right"] < 1.0
    expected = method.arm_advantages(
        method.group_relative_advantages(rewards, groups, "group", 1e-6),
        right,
        *([row["confidences"][i] for row in rows] for i in range(2)),
        groups,
        alpha=ALPHA,
        activation="any_correct",
        center="correct",
    )
    for row, advantage in zip(rows, expected, strict=True):
        counted = [bool(counts) for counts in row["response_mask"]]
        assert row["advantages"] == pytest.approx([advantage * counts for counts in counted], rel=1e-4, abs=1e-5)


def test_a_resumed_run_goes_on_as_the_undisturbed_one_did(
    run: Path, tmp_path: Path, data: Path, validation: Path
) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    shutil.copytree(run / "checkpoints" / "global_step_2", checkpoints / "global_step_2")
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("2")
    shutil.copytree(run / "model", tmp_path / "model")
    run_verl(tmp_path, *PROGRPO, "trainer.resume_mode=auto", train_files=data, val_files=validation)
    same_metrics(read_metrics(tmp_path), read_metrics(run)[2:], rel=1e-4, abs=1e-6)


def test_two_workers_do_what_one_does(run: Path, tmp_path: Path, data: Path, validation: Path) -> None:
    run_verl(tmp_path, *PROGRPO, workers=2, train_files=data, val_files=validation)
    assert "in the driver and in 3 workers" in (tmp_path / "verl.log").read_text()
    one, two = (
        [{k: v for k, v in step.items() if "seqlen" not in k} for step in read_metrics(f)] for f in (run, tmp_path)
    )
    same_metrics(two, one, rel=1e-3, abs=1e-5)


def weights(run: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(run / "checkpoints" / "global_step_3" / "actor" / "huggingface" / "model.safetensors")


def test_alpha_0_is_verl_s_grpo(tmp_path: Path) -> None:
    import torch

    model = make_model(tmp_path / "model")
    settings = [
        "algorithm.adv_estimator=grpo",
        "trainer.total_training_steps=3",
        "trainer.save_freq=3",
        "actor_rollout_ref.actor.checkpoint.save_contents=[hf_model]",
    ]
    run_verl(tmp_path / "grpo", *settings, "trainer.v1.trainer_mode=sync", model=model)
    ours = ["trainer.v1.trainer_mode=progrpo", "+algorithm.progrpo.alpha=0"]
    run_verl(tmp_path / "ours", *settings, *ours, model=model)
    grpo, alpha_0 = read_metrics(tmp_path / "grpo"), read_metrics(tmp_path / "ours")
    same_metrics(alpha_0, grpo, rel=1e-5, abs=1e-7)
    assert all(step["correction/max"] == step["correction/min"] == 0 for step in alpha_0)
    trained, reference = weights(tmp_path / "ours"), weights(tmp_path / "grpo")
    start = {name: tensor for name, tensor in _start(model).items() if name in reference}
    for name, tensor in reference.items():
        # Rows come in the order in which they are done: sums differ in their last bits, which Adam enlarges. A weight
        # moves by up to 1e-2 a step.
        torch.testing.assert_close(trained[name], tensor, rtol=1e-4, atol=1e-5)
    assert any(not torch.allclose(start[name], tensor, atol=1e-3) for name, tensor in reference.items())


def _start(model: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(model / "model.safetensors")
