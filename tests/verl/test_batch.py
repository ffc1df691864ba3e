"""verl's nested batches, their advantages against the formulas of ``tests/reference``, and their rollout table."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.reference import cases, method
from torch import Tensor

from progrpo.common.errors import ConfigError
from progrpo.core import answer_confidence, group_relative_advantages, prompt_confidence
from progrpo.methods.arm import ArmOptions
from progrpo.verl.batch import (
    VERL_EPS,
    Responses,
    correct_rewards,
    final_rows,
    per_response,
    per_token,
    progrpo_advantages,
    split_logps,
    without_failures,
    write_rollouts,
)

PROMPTS, RESPONSES = [3, 1, 6, 2, 1], [4, 2, 1, 5, 3]


def nested(rows: list[Tensor]) -> Tensor:
    return torch.nested.nested_tensor(rows, layout=torch.jagged)


def sequences(seed: int = 0) -> tuple[Tensor, Tensor, list[list[float]], list[list[float]], list[list[bool]]]:
    """Whole sequences as verl keeps them, and as lists: the log-probs of prompts and responses, and the masks."""
    width = max(PROMPTS) + max(RESPONSES)
    logps = cases.random_logps(seed, len(PROMPTS), width)
    masks = cases.random_mask(seed, len(PROMPTS), max(RESPONSES))
    rows, mask_rows, prompt_logps, response_logps, counted = [], [], [], [], []
    for i, (p, t) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        row = torch.cat([logps[i, : p + t - 1], torch.tensor([math.nan])])  # the last place belongs to no token
        rows.append(row)
        mask_rows.append(masks[i, :t].long())
        prompt_logps.append(row[: p - 1].tolist())
        response_logps.append(row[p - 1 : -1].tolist())
        counted.append(masks[i, :t].tolist())
    return nested(rows), nested(mask_rows), prompt_logps, response_logps, counted


def confidences(logps: Tensor, mask: Tensor, *, low_prob_fraction: float) -> tuple[Tensor, Tensor]:
    """c(q) and c(o|q) as the trainer takes them."""
    logps_BP, mask_BP, logps_BT, mask_BT = split_logps(logps, mask)
    c_o_B = answer_confidence(logps_BT, mask_BT, low_prob_fraction=low_prob_fraction)
    return prompt_confidence(logps_BP, mask_BP), c_o_B


def test_prompts_and_responses_are_cut_at_their_own_tokens() -> None:
    logps, mask, prompt_logps, response_logps, counted = sequences()
    logps_BP, mask_BP, logps_BT, mask_BT = split_logps(logps, mask)
    assert logps_BP.shape == (5, 5)
    assert logps_BT.shape == (5, 5)
    for i in range(5):
        assert logps_BP[i][mask_BP[i]].tolist() == prompt_logps[i]
        assert logps_BT[i, : RESPONSES[i]].tolist() == response_logps[i]
        assert mask_BT[i].tolist() == counted[i] + [False] * (5 - RESPONSES[i])


@pytest.mark.parametrize("fraction", [0.2, 0.5, 1.0])
def test_confidences_are_those_of_the_reference(fraction: float) -> None:
    logps, mask, prompt_logps, response_logps, counted = sequences()
    c_q_B, c_o_B = confidences(logps, mask, low_prob_fraction=fraction)
    expected_q = [method.prompt_confidence(row, [True] * len(row)) for row in prompt_logps]
    expected_o = [method.answer_confidence(*pair, fraction) for pair in zip(response_logps, counted, strict=True)]
    torch.testing.assert_close(c_q_B, torch.tensor(expected_q), equal_nan=True)
    torch.testing.assert_close(c_o_B, torch.tensor(expected_o), equal_nan=True)
    assert c_q_B.isnan().tolist() == [False, True, False, False, True]  # a prompt of one token has no likelihood


def test_float64_log_probs_keep_their_digits() -> None:
    logps, mask, prompt_logps, response_logps, counted = sequences()
    c_q_B, c_o_B = confidences(logps.double(), mask, low_prob_fraction=0.2)
    expected_q = [method.prompt_confidence(row, [True] * len(row)) for row in prompt_logps]
    expected_o = [method.answer_confidence(*pair, 0.2) for pair in zip(response_logps, counted, strict=True)]
    for actual, expected in ((c_q_B, expected_q), (c_o_B, expected_o)):
        reference = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(actual, reference, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_one_short_sequence() -> None:
    c_q_B, c_o_B = confidences(
        nested([torch.tensor([-0.5, math.nan])]), nested([torch.tensor([1])]), low_prob_fraction=0.2
    )
    assert c_q_B.isnan().all()
    torch.testing.assert_close(c_o_B, torch.tensor([math.exp(-0.5)]))


def test_a_rows_advantage_is_read_at_its_first_counted_token_and_written_at_all() -> None:
    mask = nested([torch.tensor([0, 1, 1]), torch.tensor([1, 0]), torch.tensor([0, 0, 0, 0])])
    written = per_token(torch.tensor([0.5, -2.0, 7.0]), mask)
    assert [row.tolist() for row in written.unbind()] == [[0.0, 0.5, 0.5], [-2.0, 0.0], [0.0] * 4]
    assert per_response(written, mask).tolist() == [0.5, -2.0, 0.0]


def test_the_last_of_several_outputs_counts_for_the_response() -> None:
    keys = ["a_b_0_1", "c_0_0", "a_b_0_0", "a_b_1_0", "a_b_0_10", "a_b_0_9"]
    rows, place = final_rows(keys)
    assert rows.tolist() == [1, 3, 4]
    assert place.tolist() == [2, 0, 2, 1, 2, 2]


def responses(
    seed: int, rows: int = 40, kind: str = "binary", failed: float = 0.0, correct_above: float = 0.0
) -> Responses:
    rewards = cases.random_rewards(seed, rows, kind).float()
    groups = cases.random_groups(seed, rows)
    generator = torch.Generator().manual_seed(seed)
    failed_S = torch.rand(rows, generator=generator) < failed
    scores = rewards.masked_fill(failed_S, 0.0)  # verl gets a score of 0 for these
    rewards = rewards.masked_fill(failed_S, torch.nan)
    return Responses(
        advantages_S=group_relative_advantages(scores, groups, eps=VERL_EPS),
        rewards_S=rewards,
        shaped_rewards_S=scores,
        correct_rewards_S=rewards,
        groups_S=groups,
        prompt_confidence_S=cases.random_confidences(seed, rows).float(),
        answer_confidence_S=cases.random_confidences(seed + 50, rows).float(),
        solutions=[f"s{i % 3}" if reward > correct_above else None for i, reward in enumerate(rewards.tolist())],
    )


def reweighted(step: Responses, options: ArmOptions, scale: str = "group") -> tuple[Tensor, dict[str, float]]:
    return progrpo_advantages(without_failures(step, scale=scale), options)


def test_alpha_0_gives_verls_advantages_bit_for_bit() -> None:
    step = responses(1)
    odd = replace(step, advantages_S=step.advantages_S + 0.123)  # any values: they must not be computed again
    advantages_S, metrics = reweighted(odd, ArmOptions(alpha=0.0))
    assert torch.equal(advantages_S, odd.advantages_S)
    assert metrics["correction/max"] == metrics["correction/min"] == 0.0


@pytest.mark.parametrize("center", ["prompt", "group", "correct"])
@pytest.mark.parametrize("activation", ["any_correct", "mixed"])
@pytest.mark.parametrize("failed", [0.0, 0.3])
@pytest.mark.parametrize(("kind", "correct_above"), [("binary", 0.0), ("graded", 0.0), ("graded", -0.5)])
def test_advantages_are_those_of_the_reference(
    center: str, activation: str, failed: float, kind: str, correct_above: float
) -> None:
    step = responses(2, kind=kind, failed=failed, correct_above=correct_above)
    options = ArmOptions(alpha=0.7, activation=activation, center=center, correct_above=correct_above)
    advantages_S, _ = reweighted(step, options)
    rewards = step.rewards_S.double().tolist()
    groups = step.groups_S.tolist()
    expected = method.arm_advantages(
        method.group_relative_advantages(rewards, groups, "group", VERL_EPS),
        rewards,
        step.prompt_confidence_S.tolist(),
        step.answer_confidence_S.tolist(),
        groups,
        alpha=0.7,
        activation=activation,
        center=center,
        correct_above=correct_above,
    )
    torch.testing.assert_close(advantages_S, torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_a_response_that_the_verifier_failed_on_is_left_out_of_its_group() -> None:
    # The second group has one response left, which has nothing to be compared with.
    groups = torch.tensor([0, 0, 0, 1, 1])
    step = Responses(
        advantages_S=torch.tensor([1.1, -0.5, -0.5, 0.7, -0.7]),
        rewards_S=torch.tensor([1.0, 0.0, torch.nan, 1.0, torch.nan]),
        shaped_rewards_S=torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0]),
        correct_rewards_S=torch.tensor([1.0, 0.0, torch.nan, 1.0, torch.nan]),
        groups_S=groups,
        prompt_confidence_S=torch.full((5,), 0.5),
        answer_confidence_S=torch.full((5,), 0.5),
        solutions=["a", None, None, "b", None],
    )
    advantages_S, metrics = reweighted(step, ArmOptions())
    torch.testing.assert_close(advantages_S, torch.tensor([0.5**0.5, -(0.5**0.5), 0.0, 0.0, 0.0]), rtol=1e-5, atol=1e-6)
    assert metrics["verifier/errors"] == pytest.approx(0.4)
    assert (metrics["groups/mixed"], metrics["groups/all_right"]) == (0.5, 0.5)
    assert metrics["distinct_solutions"] == 1.0


def test_groups_without_a_failure_keep_verls_advantages_bit_for_bit() -> None:
    step = responses(3, failed=0.05)
    affected = torch.isin(step.groups_S, step.groups_S[step.rewards_S.isnan()])
    assert 0 < affected.sum() < len(affected)
    odd = replace(step, advantages_S=step.advantages_S + 0.123)
    advantages_S, _ = reweighted(odd, ArmOptions(alpha=0.0))
    assert torch.equal(advantages_S[~affected], odd.advantages_S[~affected])
    assert not torch.isclose(advantages_S[affected], odd.advantages_S[affected]).any()


def test_dr_grpo_leaves_out_failures() -> None:
    step = responses(4, failed=0.3)
    advantages_S, _ = reweighted(step, ArmOptions(alpha=0.0), scale="none")
    rewards = step.rewards_S.double().tolist()
    expected = method.group_relative_advantages(rewards, step.groups_S.tolist(), "none", VERL_EPS)
    torch.testing.assert_close(advantages_S, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_another_reward_can_decide_which_responses_are_right() -> None:
    # A bonus for the format makes all scores positive; the responses with acc 1 are right.
    step = responses(7)
    bonus = step.rewards_S + 0.25
    graded = replace(step, rewards_S=bonus, shaped_rewards_S=bonus)
    infos = [{"acc": bool(reward), "format": 0.25} for reward in step.rewards_S.tolist()]
    options = ArmOptions(center="correct", correct_reward="acc")
    by_acc = replace(graded, correct_rewards_S=correct_rewards(infos, bonus, options.correct_reward))
    by_score = replace(graded, correct_rewards_S=correct_rewards(infos, bonus, None))
    wrong_S = step.rewards_S == 0
    advantages_S, metrics = reweighted(by_acc, options)
    assert torch.equal(advantages_S[wrong_S], step.advantages_S[wrong_S])
    assert not torch.equal(advantages_S[~wrong_S], step.advantages_S[~wrong_S])
    assert metrics["groups/mixed"] == 1.0
    pushed_S, as_if_right = reweighted(by_score, options)
    assert not torch.equal(pushed_S[wrong_S], step.advantages_S[wrong_S])
    assert as_if_right["groups/all_right"] == 1.0
    assert metrics["groups/zero_variance"] == as_if_right["groups/zero_variance"] == 0.0


def test_an_unknown_correct_reward_is_refused_with_the_names_that_exist() -> None:
    infos: list[dict[str, Any]] = [{"acc": 1.0, "reason": ""}]
    with pytest.raises(ConfigError, match=r"beside the score \(acc, reason\), got 'accuracy'"):
        correct_rewards(infos, torch.ones(1), "accuracy")
    with pytest.raises(ConfigError, match="but for one response 'reason' is ''"):
        correct_rewards(infos, torch.ones(1), "reason")
    with pytest.raises(ConfigError, match="it returns nothing"):
        correct_rewards([{}], torch.ones(1), "acc")


def test_a_failure_is_not_right_whatever_another_reward_says() -> None:
    rewards = correct_rewards([{"acc": 1.0}, {"acc": 1.0}], torch.tensor([torch.nan, 0.5]), "acc")
    torch.testing.assert_close(rewards, torch.tensor([torch.nan, 1.0]), equal_nan=True)


def test_a_failure_is_never_right_however_low_the_threshold() -> None:
    step = responses(8, failed=0.4)
    options = ArmOptions(center="correct", correct_above=-5.0)
    advantages_S, metrics = reweighted(step, options)
    assert (advantages_S[step.rewards_S.isnan()] == 0).all()
    assert metrics["groups/all_right"] == 1.0


def test_a_reward_of_nan_counts_as_a_failure() -> None:
    step = responses(5)
    rewards = step.rewards_S.clone()
    rewards[0] = torch.nan
    advantages = torch.full_like(rewards, torch.nan)
    broken = replace(
        step, rewards_S=rewards, shaped_rewards_S=rewards, correct_rewards_S=rewards, advantages_S=advantages
    )
    alone = replace(broken, groups_S=torch.zeros_like(step.groups_S))
    advantages_S, metrics = reweighted(alone, ArmOptions())
    assert advantages_S.isfinite().all()
    assert advantages_S[0] == 0
    assert metrics["verifier/errors"] == pytest.approx(1 / 40)


def test_the_order_of_rows_changes_nothing() -> None:
    step = responses(6, failed=0.2)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    moved = Responses(
        *(getattr(step, name)[order] for name in list(Responses.__dataclass_fields__)[:-1]),
        solutions=[step.solutions[i] for i in order.tolist()],
    )
    advantages_S, metrics = reweighted(step, ArmOptions(center="group"))
    moved_S, moved_metrics = reweighted(moved, ArmOptions(center="group"))
    torch.testing.assert_close(moved_S, advantages_S[order])
    assert moved_metrics == pytest.approx(metrics, abs=1e-7)


# The rollout table. tests/verl/in_verl/test_recipes.py tests that verl's trainer writes it.


class Characters:
    """A tokenizer of characters; 0 is a special token."""

    def decode(self, ids: Any, skip_special_tokens: bool) -> str:
        return "".join(chr(int(i)) for i in ids if i or not skip_special_tokens)


def ids(text: str) -> torch.Tensor:
    return torch.tensor([*map(ord, text), 0])


TEXTS = ("4", "5!", "four", "")
STEP = Responses(
    advantages_S=torch.tensor([0.5, -1.0, 0.0, 0.5]),
    rewards_S=torch.tensor([1.0, 0.0, torch.nan, 0.0]),
    shaped_rewards_S=torch.tensor([1.0, 0.0, 0.0, 0.0]),
    correct_rewards_S=torch.tensor([1.0, 0.0, torch.nan, -0.5]),
    groups_S=torch.tensor([0, 1, 0, 1]),
    prompt_confidence_S=torch.tensor([0.25] * 4),
    answer_confidence_S=torch.tensor([0.5, 0.75, 0.5, 0.25]),
    solutions=["4", None, None, None],
)
INFOS = [{"problem_id": f"p{i % 2}", "reason": "" if i == 0 else f"reason {i}"} for i in range(4)]
TOKENS = {
    "prompts": [ids("2 + 2?"), ids("3 + 3?")] * 2,
    "responses": [ids(text) for text in TEXTS],
    "old_log_probs": [torch.full((len(text) + 1,), -0.5) for text in TEXTS],
}


def write(
    setting: dict[str, Any],
    step: int,
    *,
    advantages_S: torch.Tensor = STEP.advantages_S,
    tokens: dict[str, list[torch.Tensor]] = TOKENS,
    correct_above: float = 0.0,
) -> None:
    write_rollouts(setting, step, Characters(), STEP, advantages_S, INFOS, tokens, correct_above)


def test_each_response_is_a_row_and_groups_stand_together(tmp_path: Path) -> None:
    advantages_S = STEP.advantages_S + torch.tensor([0.125, -0.25, 0.0, 0.0])
    write({"folder": str(tmp_path)}, 7, advantages_S=advantages_S)
    frame = pd.read_parquet(tmp_path / "step-000007-rank0.parquet")
    assert frame["group"].tolist() == [0, 0, 1, 1]
    assert frame["text"].tolist() == ["4", "four", "5!", ""]
    assert frame["prompt"].tolist() == ["2 + 2?"] * 2 + ["3 + 3?"] * 2
    assert frame["problem_id"].tolist() == ["p0", "p0", "p1", "p1"]
    assert frame["status"].tolist() == ["correct", "error", "incorrect", "incorrect"]
    assert frame["canonical"].fillna("").tolist() == ["4", "", "", ""]
    np.testing.assert_array_equal(frame["reward"], [1.0, np.nan, 0.0, 0.0])
    np.testing.assert_allclose(frame["advantage"], frame["grpo_advantage"] + frame["correction"])
    assert frame["correction"].tolist() == [0.125, 0.0, -0.25, 0.0]
    assert [len(row) for row in frame["logps"]] == [len(row) for row in frame["token_ids"]] == [2, 5, 3, 1]


def test_the_status_depends_on_the_reward_that_decides_correctness(tmp_path: Path) -> None:
    for step, correct_above in enumerate((0.0, -0.25, -1.0), start=1):
        write({"folder": str(tmp_path)}, step, correct_above=correct_above)
    statuses = [pd.read_parquet(path)["status"].tolist() for path in sorted(tmp_path.iterdir())]
    assert statuses == [
        ["correct", "error", "incorrect", "incorrect"],
        ["correct", "error", "correct", "incorrect"],
        ["correct", "error", "correct", "correct"],
    ]


@pytest.mark.parametrize(
    ("setting", "steps"),
    [
        ({}, [1, 2, 3, 4]),
        ({"every": 2}, [1, 2, 4]),
        # A run folder counts the optimiser steps 1-4, 5-8, ...
        ({"updates": 4}, [1, 5, 9, 13]),
        ({"updates": 4, "every": 8}, [1, 9]),
    ],
)
def test_the_setting_chooses_the_steps(setting: dict[str, Any], steps: list[int], tmp_path: Path) -> None:
    for step in range(1, 5):
        write(setting | {"folder": str(tmp_path)}, step)
    assert sorted(int(path.name[5:11]) for path in tmp_path.iterdir()) == steps


def test_a_response_shows_the_thinking_part_that_its_prompt_opened(tmp_path: Path) -> None:
    tokens = TOKENS | {"prompts": [ids("2 + 2? <think>\n"), ids("3 + 3?")] * 2}
    write({"folder": str(tmp_path)}, 1, tokens=tokens)
    frame = pd.read_parquet(tmp_path / "step-000001-rank0.parquet")
    assert frame["text"].tolist() == ["<think>\n4", "<think>\nfour", "5!", ""]
