"""The verifiers of mathematics and of programs inside verl's reward workers, on responses that are given."""

import json
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from tests.verl.in_verl.verl_run import make_data, make_model, read_batch, read_metrics, run_verl, skip_without_verl

from progrpo.tasks import CodeTask, MathTask
from progrpo.tasks.rewards import verl_row
from progrpo.tasks.rows import Data

skip_without_verl()
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are isolated on Linux only")


def program(text: str) -> str:
    return f"```python\n{text}\n```"


MATH = [r"\boxed{35}", r"\boxed{36}", r"\boxed{9^{9^{9^{9}}}}", "I can't say."]
CODE = [
    program("def product_minus_5(a, b):\n    return a * b - 5"),
    program("def product_minus_5(a, b):\n    return 292"),
    program("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nwhile True: pass"),
    program("class Yes(int):\n    __eq__ = lambda self, other: True\ndef product_minus_5(a, b):\n    return Yes()"),
]
BROKEN_GOLD = [r"\boxed{35}"] * 4


def test_right_wrong_and_hostile_responses(tmp_path: Path) -> None:
    sums = MathTask(Data(preset="word_problems", limit=1), Data(preset="word_problems", seed=1, limit=1))
    programs = CodeTask(Data(preset="small_functions", limit=1), Data(preset="small_functions", seed=1, limit=1))
    math_row = verl_row(sums, sums.train_problems()[0])
    code_row = verl_row(programs, programs.train_problems()[0])
    broken_row = json.loads(json.dumps(math_row).replace("How many", "Count how many"))
    broken_row["reward_model"]["ground_truth"] = r"\frac{"
    rows = [math_row, code_row, broken_row]
    texts = [row["prompt"][0]["content"] for row in rows]
    assert math_row["reward_model"]["ground_truth"] == "35"
    (tmp_path / "responses.json").write_text(json.dumps(dict(zip(texts, [MATH, CODE, BROKEN_GOLD], strict=True))))
    run_verl(
        tmp_path,
        "trainer.v1.trainer_mode=progrpo",
        "algorithm.adv_estimator=grpo",
        "reward.custom_reward_function.path=pkg://progrpo.tasks.rewards",
        "reward.num_workers=2",
        "data.train_batch_size=3",
        "data.max_prompt_length=1024",
        "data.max_response_length=256",
        "actor_rollout_ref.actor.ppo_mini_batch_size=3",
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
    by_uid = defaultdict(list)
    for row in read_batch(tmp_path, 1):
        by_uid[row["uid"]].append(row)
    scores = sorted(sorted(sum(row["rm_scores"]) for row in group) for group in by_uid.values())
    assert scores == [[0.0] * 4, [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]
    failed = [[row["reward_extra_info"]["verifier_error"] for row in group] for group in by_uid.values()]
    assert sorted(map(sum, failed)) == [0.0, 0.0, 4.0]  # a gold that can't be read is no fault of the responses
    for group in by_uid.values():
        if group[0]["reward_extra_info"]["verifier_error"]:
            assert all(value == 0 for row in group for value in row["advantages"])
            continue
        best = max(group, key=lambda row: sum(row["rm_scores"]))
        assert all(max(best["advantages"]) > max(row["advantages"]) for row in group if row is not best)
    (metrics,) = read_metrics(tmp_path)
    assert metrics["verifier/errors"] == pytest.approx(1 / 3)
    assert metrics["distinct_solutions"] == pytest.approx(2 / 3)
