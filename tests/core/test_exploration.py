"""The adapters' metrics, counted by hand and by a slow loop."""

import math

import pytest
import torch
from tests.reference import cases

from progrpo.core.exploration import NO_SOLUTION, exploration_metrics, solution_digest


def test_ragged_groups_in_any_order_count_once_each() -> None:
    nan = math.nan
    rewards = torch.tensor([1.0, 0.0, 1.0, 0.0, nan, 1.0, nan])
    groups = torch.tensor([5, 5, -2, 9, -2, -2, 30])
    digests = torch.tensor([7, NO_SOLUTION, 7, NO_SOLUTION, NO_SOLUTION, 8, NO_SOLUTION])
    c_q, c_o = torch.full((7,), 0.5), torch.tensor([0.1, 0.9, nan, 0.5, 0.5, 0.5, 0.5])
    metrics = exploration_metrics(rewards, groups, digests, c_q, c_o, c_q - c_o, activation="mixed")
    shares = {kind: metrics[f"groups/{kind}"] for kind in ("activated", "all_right", "all_wrong", "mixed")}
    assert shares == {
        "activated": 0.25,
        "all_right": 0.25,
        "all_wrong": 0.25,
        "mixed": 0.25,
    }  # group 30 is none of them
    assert metrics["distinct_solutions"] == 0.75
    assert metrics["confidence/answer/mean"] == pytest.approx(0.5)
    assert (metrics["confidence/answer/min"], metrics["confidence/answer/max"]) == pytest.approx((0.1, 0.9))
    assert metrics["confidence/prompt/mean"] == 0.5


@pytest.mark.parametrize("activation", ["any_correct", "mixed"])
@pytest.mark.parametrize("kind", ["binary", "graded", "missing"])
@pytest.mark.parametrize("correct_above", [0.0, -0.5, 0.8])
def test_against_a_loop_over_groups(activation: str, kind: str, correct_above: float) -> None:
    totals = cases.random_rewards(4, 60, "binary")
    rewards, groups = cases.random_rewards(3, 60, kind), cases.random_groups(3, 60)
    forms = [f"form {i % 4}" if reward > correct_above else None for i, reward in enumerate(rewards.tolist())]
    digests = torch.tensor([solution_digest(form) for form in forms])
    c = cases.random_confidences(3, 60)
    metrics = exploration_metrics(
        *(totals, groups, digests, c, c, c),
        activation=activation,
        correct_above=correct_above,
        correct_rewards_B=rewards,
    )
    counts = dict.fromkeys(("activated", "all_right", "all_wrong", "mixed", "zero_variance"), 0)
    solutions = 0
    for group in set(groups.tolist()):
        members = [i for i in range(60) if groups[i] == group and not math.isnan(rewards[i])]
        right = any(rewards[i] > correct_above for i in members)
        wrong = any(rewards[i] <= correct_above for i in members)
        counts["zero_variance"] += len({float(totals[i]) for i in range(60) if groups[i] == group}) == 1
        counts["activated"] += right and (wrong or activation == "any_correct")
        counts["all_right"] += right and not wrong
        counts["all_wrong"] += wrong and not right
        counts["mixed"] += right and wrong
        solutions += len({forms[i] for i in members} - {None})
    n = len(set(groups.tolist()))
    for name, count in counts.items():
        assert metrics[f"groups/{name}"] == pytest.approx(count / n)
    assert metrics["distinct_solutions"] == pytest.approx(solutions / n)


def test_a_metric_without_known_values_is_nan() -> None:
    nothing = torch.full((2,), math.nan)
    digests = torch.full((2,), NO_SOLUTION)
    metrics = exploration_metrics(
        torch.zeros(2), torch.tensor([0, 0]), digests, nothing, nothing, torch.zeros(2), activation="any_correct"
    )
    assert math.isnan(metrics["confidence/prompt/mean"])
    assert metrics["distinct_solutions"] == 0.0


def test_a_group_without_a_scored_response_counts_as_no_kind() -> None:
    rewards, groups = torch.tensor([math.nan, math.nan, 0.5, math.nan]), torch.tensor([0, 0, 1, 1])
    digests, c = torch.full((4,), NO_SOLUTION), torch.full((4,), 0.5)
    metrics = exploration_metrics(rewards, groups, digests, c, c, c - c, activation="any_correct")
    assert metrics["groups/zero_variance"] == metrics["groups/all_right"] == 0.5


def test_a_solution_may_hold_half_a_surrogate_pair() -> None:
    assert len({solution_digest(form) for form in ("\ud800", "\ud801", "?", None)}) == 4


def test_no_digest_of_a_solution_is_negative() -> None:
    assert all(solution_digest(form) >= 0 > NO_SOLUTION for form in map(str, range(100)))


def test_graded_rewards_have_variance_although_all_are_right() -> None:
    rewards, groups = torch.tensor([0.1, 0.4, 1.0, 0.7, 0.7, 0.7]), torch.tensor([0, 0, 0, 1, 1, 1])
    digests, c = torch.full((6,), NO_SOLUTION), torch.full((6,), 0.5)
    metrics = exploration_metrics(rewards, groups, digests, c, c, c - c, activation="any_correct")
    assert (metrics["groups/all_right"], metrics["groups/zero_variance"]) == (1.0, 0.5)
