"""ARM's options, and the warnings where it does not act."""

import math
import re
from collections.abc import Iterable
from dataclasses import fields

import pytest
import torch

from progrpo.common.errors import ConfigError
from progrpo.methods.arm import QUIET_STEPS, ActivationWatch, ArmOptions


def test_the_trl_adapter_takes_the_same_options() -> None:
    pytest.importorskip("trl")
    from progrpo.trl import ProGRPOConfig

    for option in fields(ArmOptions):
        adapted = ProGRPOConfig.__dataclass_fields__[option.name]
        assert (adapted.default, adapted.metadata["help"]) == (option.default, option.metadata["help"])


def test_options_are_read_by_name() -> None:
    options = {"alpha": 0, "low_prob_fraction": 1.0, "activation": "mixed", "center": "correct"}
    assert ArmOptions.from_mapping(options, where="x") == ArmOptions(0, 1.0, "mixed", "correct")
    correct = {"correct_above": -5, "correct_reward": "acc"}
    assert ArmOptions.from_mapping(correct, where="x") == ArmOptions(correct_above=-5, correct_reward="acc")
    assert ArmOptions.from_mapping({}, where="x") == ArmOptions()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"alhpa": 1.0},
            r"^algorithm\.progrpo has no option 'alhpa'; it takes alpha, .*, center, correct_above, correct_reward\.$",
        ),
        ({"alpha": -1.0}, r"^algorithm\.progrpo\.alpha must be a number in \[0\.0, inf\), got -1\.0\.$"),
        ({"alpha": "high"}, r"alpha must be a number .* got 'high'"),
        ({"alpha": None}, r"alpha must be a number .* got None"),
        ({"alpha": True}, r"alpha must be a number .* got True"),
        ({"low_prob_fraction": 0.0}, r"low_prob_fraction must be a number in \(0\.0, 1\.0\], got 0\.0"),
        ({"activation": "all"}, r"activation must be one of 'any_correct', 'mixed', got 'all'"),
        ({"correct_above": float("nan")}, r"correct_above must be a number in \(-inf, inf\), got nan"),
        ({"correct_above": "0"}, r"correct_above must be a number .* got '0'"),
        ({"correct_reward": 1}, "correct_reward must be the name of a reward, or None, got 1"),
        ({"correct_reward": ""}, "correct_reward must be the name of a reward, or None, got ''"),
        ({"center": ["group"]}, r"center must be one of 'prompt', 'group', 'correct', got \['group'\]"),
    ],
)
def test_an_invalid_option_is_refused_in_one_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ArmOptions.from_mapping(options, where="algorithm.progrpo")


def watch(options: ArmOptions, steps: Iterable[int], rewards: list[float]) -> ActivationWatch:
    watching = ActivationWatch(options)
    for step in steps:
        watching.see(step, torch.tensor(rewards), torch.tensor([0, 0, 1, 1]))
    return watching


PENALTIES = [-3.0, -4.0, -3.0, -4.0]


def test_a_run_without_an_activated_group_warns_once_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    watch(ArmOptions(), range(1, QUIET_STEPS), PENALTIES)
    assert caplog.text == ""
    watch(ArmOptions(), range(8, 8 + 5 * QUIET_STEPS), PENALTIES)
    [record] = caplog.records
    assert record.getMessage() == (
        "No group was re-weighted in steps 8 to 27, so the advantages are those of GRPO: no response's reward was "
        "above correct_above=0, the highest was -3. If some of them were right, set correct_above below what a right "
        "response gets, or correct_reward to the name of the reward that says whether a response is right."
    )


def test_graded_rewards_bring_one_warning_that_says_which_count_as_right(caplog: pytest.LogCaptureFixture) -> None:
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


def test_a_generation_for_several_steps_counts_as_that_many(caplog: pytest.LogCaptureFixture) -> None:
    watch(ArmOptions(), range(1, 22, 4), PENALTIES)
    assert "in steps 1 to 21" in caplog.text


def test_an_activated_group_resets_the_count(caplog: pytest.LogCaptureFixture) -> None:
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
def test_there_is_no_warning_if_arm_acts_or_is_off(
    options: ArmOptions, rewards: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    watch(options, range(1, 60), rewards)
    assert caplog.text == ""
