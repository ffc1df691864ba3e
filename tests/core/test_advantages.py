import math
from typing import Any

import pytest
import torch
from tests.reference import cases, method
from torch import Tensor

from progrpo.core import arm_advantages, group_relative_advantages
from progrpo.core.advantages import ACTIVATIONS, CENTERS, SCALES, activated_groups, is_correct, zero_variance_groups

KINDS = ["binary", "graded", "missing"]
SIZES = [1, 2, 9, 64]
each_scale = pytest.mark.parametrize("scale", SCALES)
each_center = pytest.mark.parametrize("center", CENTERS)
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def ids(*values: int) -> Tensor:
    return torch.tensor(values)


def assert_same(actual: Tensor, expected: Tensor | list[float]) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=1e-11, atol=1e-12)


def arm_case(seed: int, rows: int, kind: str = "missing") -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Advantages, rewards, prompt and answer confidences (some are NaN) and groups."""
    rewards, groups = cases.random_rewards(seed, rows, kind), cases.random_groups(seed, rows)
    return (
        group_relative_advantages(rewards, groups),
        rewards,
        cases.random_confidences(seed, rows, missing=kind == "missing"),
        cases.random_confidences(seed + 50, rows, missing=kind == "missing"),
        groups,
    )


# Group-relative advantages


def test_advantages_worked_by_hand() -> None:
    # Group 4: rewards 1, 0, 0, mean 1/3, sample standard deviation sqrt(1/3). Group 2: 3 and 1, mean 2, sqrt(2).
    rewards, groups = doubles(1.0, 3.0, 0.0, 1.0, 0.0), ids(4, 2, 4, 2, 4)
    third, root = 1 / (math.sqrt(1 / 3) + 1e-4), 1 / (math.sqrt(2) + 1e-4)
    assert_same(group_relative_advantages(rewards, groups), [2 / 3 * third, root, -third / 3, -root, -third / 3])
    assert_same(group_relative_advantages(rewards, groups, scale="none"), [2 / 3, 1, -1 / 3, -1, -1 / 3])
    # The batch: mean 1, squares 0, 4, 1, 0, 1 over 4.
    assert_same(
        group_relative_advantages(rewards, groups, scale="batch", eps=0.0),
        doubles(2 / 3, 1, -1 / 3, -1, -1 / 3) / math.sqrt(1.5),
    )


@each_scale
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("eps", [1e-4, 1e-6, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_advantages_equal_a_loop_over_responses(scale: str, kind: str, rows: int, eps: float, seed: int) -> None:
    rewards, groups = cases.random_rewards(seed, rows, kind), cases.random_groups(seed, rows)
    expected = method.group_relative_advantages(rewards.tolist(), groups.tolist(), scale, eps)
    assert_same(group_relative_advantages(rewards, groups, scale=scale, eps=eps), expected)


@pytest.mark.parametrize("group_size", [2, 8, 16])
@pytest.mark.parametrize("kind", ["binary", "graded"])
def test_advantages_equal_trls(group_size: int, kind: str) -> None:
    rewards = cases.random_rewards(0, 6 * group_size, kind).float()
    groups = torch.arange(6).repeat_interleave(group_size)
    by_group = rewards.view(-1, group_size)
    centred = (by_group - by_group.mean(dim=1, keepdim=True)).flatten()
    std = by_group.std(dim=1).repeat_interleave(group_size)
    for scale, expected in {
        "group": centred / (std + 1e-4),
        "batch": centred / (rewards.std() + 1e-4),
        "none": centred,
    }.items():
        actual = group_relative_advantages(rewards, groups, scale=scale)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@each_scale
@pytest.mark.parametrize("kind", KINDS)
def test_advantages_sum_to_zero_in_each_group(scale: str, kind: str) -> None:
    rewards, groups = cases.random_rewards(3, 40, kind), cases.random_groups(3, 40)
    advantages = group_relative_advantages(rewards, groups, scale=scale)
    for group in groups.unique():
        assert advantages[groups == group].sum().item() == pytest.approx(0, abs=1e-11)


@each_scale
@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_responses_and_the_group_ids_do_not_matter(scale: str, kind: str) -> None:
    rewards, groups = cases.random_rewards(4, 40, kind), cases.random_groups(4, 40)
    advantages = group_relative_advantages(rewards, groups, scale=scale)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert_same(group_relative_advantages(rewards[order], groups[order], scale=scale), advantages[order])
    for renamed in (-groups, groups.unique(return_inverse=True)[1].to(torch.int32), 7 - 3 * groups):
        assert_same(group_relative_advantages(rewards, renamed, scale=scale), advantages)


@each_scale
def test_a_constant_added_to_the_rewards_changes_nothing(scale: str) -> None:
    rewards, groups = cases.random_rewards(5, 40, "graded"), cases.random_groups(5, 40)
    shifted = group_relative_advantages(rewards + 17.25, groups, scale=scale)
    torch.testing.assert_close(shifted, group_relative_advantages(rewards, groups, scale=scale), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", ["group", "none"])
def test_a_group_does_not_depend_on_the_others(scale: str) -> None:
    rewards, groups = cases.random_rewards(6, 40, "missing"), cases.random_groups(6, 40)
    advantages = group_relative_advantages(rewards, groups, scale=scale)
    for group in groups.unique():
        chosen = groups == group
        assert_same(group_relative_advantages(rewards[chosen], groups[chosen], scale=scale), advantages[chosen])


@each_scale
@pytest.mark.parametrize(
    "rewards", [[0.1, 0.1, 0.1], [1e6 + 0.1] * 7, [0.0] * 4, [1.0] * 5, [-1 / 3] * 6, [1e30] * 3, [0.7]]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equal_rewards_have_advantages_of_exactly_zero(scale: str, rewards: list[float], dtype: torch.dtype) -> None:
    # Another group, so that the deviation of the batch is not 0.
    tensor = torch.tensor([*rewards, 0.0, 1.0], dtype=dtype)
    groups = ids(*[5] * len(rewards), 6, 6)
    advantages = group_relative_advantages(tensor, groups, scale=scale)[:-2]
    assert torch.equal(advantages, torch.zeros(len(rewards), dtype=dtype))


@each_scale
def test_a_reward_of_nan_is_left_out(scale: str) -> None:
    rewards, groups = doubles(1.0, torch.nan, 0.0, torch.nan), ids(1, 1, 1, 2)
    advantages = group_relative_advantages(rewards, groups, scale=scale)
    assert_same(advantages[[0, 2]], group_relative_advantages(rewards[[0, 2]], groups[[0, 2]], scale=scale))
    assert torch.equal(advantages[[1, 3]], torch.zeros(2).double())


@each_scale
def test_equal_rewards_with_eps_zero_do_not_divide_zero_by_zero(scale: str) -> None:
    advantages = group_relative_advantages(torch.tensor([0.3, 0.3]), ids(0, 0), scale=scale, eps=0.0)
    assert torch.equal(advantages, torch.zeros(2))


@each_scale
def test_an_empty_batch_has_no_advantages(scale: str) -> None:
    assert group_relative_advantages(torch.empty(0), torch.empty(0, dtype=torch.long), scale=scale).shape == (0,)


def test_advantages_have_the_dtype_of_the_rewards_and_float32_for_integers() -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        assert group_relative_advantages(torch.ones(2, dtype=dtype), ids(0, 0)).dtype == dtype
    for rewards in (ids(1, 0), torch.tensor([True, False])):
        advantages = group_relative_advantages(rewards, ids(0, 0))
        assert advantages.dtype == torch.float32
        assert torch.equal(advantages, group_relative_advantages(torch.tensor([1.0, 0.0]), ids(0, 0)))


def test_bfloat16_rewards_count_a_large_group_exactly() -> None:
    # bfloat16 can't hold 257: a count in it would be off.
    rewards = torch.zeros(257, dtype=torch.bfloat16)
    rewards[:128] = 1
    advantages = group_relative_advantages(rewards, torch.zeros(257, dtype=torch.long), scale="none")
    torch.testing.assert_close(advantages[0].item(), 1 - 128 / 257, rtol=2**-7, atol=0)


@pytest.mark.parametrize(
    ("rewards", "groups", "error", "message"),
    [
        ([1.0], ids(0), TypeError, r"rewards_B must be a torch.Tensor of shape \(B,\), got list"),
        (torch.ones(1, 2), ids(0, 0), ValueError, r"rewards_B must have shape \(B,\), got \(1, 2\)"),
        (torch.ones(2), ids(0), ValueError, r"groups_B must have the shape of rewards_B, \(2,\), got \(1,\)"),
        (
            torch.ones(2),
            torch.zeros(2),
            TypeError,
            "groups_B must hold integer group ids, got torch.float32; pass one id",
        ),
        (torch.ones(2), torch.tensor([True, False]), TypeError, "groups_B must hold integer group ids, got torch.bool"),
        (torch.ones(2), torch.zeros(2, dtype=torch.complex64), TypeError, "groups_B must hold integer .*complex64"),
        (torch.ones(2), None, TypeError, "groups_B must be a torch.Tensor .*, got NoneType"),
        (torch.ones(2), ids(0, 0).to("meta"), ValueError, "groups_B is on meta but rewards_B is on cpu; move one"),
        (
            torch.tensor([0.0, torch.inf]),
            ids(0, 0),
            ValueError,
            r"rewards_B must not be infinite, got inf at \[1\]; clamp",
        ),
        (
            torch.tensor([-torch.inf, 0]),
            ids(0, 0),
            ValueError,
            r"rewards_B must not be infinite, got -inf at \[0\]; .*NaN",
        ),
    ],
)
def test_wrong_rewards_and_groups_are_refused_by_name(
    rewards: Tensor, groups: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        group_relative_advantages(rewards, groups)


@pytest.mark.parametrize("scale", ["std", "Group", "", None])
def test_an_unknown_scale_is_refused(scale: str) -> None:
    with pytest.raises(ValueError, match=f"scale must be one of 'group', 'batch', 'none', got {scale!r}"):
        group_relative_advantages(torch.ones(2), ids(0, 0), scale=scale)


@pytest.mark.parametrize("eps", [-1e-4, math.nan, math.inf, "1e-4"])
def test_an_eps_below_zero_is_refused(eps: float) -> None:
    with pytest.raises(ValueError, match=r"eps must be a number in \[0.0, inf\), got "):
        group_relative_advantages(torch.ones(2), ids(0, 0), eps=eps)


# ARM


@pytest.mark.parametrize(
    ("center", "expected"),
    [("prompt", [-0.3, 0.9, -1.8, 0.25]), ("group", [0.1, 1.3, -1.4, 0.25]), ("correct", [-0.1, 1.1, -1.0, 0.25])],
)
@pytest.mark.parametrize(
    ("rewards", "correct_above"),
    [([1.0, 1.0, 0.0, 0.0], 0.0), ([-1.0, -4.0, -9.0, -5.0], -5.0), ([0.9, 0.8, 0.1, 0.5], 0.5)],
    ids=["0 and 1", "penalties", "graded"],
)
def test_arm_worked_by_hand(rewards: list[float], correct_above: float, center: str, expected: list[float]) -> None:
    # Group 0: c(q) .5, answers .9, .3, .9 (mean .7; of the two right ones .6), alpha 2. Group 1: nothing right.
    actual = arm_advantages(
        doubles(0.5, 0.5, -1.0, 0.25),
        doubles(*rewards),
        doubles(0.5, 0.5, 0.5, 0.1),
        doubles(0.9, 0.3, 0.9, 0.9),
        ids(0, 0, 0, 1),
        alpha=2.0,
        center=center,
        correct_above=correct_above,
    )
    assert_same(actual, expected)


@each_center
@each_activation
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 4])
@pytest.mark.parametrize("correct_above", [0.0, -0.4, 0.7])
def test_arm_equals_a_loop_over_responses(
    center: str, activation: str, kind: str, rows: int, alpha: float, correct_above: float
) -> None:
    for seed in range(2):
        case = arm_case(seed, rows, kind)
        options: dict[str, Any] = {
            "alpha": alpha,
            "activation": activation,
            "center": center,
            "correct_above": correct_above,
        }
        expected = method.arm_advantages(*(x.tolist() for x in case), **options)
        assert_same(arm_advantages(*case, **options), expected)


@each_center
@each_activation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_alpha_zero_is_the_input_bit_for_bit(center: str, activation: str, dtype: torch.dtype) -> None:
    advantages, *rest = arm_case(1, 64)
    advantages = advantages.to(dtype)
    advantages[::2] = -0.0
    actual = arm_advantages(advantages, *rest, alpha=0.0, activation=activation, center=center)
    assert actual.dtype == dtype
    assert torch.equal(actual, advantages)
    assert torch.equal(actual.signbit(), advantages.signbit())


@each_activation
@pytest.mark.parametrize("kind", KINDS)
def test_the_correction_centred_on_the_group_has_mean_zero_in_every_activated_group(activation: str, kind: str) -> None:
    case = arm_case(2, 64, kind)
    correction = arm_advantages(*case, alpha=3.0, activation=activation, center="group") - case[0]
    activated = activated_groups(case[1], case[4], activation=activation)
    assert correction[activated].abs().max() > 0.1
    assert torch.equal(correction[~activated], torch.zeros(int((~activated).sum())).double())
    for group in case[4].unique():
        assert correction[case[4] == group].sum().item() == pytest.approx(0, abs=1e-12)


@each_activation
@pytest.mark.parametrize("kind", KINDS)
def test_centred_on_the_correct_only_right_responses_change_and_their_mean_stays(activation: str, kind: str) -> None:
    case = arm_case(3, 64, kind)
    advantages, rewards, groups = case[0], case[1], case[4]
    actual = arm_advantages(*case, alpha=3.0, activation=activation, center="correct")
    rewarded = rewards > 0
    assert torch.equal(actual[~rewarded], advantages[~rewarded])
    correction = actual - advantages
    assert correction.abs().max() > 0.1
    for group in groups.unique():
        assert correction[groups == group].sum().item() == pytest.approx(0, abs=1e-12)


@each_center
def test_the_less_likely_of_two_right_answers_gains_more(center: str) -> None:
    actual = arm_advantages(
        torch.zeros(2),
        torch.ones(2),
        torch.full((2,), 0.5),
        torch.tensor([0.9, 0.1]),
        ids(0, 0),
        alpha=1.0,
        center=center,
    )
    assert actual[1] > actual[0]


@each_center
def test_a_group_without_a_right_response_does_not_change(center: str) -> None:
    advantages, _, prompt, answer, groups = arm_case(4, 20, "graded")
    rewards = -cases.random_rewards(4, 20, "graded").abs()
    assert torch.equal(
        arm_advantages(advantages, rewards, prompt, answer, groups, alpha=5.0, center=center), advantages
    )


@each_center
@each_activation
def test_a_constant_added_to_the_rewards_and_to_correct_above_changes_nothing(center: str, activation: str) -> None:
    advantages, rewards, *rest = arm_case(5, 40, "graded")
    options: dict[str, Any] = {"alpha": 2.0, "center": center, "activation": activation}
    expected = arm_advantages(advantages, rewards, *rest, **options)
    assert not torch.equal(expected, advantages)
    for shift in (-8.0, 0.25, 3.0):
        assert torch.equal(arm_advantages(advantages, rewards + shift, *rest, **options, correct_above=shift), expected)


@each_center
@each_activation
def test_alpha_zero_is_the_input_for_every_correct_above(center: str, activation: str) -> None:
    advantages, *rest = arm_case(1, 64, "graded")
    for correct_above in (-1.0, 0.0, 0.5):
        actual = arm_advantages(
            advantages, *rest, alpha=0.0, activation=activation, center=center, correct_above=correct_above
        )
        assert torch.equal(actual, advantages)


@each_center
def test_where_no_reward_is_above_correct_above_nothing_changes(center: str) -> None:
    advantages, rewards, *rest = arm_case(7, 40)
    for correct_above in (1.0, 1e30):
        actual = arm_advantages(advantages, rewards, *rest, alpha=2.0, center=center, correct_above=correct_above)
        assert torch.equal(actual, advantages)


@each_center
def test_where_all_rewards_are_above_correct_above_any_correct_acts_on_all_and_mixed_on_none(center: str) -> None:
    advantages, rewards, prompt, answer, groups = arm_case(8, 40, "graded")
    options: dict[str, Any] = {"alpha": 2.0, "center": center, "correct_above": -100.0}
    every = arm_advantages(advantages, rewards, prompt, answer, groups, **options)
    as_all_right = arm_advantages(
        advantages, torch.ones_like(rewards), prompt, answer, groups, alpha=2.0, center=center
    )
    assert torch.equal(every, as_all_right)
    mixed = arm_advantages(advantages, rewards, prompt, answer, groups, **options, activation="mixed")
    assert torch.equal(mixed, advantages)


def test_right_is_above_and_not_at_correct_above_in_the_precision_of_the_rewards() -> None:
    assert is_correct(torch.tensor([1.0, 0.0, -1.0, torch.nan])).tolist() == [True, False, False, False]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        rewards = torch.tensor([0.1, 0.2, torch.nan], dtype=dtype)
        assert is_correct(rewards, 0.1).tolist() == [False, True, False]
    assert is_correct(torch.tensor([0, 1]), 0.5).tolist() == [False, True]
    assert is_correct(torch.empty(0)).tolist() == []


def test_exactly_the_groups_without_variance_have_advantages_of_zero() -> None:
    rewards = torch.tensor([0.1, 0.1, 0.1, 0.2, -3.0, torch.nan, torch.nan, 1.0, 1.0, torch.nan])
    groups = ids(0, 0, 1, 1, 2, 2, 3, 4, 4, 4)
    assert zero_variance_groups(rewards, groups).tolist() == [
        True,
        True,
        False,
        False,
        True,
        True,
        False,
        True,
        True,
        True,
    ]
    for seed in range(3):
        for kind in KINDS:
            rewards, groups = cases.random_rewards(seed, 20, kind), cases.random_groups(seed, 20)
            flat = zero_variance_groups(rewards, groups)
            for group in groups.unique():
                scored = {r for r, g in zip(rewards.tolist(), groups, strict=True) if g == group and not math.isnan(r)}
                assert flat[groups == group].tolist() == [len(scored) == 1] * int((groups == group).sum())
            assert torch.equal(group_relative_advantages(rewards, groups)[flat], torch.zeros(int(flat.sum())).double())
    assert zero_variance_groups(torch.empty(0), torch.empty(0, dtype=torch.long)).shape == (0,)


@each_center
def test_an_all_right_group_is_reweighted_unless_activation_is_mixed(center: str) -> None:
    advantages, rewards, groups = torch.zeros(3).double(), torch.ones(3).double(), ids(0, 0, 0)
    confidences = torch.full((3,), 0.5).double(), doubles(0.2, 0.4, 0.9)
    anyhow = arm_advantages(advantages, rewards, *confidences, groups, alpha=1.0, center=center)
    mixed = arm_advantages(advantages, rewards, *confidences, groups, alpha=1.0, center=center, activation="mixed")
    assert_same(anyhow, [0.3, 0.1, -0.4])
    assert torch.equal(mixed, advantages)


def test_which_groups_are_activated() -> None:
    rewards = torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0, -1.0, 1.0, torch.nan, 2.0, torch.nan])
    groups = ids(0, 0, 1, 1, 2, 2, 3, 3, 4, 5)
    assert activated_groups(rewards, groups).tolist() == [True] * 4 + [False] * 2 + [True] * 3 + [False]
    mixed = activated_groups(rewards, groups, activation="mixed")
    assert mixed.tolist() == [False, False, True, True] + [False] * 6


@each_center
@each_activation
def test_the_order_of_responses_and_the_group_ids_do_not_matter_for_arm(center: str, activation: str) -> None:
    *case, groups = arm_case(5, 40)
    options: dict[str, Any] = {"alpha": 2.0, "activation": activation, "center": center}
    actual = arm_advantages(*case, groups, **options)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert_same(arm_advantages(*(x[order] for x in case), groups[order], **options), actual[order])
    assert_same(arm_advantages(*case, 7 - 3 * groups, **options), actual)


@each_center
def test_a_group_does_not_depend_on_the_others_in_arm(center: str) -> None:
    case = arm_case(6, 40)
    actual = arm_advantages(*case, alpha=2.0, center=center)
    for group in case[4].unique():
        chosen = case[4] == group
        assert_same(arm_advantages(*(x[chosen] for x in case), alpha=2.0, center=center), actual[chosen])


@each_center
def test_an_empty_response_keeps_its_advantage_and_is_left_out_of_the_mean(center: str) -> None:
    advantages, rewards = doubles(1.0, -1.0, 0.5), doubles(1.0, 1.0, 1.0)
    prompt, answer, groups = torch.full((3,), 0.5).double(), doubles(0.2, 0.6, torch.nan), ids(0, 0, 0)
    actual = arm_advantages(advantages, rewards, prompt, answer, groups, alpha=1.0, center=center)
    assert actual[2] == advantages[2]
    pair = arm_advantages(advantages[:2], rewards[:2], prompt[:2], answer[:2], groups[:2], alpha=1.0, center=center)
    assert_same(actual[:2], pair)


@each_center
def test_an_unscored_response_keeps_its_advantage_and_is_left_out_of_the_mean(center: str) -> None:
    advantages, rewards = doubles(1.0, -1.0, 0.0), doubles(1.0, 1.0, torch.nan)
    prompt, answer, groups = torch.full((3,), 0.5).double(), doubles(0.2, 0.6, 0.9), ids(0, 0, 0)
    actual = arm_advantages(advantages, rewards, prompt, answer, groups, alpha=1.0, center=center)
    assert actual[2] == 0
    pair = arm_advantages(advantages[:2], rewards[:2], prompt[:2], answer[:2], groups[:2], alpha=1.0, center=center)
    assert_same(actual[:2], pair)


def test_an_unknown_prompt_confidence_leaves_the_advantage_if_it_is_needed() -> None:
    rest = torch.tensor([1.0, 1.0]), torch.full((2,), torch.nan), torch.tensor([0.2, 0.6]), ids(0, 0)
    advantages = torch.tensor([0.5, -0.5])
    assert torch.equal(arm_advantages(advantages, *rest, alpha=1.0), advantages)
    torch.testing.assert_close(arm_advantages(advantages, *rest, alpha=1.0, center="group"), torch.tensor([0.7, -0.7]))


@each_center
def test_only_the_prompt_confidence_changes_a_group_of_one(center: str) -> None:
    actual = arm_advantages(
        torch.zeros(1), torch.ones(1), torch.tensor([0.5]), torch.tensor([0.2]), ids(9), alpha=1.0, center=center
    )
    torch.testing.assert_close(actual, torch.tensor([0.3 if center == "prompt" else 0.0]))


@each_center
def test_arm_on_an_empty_batch(center: str) -> None:
    empty = [torch.empty(0) for _ in range(4)]
    assert arm_advantages(*empty, torch.empty(0, dtype=torch.long), alpha=1.0, center=center).shape == (0,)


@each_center
def test_arm_has_the_dtype_of_the_advantages(center: str) -> None:
    confidences = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
    for dtype in (torch.bfloat16, torch.float64):
        actual = arm_advantages(
            torch.zeros(2, dtype=dtype), torch.ones(2), *confidences, ids(0, 0), alpha=1.0, center=center
        )
        assert actual.dtype == dtype
        assert actual.tolist() == [0.25, -0.25]


def call_arm(**changed: Any) -> Tensor:
    arguments: dict[str, Any] = {
        "advantages_B": torch.zeros(2),
        "rewards_B": torch.ones(2),
        "prompt_confidence_B": torch.full((2,), 0.5),
        "answer_confidence_B": torch.full((2,), 0.5),
        "groups_B": ids(0, 0),
        "alpha": 1.0,
    }
    return arm_advantages(**(arguments | changed))


@pytest.mark.parametrize("name", ["rewards_B", "prompt_confidence_B", "answer_confidence_B", "groups_B"])
def test_arguments_of_arm_that_do_not_match_the_advantages_are_refused_by_name(name: str) -> None:
    value = ids(0, 0) if name == "groups_B" else torch.full((2,), 0.5)
    with pytest.raises(ValueError, match=rf"{name} must have the shape of advantages_B, \(2,\), got \(1,\)"):
        call_arm(**{name: value[:1]})
    with pytest.raises(ValueError, match=rf"{name} must have the shape of advantages_B, \(2,\), got \(2, 1\)"):
        call_arm(**{name: value[:, None]})
    with pytest.raises(ValueError, match=f"{name} is on meta but advantages_B is on cpu; move one"):
        call_arm(**{name: value.to("meta")})
    with pytest.raises(TypeError, match=rf"{name} must be a torch.Tensor of shape \(B,\), got list"):
        call_arm(**{name: value.tolist()})


def test_a_confidence_may_be_0_or_1() -> None:
    advantages, groups = torch.tensor([1.0, -1.0]), torch.tensor([0, 0])
    moved = arm_advantages(
        advantages, torch.tensor([1.0, 0.0]), torch.ones(2), torch.tensor([0.0, 1.0]), groups, alpha=0.5
    )
    assert moved.tolist() == [1.5, -1.0]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"groups_B": torch.zeros(2)}, TypeError, "groups_B must hold integer group ids, got torch.float32"),
        (
            {"rewards_B": torch.tensor([1.0, torch.inf])},
            ValueError,
            r"rewards_B must not be infinite, got inf at \[1\]",
        ),
        (
            {"advantages_B": torch.tensor([1.0, torch.nan])},
            ValueError,
            "advantages_B must be finite, .* has advantage 0",
        ),
        ({"advantages_B": torch.tensor([torch.inf, 0.0])}, ValueError, "advantages_B must be finite"),
        (
            {"answer_confidence_B": torch.tensor([0.5, -1.5])},
            ValueError,
            r"answer_confidence_B must lie in \[0, 1\] .*, got -1.5 at \[1\]; pass probabilities, not log-probs",
        ),
        (
            {"prompt_confidence_B": torch.tensor([1.25, 0.5])},
            ValueError,
            r"prompt_confidence_B must lie .* 1.25 at \[0\]",
        ),
        ({"alpha": -0.1}, ValueError, r"alpha must be a number in \[0.0, inf\), got -0.1"),
        ({"alpha": math.nan}, ValueError, "alpha must be a number .* got nan"),
        ({"alpha": True}, ValueError, "alpha must be a number .* got True"),
        ({"alpha": None}, ValueError, "alpha must be a number .* got None"),
        ({"correct_above": math.nan}, ValueError, r"correct_above must be a number in \(-inf, inf\), got nan"),
        ({"correct_above": -math.inf}, ValueError, "correct_above must be a number .* got -inf"),
        ({"correct_above": None}, ValueError, "correct_above must be a number .* got None"),
        ({"activation": "all"}, ValueError, "activation must be one of 'any_correct', 'mixed', got 'all'"),
        ({"center": "mean"}, ValueError, "center must be one of 'prompt', 'group', 'correct', got 'mean'"),
    ],
)
def test_values_that_arm_cannot_use_are_refused_by_name(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call_arm(**changed)
