import dataclasses

import pytest

from progrpo.verify import Status, Verdict


@pytest.mark.parametrize(
    ("status", "correct", "reward"), [("correct", True, 1.0), ("incorrect", False, 0.0), ("error", False, None)]
)
def test_reward_and_correctness_follow_from_the_status(status: Status, correct: bool, reward: float | None) -> None:
    verdict = Verdict(status, "why")
    assert verdict.correct is correct
    assert verdict.reward == reward
    assert verdict.canonical is None


def test_a_verdict_is_frozen_and_equals_an_equal_one() -> None:
    verdict = Verdict("correct", canonical="3*4")
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict.status = "incorrect"  # type: ignore[misc]
    assert verdict == Verdict("correct", "", "3*4") != Verdict("correct", "", "4*3")
    assert len({verdict, Verdict("correct", canonical="3*4")}) == 1
