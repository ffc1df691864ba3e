"""The adapters' metrics, counted by hand and by a slow loop."""

import math
import re
from collections.abc import Iterable

import pytest
import torch
from tests.reference import cases

from progrpo.methods.exploration import NO_SOLUTION, QUIET_STEPS, ActivationWatch, exploration_metrics, solution_digest
from progrpo.methods.options import ArmOptions


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


def test_where_nothing_is_known_the_metric_says_so() -> None:
    nothing = torch.full((2,), math.nan)
    digests = torch.full((2,), NO_SOLUTION)
    metrics = exploration_metrics(
        torch.zeros(2), torch.tensor([0, 0]), digests, nothing, nothing, torch.zeros(2), activation="any_correct"
    )
    assert math.isnan(metrics["confidence/prompt/mean"])
    assert metrics["distinct_solutions"] == 0.0


def test_a_group_without_a_scored_response_is_of_no_kind() -> None:
    rewards, groups = torch.tensor([math.nan, math.nan, 0.5, math.nan]), torch.tensor([0, 0, 1, 1])
    digests, c = torch.full((4,), NO_SOLUTION), torch.full((4,), 0.5)
    metrics = exploration_metrics(rewards, groups, digests, c, c, c - c, activation="any_correct")
    assert metrics["groups/zero_variance"] == metrics["groups/all_right"] == 0.5


def test_a_solution_may_hold_half_a_surrogate_pair() -> None:
    assert len({solution_digest(form) for form in ("\ud800", "\ud801", "?", None)}) == 4


def test_no_solution_has_the_number_of_none() -> None:
    assert all(solution_digest(form) >= 0 > NO_SOLUTION for form in map(str, range(100)))


def test_graded_rewards_teach_though_all_are_right() -> None:
    rewards, groups = torch.tensor([0.1, 0.4, 1.0, 0.7, 0.7, 0.7]), torch.tensor([0, 0, 0, 1, 1, 1])
    digests, c = torch.full((6,), NO_SOLUTION), torch.full((6,), 0.5)
    metrics = exploration_metrics(rewards, groups, digests, c, c, c - c, activation="any_correct")
    assert (metrics["groups/all_right"], metrics["groups/zero_variance"]) == (1.0, 0.5)


def watch(options: ArmOptions, steps: Iterable[int], rewards: list[float]) -> ActivationWatch:
    watching = ActivationWatch(options)
    for step in steps:
        watching.see(step, torch.tensor(rewards), torch.tensor([0, 0, 1, 1]))
    return watching


PENALTIES = [-3.0, -4.0, -3.0, -4.0]


def test_a_run_without_an_activated_group_says_so_once_and_why(caplog: pytest.LogCaptureFixture) -> None:
    watch(ArmOptions(), range(1, QUIET_STEPS), PENALTIES)
    assert caplog.text == ""
    watch(ArmOptions(), range(8, 8 + 5 * QUIET_STEPS), PENALTIES)
    [record] = caplog.records
    assert record.getMessage() == (
        "No group was re-weighted in steps 8 to 27, so the advantages are those of GRPO: no response's reward was "
        "above correct_above=0, the highest was -3. If some of them were right, set correct_above below what a right "
        "response gets, or correct_reward to the name of the reward that says whether a response is right."
    )


def test_of_graded_rewards_it_is_said_once_which_count_as_right(caplog: pytest.LogCaptureFixture) -> None:
    graded = [0.1, 0.4, 1.0, 0.7]
    for options in (ArmOptions(correct_above=0.5), ArmOptions(correct_reward="acc"), ArmOptions(alpha=0.0)):
        watch(options, range(1, 5), graded)
    ActivationWatch(ArmOptions(), knows_what_is_right=True).see(
        1, torch.tensor(graded), torch.zeros(4, dtype=torch.long)
    )
    watch(ArmOptions(), range(1, 5), [0.0, 1.0, math.nan, 1.0])
    assert caplog.text == ""
    watch(ArmOptions(), range(1, 5), graded)
    [record] = caplog.records
    assert record.getMessage().startswith(
        "The rewards are graded, from 0.1 to 1 in this step: a response counts as right if its reward is above "
        "correct_above=0. Set correct_above"
    )


def test_a_generation_that_serves_several_steps_counts_as_them(caplog: pytest.LogCaptureFixture) -> None:
    watch(ArmOptions(), range(1, 22, 4), PENALTIES)
    assert "in steps 1 to 21" in caplog.text


def test_an_activated_group_starts_the_count_anew(caplog: pytest.LogCaptureFixture) -> None:
    watching = watch(ArmOptions(), range(1, 20), PENALTIES)
    watching.see(20, torch.tensor([1.0, 0.0]), torch.tensor([0, 0]))
    for step in range(21, 40):
        watching.see(step, torch.tensor([-1.0, -2.0]), torch.tensor([0, 0]))
    assert caplog.text == ""
    watching.see(40, torch.tensor([-1.0, -2.0]), torch.tensor([0, 0]))
    assert "in steps 21 to 40" in caplog.text


@pytest.mark.parametrize(
    ("options", "rewards", "reason"),
    [
        (
            ArmOptions(correct_reward="acc", correct_above=0.5),
            [0.0, 0.5, 0.1, 0.0],
            r"no response's reward 'acc' was ab",
        ),
        (ArmOptions(activation="mixed"), [0.1, 1.0, 1.0, 0.1], r"none had both: .* the rewards were from 0\.1 to 1\."),
        (ArmOptions(), [math.nan] * 4, "no response had a reward at all"),
    ],
)
def test_the_reason_is_the_one_that_applies(
    options: ArmOptions, rewards: list[float], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    watch(options, range(1, 30), rewards)
    [record] = caplog.records
    assert re.search(reason, record.getMessage())


@pytest.mark.parametrize(
    ("options", "rewards"),
    [(ArmOptions(alpha=0.0), PENALTIES), (ArmOptions(correct_above=-3.5), PENALTIES), (ArmOptions(), [0.1] * 4)],
)
def test_where_arm_acts_or_is_not_asked_to_nothing_is_said(
    options: ArmOptions, rewards: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    watch(options, range(1, 60), rewards)
    assert caplog.text == ""
