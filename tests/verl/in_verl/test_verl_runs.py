"""The plugin in verl itself: ``python -m verl.trainer.main_ppo`` on Ray, on the CPU, with a tiny Qwen2."""

import math
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import Once
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

STEPS, ALPHA, TEMPERATURE, FRACTION, BROKEN = 3, 0.5, 0.7, 0.3, "XYZ"
OURS = re.compile(r"confidence/|correction/|groups/|distinct_solutions|verifier/")
# These depend on the machine's speed, or are statistics of rounding errors between rollout and actor.
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
    f"trainer.total_training_steps={STEPS}",
    f"trainer.test_freq={STEPS}",
]
KEPT = [
    "trainer.save_freq=1",
    "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
    "trainer.checkpoint_callback_class=verl_cpu.dump.StepDump",
]
"""A checkpoint and the batch of every step."""


@pytest.fixture(scope="session")
def data(once: Once) -> dict[str, Path]:
    """Groups of 4, 3, 2 and 5: verl fills a step's batch of 14 up to 16 with rows of its own."""
    rows = [row | {"__rollout_n__": (4, 3, 2, 5)[i % 4]} for i, row in enumerate(count_rows())]

    def make(folder: Path) -> None:
        make_data(folder / "ragged.parquet", rows)
        make_data(folder / "validation.parquet", count_rows(4))

    folder = once("verl-data", make)
    return {"train_files": folder / "ragged.parquet", "val_files": folder / "validation.parquet"}


@pytest.fixture(scope="session")
def run(once: Once, data: dict[str, Path]) -> Path:
    """The folder of a run with one worker that nothing disturbs."""
    return once("verl-run", lambda folder: run_verl(folder, *PROGRPO, *KEPT, **data))


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
    assert [step["training/global_step"] for step in steps] == [1, 2, 3]
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
    with torch.no_grad():
        logps = (model(torch.tensor([prompt])).logits[0].double() / TEMPERATURE).log_softmax(dim=-1)
    return math.exp(sum(float(logps[m, token]) for m, token in enumerate(prompt[1:])) / (len(prompt) - 1))


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_the_prompts_confidence_is_the_policys(run: Path, step: int) -> None:
    # It must not be the reference model's, which is the policy of the first step.
    from transformers import AutoModelForCausalLM

    trained = run / "checkpoints" / f"global_step_{step - 1}" / "actor" / "huggingface"
    model = AutoModelForCausalLM.from_pretrained(trained if step > 1 else run / "model", dtype="float32").eval()
    rows = real_rows(run, step)
    expected = [plain_prompt_confidence(model, row["prompts"]) for row in rows]
    assert [row["confidences"][0] for row in rows] == pytest.approx(expected, rel=1e-5)
    assert len({round(c, 8) for c in expected}) == 4
    assert len({len(row["prompts"]) for row in rows}) == 4


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_the_advantages_of_a_step_are_the_papers(run: Path, step: int) -> None:
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


def test_the_metrics_describe_the_steps_responses(run: Path) -> None:
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
    assert seen_errors > 0, "no response was one that the verifier failed on"


def test_a_resumed_run_goes_on_as_the_undisturbed_one_did(run: Path, tmp_path: Path, data: dict[str, Path]) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    shutil.copytree(run / "checkpoints" / "global_step_2", checkpoints / "global_step_2")
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("2")
    run_verl(tmp_path, *PROGRPO, "trainer.resume_mode=auto", model=run / "model", **data)
    same_metrics(read_metrics(tmp_path), read_metrics(run)[2:], rel=1e-4, abs=1e-6)


def test_two_workers_do_what_one_does(run: Path, tmp_path: Path, data: dict[str, Path]) -> None:
    shorter = ["trainer.total_training_steps=2", "trainer.test_freq=-1"]
    run_verl(tmp_path, *PROGRPO, *shorter, workers=2, model=run / "model", **data)
    assert "in the driver and in 3 workers" in (tmp_path / "verl.log").read_text()
    one, two = (
        [{k: v for k, v in step.items() if "seqlen" not in k} for step in read_metrics(f)] for f in (run, tmp_path)
    )
    same_metrics(two, one[:2], rel=1e-3, abs=1e-5)


def test_alpha_0_is_verls_grpo(tmp_path: Path) -> None:
    settings = [
        "algorithm.adv_estimator=grpo",
        "trainer.total_training_steps=2",
        "trainer.save_freq=2",
        "actor_rollout_ref.actor.checkpoint.save_contents=[hf_model]",
    ]
    model = make_model(tmp_path / "model")
    run_verl(tmp_path / "grpo", *settings, "trainer.v1.trainer_mode=sync", model=model)
    ours = ["trainer.v1.trainer_mode=progrpo", "+algorithm.progrpo.alpha=0"]
    run_verl(tmp_path / "ours", *settings, *ours, model=model)
    grpo, alpha_0 = read_metrics(tmp_path / "grpo"), read_metrics(tmp_path / "ours")
    same_metrics(alpha_0, grpo, rel=1e-5, abs=1e-7)
    assert all(step["correction/max"] == step["correction/min"] == 0 for step in alpha_0)
    exported = Path("checkpoints", "global_step_2", "actor", "huggingface", "model.safetensors")
    trained, reference = (load_file(tmp_path / name / exported) for name in ("ours", "grpo"))
    start = load_file(model / "model.safetensors")
    for name, tensor in reference.items():
        # Rows come in the order in which they are done: sums differ in their last bits, which Adam enlarges. A weight
        # moves by up to 1e-2 a step.
        torch.testing.assert_close(trained[name], tensor, rtol=1e-4, atol=1e-5)
    assert any(not torch.allclose(start[name], tensor, atol=1e-3) for name, tensor in reference.items())
