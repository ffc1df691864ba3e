"""The adapters' metrics, counted by hand and by a slow loop."""

import math

import pytest
import torch

from progrpo.integrations.exploration import NO_SOLUTION, exploration_metrics, solution_digest
from reference import cases


def test_ragged_groups_in_any_order_count_once_each() -> None:
    nan = math.nan
    rewards = torch.tensor([1.0, 0.0, 1.0, 0.0, nan, 1.0, nan])
    groups = torch.tensor([5, 5, -2, 9, -2, -2, 30])
    digests = torch.tensor([7, NO_SOLUTION, 7, NO_SOLUTION, NO_SOLUTION, 8, NO_SOLUTION])
    c_q, c_o = torch.full((7,), 0.5), torch.tensor([0.1, 0.9, nan, 0.5, 0.5, 0.5, 0.5])
    metrics = exploration_metrics(rewards, groups, digests, c_q, c_o, c_q - c_o, activation="mixed")
    shares = {kind: metrics[f"groups/{kind}"] for kind in ("activated", "all_right", "all_wrong", "mixed")}
    assert shares == {"activated": 0.25, "all_right": 0.25, "all_wrong": 0.25, "mixed": 0.25}  # 30 is none of them
    assert metrics["distinct_solutions"] == 0.75
    assert metrics["confidence/answer/mean"] == pytest.approx(0.5)
    assert (metrics["confidence/answer/min"], metrics["confidence/answer/max"]) == pytest.approx((0.1, 0.9))
    assert metrics["confidence/prompt/mean"] == 0.5


@pytest.mark.parametrize("activation", ["any_correct", "mixed"])
@pytest.mark.parametrize("kind", ["binary", "graded", "missing"])
def test_against_a_loop_over_groups(activation: str, kind: str) -> None:
    rewards, groups = cases.random_rewards(3, 60, kind), cases.random_groups(3, 60)
    forms = [f"form {i % 4}" if reward > 0 else None for i, reward in enumerate(rewards.tolist())]
    digests = torch.tensor([solution_digest(form) for form in forms])
    c = cases.random_confidences(3, 60)
    metrics = exploration_metrics(rewards, groups, digests, c, c, c, activation=activation)
    counts = dict.fromkeys(("activated", "all_right", "all_wrong", "mixed"), 0)
    solutions = 0
    for group in set(groups.tolist()):
        members = [i for i in range(60) if groups[i] == group and not math.isnan(rewards[i])]
        right, wrong = any(rewards[i] > 0 for i in members), any(rewards[i] <= 0 for i in members)
        counts["activated"] += right and (wrong or activation == "any_correct")
        counts["all_right"] += right and not wrong
        counts["all_wrong"] += wrong and not right
        counts["mixed"] += right and wrong
        solutions += len({forms[i] for i in members} - {None})
    n = len(set(groups.tolist()))
    for name, count in counts.items():
        assert metrics[f"groups/{name}"] == pytest.approx(count / n)
    assert metrics["distinct_solutions"] == pytest.approx(solutions / n)


def test_where_nothing_is_known_the_metric_says_so() -> None:
    nothing = torch.full((2,), math.nan)
    digests = torch.full((2,), NO_SOLUTION)
    metrics = exploration_metrics(
        torch.zeros(2), torch.tensor([0, 0]), digests, nothing, nothing, torch.zeros(2), activation="any_correct"
    )
    assert math.isnan(metrics["confidence/prompt/mean"])
    assert metrics["distinct_solutions"] == 0.0
