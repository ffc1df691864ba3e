"""The verifiers of mathematics and programs inside verl's reward workers, on chosen responses."""

import json
import math
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from tests.reference import method
from tests.verl.in_verl.verl_run import make_data, make_model, read_batch, read_metrics, run_verl, skip_without_verl

from progrpo.tasks import CodeTask, MathTask
from progrpo.tasks.rewards import verl_row
from progrpo.tasks.rows import Data

skip_without_verl()
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are isolated on Linux only")


def program(text: str) -> str:
    return f"```python\n{text}\n```"


BONUS, ALPHA = 0.25, 1000.0  # a random model gives all responses nearly the same confidence
MATH = [r"\boxed{35}", r"\boxed{36}", r"\boxed{9^{9^{9^{9}}}}", "I can't say."]
CODE = [
    program("def product_minus_5(a, b):\n    return a * b - 5"),
    program("def product_minus_5(a, b):\n    return 292"),
    program("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nwhile True: pass"),
    program("class Yes(int):\n    __eq__ = lambda self, other: True\ndef product_minus_5(a, b):\n    return Yes()"),
]
RIGHT = [rf"{text} \boxed{{35}}" for text in ("So", "It is", "I get", "Then")]


def test_right_wrong_and_hostile_responses(tmp_path: Path) -> None:
    """Every score has a bonus and is positive, so only ``correct_reward`` says which responses are right."""
    sums = MathTask(Data(preset="word_problems", limit=1), Data(preset="word_problems", seed=1, limit=1))
    programs = CodeTask(Data(preset="small_functions", limit=1), Data(preset="small_functions", seed=1, limit=1))
    math_row = verl_row(sums, sums.train_problems()[0])
    code_row = verl_row(programs, programs.train_problems()[0])
    assert math_row["reward_model"]["ground_truth"] == "35"
    easy_row, broken_row = (
        json.loads(json.dumps(math_row).replace("How many", f"{word} how many")) for word in ("Say", "Count")
    )
    broken_row["reward_model"]["ground_truth"] = r"\frac{"
    rows = [math_row, code_row, easy_row, broken_row]
    texts = [row["prompt"][0]["content"] for row in rows]
    responses = dict(zip(texts, [MATH, CODE, RIGHT, RIGHT], strict=True))
    (tmp_path / "responses.json").write_text(json.dumps(responses))
    run_verl(
        tmp_path,
        "trainer.v1.trainer_mode=progrpo",
        "algorithm.adv_estimator=grpo",
        f"+algorithm.progrpo.alpha={ALPHA}",
        "+algorithm.progrpo.correct_reward=is_right",
        "+algorithm.progrpo.center=correct",
        f"reward.custom_reward_function.path={Path(__file__).parent / 'bonus_reward.py'}",
        f"+reward.custom_reward_function.reward_kwargs.bonus={BONUS}",
        "reward.num_workers=2",
        "data.max_prompt_length=1024",
        "data.max_response_length=256",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.rollout.calculate_log_probs=False",
        "trainer.total_training_steps=1",
        "trainer.save_freq=1",
        "trainer.checkpoint_callback_class=verl_cpu.dump.StepDump",
        model=make_model(tmp_path / "model", max_position_embeddings=2048),
        train_files=make_data(tmp_path / "rows.parquet", rows),
        env={"VERL_CPU_RESPONSES": str(tmp_path / "responses.json")},
    )
    rows = read_batch(tmp_path, 1)
    scores, failed = defaultdict(list), defaultdict(list)
    for row in rows:
        scores[row["uid"]].append(sum(row["rm_scores"]) - BONUS)
        failed[row["uid"]].append(row["reward_extra_info"]["verifier_error"])
    one_right = [0.0, 0.0, 0.0, 1.0]
    assert sorted(sorted(group) for group in scores.values()) == [[0.0] * 4, one_right, one_right, [1.0] * 4]
    assert sorted(map(sum, failed.values())) == [0.0, 0.0, 0.0, 4.0], "a gold that can't be read is a failure"

    groups = [row["uid"] for row in rows]
    right, rewards = (
        [math.nan if row["reward_extra_info"]["verifier_error"] else value(row) for row in rows]
        for value in (lambda row: row["reward_extra_info"]["is_right"], lambda row: sum(row["rm_scores"]))
    )
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
        assert row["advantages"] == pytest.approx(
            [advantage * counts for counts in row["response_mask"]], rel=1e-4, abs=1e-5
        )
    (metrics,) = read_metrics(tmp_path)
    assert metrics["correction/max"] > 0.01
    assert metrics["groups/all_right"] == pytest.approx(1 / 4)
    assert metrics["groups/mixed"] == pytest.approx(2 / 4)
    assert metrics["verifier/errors"] == pytest.approx(1 / 4)
    assert metrics["distinct_solutions"] == pytest.approx(3 / 4)
