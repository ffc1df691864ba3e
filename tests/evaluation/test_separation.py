"""The area under the ROC curve: by hand, against scipy's U statistic, and its interval by a plain loop."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from progrpo.evaluation.separation import auroc, auroc_within_problems, pooled_auroc


def some(seed: int, size: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    right = rng.random(size) < 0.4
    scores = np.round(rng.random(size) + 0.3 * right, 1)  # rounded: ties
    return scores, right, rng.integers(0, 20, size)


def test_auroc_worked_by_hand():
    assert auroc([0.1, 0.2, 0.3, 0.4], [False, True, False, True]) == 0.75
    assert auroc([0.5, 0.5], [True, False]) == 0.5
    assert math.isnan(auroc([0.5, 0.6], [True, True]))
    assert math.isnan(auroc([], []))


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_the_u_statistic_over_the_pairs(seed):
    scores, right, _ = some(seed)
    expected = mannwhitneyu(scores[right], scores[~right]).statistic / (right.sum() * (~right).sum())
    assert auroc(scores, right) == pytest.approx(expected, abs=1e-12)


def test_negated_scores_and_monotone_changes():
    scores, right, problems = some(7)
    assert auroc(-scores, right) == pytest.approx(1 - auroc(scores, right))
    assert auroc(np.exp(scores), right) == auroc(scores, right)
    shuffled = np.random.default_rng(0).permutation(len(scores))
    within = auroc_within_problems(scores[shuffled], right[shuffled], problems[shuffled])
    assert within == auroc_within_problems(scores, right, problems)


def test_the_interval_draws_whole_problems():
    scores, right, problems = some(3)
    interval = pooled_auroc(scores, right, problems, resamples=200)
    rng = np.random.default_rng(0)
    areas = []
    for counts in rng.multinomial(20, np.full(20, 1 / 20), size=200):
        rows = np.concatenate([np.flatnonzero(problems == p) for p, times in enumerate(counts) for _ in range(times)])
        areas.append(auroc(scores[rows], right[rows]))
    assert [interval.low, interval.high] == pytest.approx(list(np.percentile(areas, [2.5, 97.5])))


def test_within_problems_difficulty_does_not_matter():
    # All responses to the easy problem are more confident than those to the hard one. Within each, scores are equal.
    scores = [0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.5]
    right = [True, True, False, True, False, False, True]
    problems = ["easy"] * 3 + ["hard"] * 3 + ["all right"]
    within, rests_on = auroc_within_problems(scores, right, problems)
    assert (within.mean, rests_on) == (0.5, 2)
    assert auroc(scores, right) > 0.5


def test_responses_of_different_runs_are_not_compared():
    scores, right, problems = (
        [0.9, 0.1, 0.2, 0.8, 0.5, 0.4],
        [True, False, True, False, True, False],
        ["a"] * 4 + ["b"] * 2,
    )
    runs = [0, 0, 1, 1, 0, 0]
    within, rests_on = auroc_within_problems(scores, right, problems, runs)
    assert (within.mean, rests_on) == (0.75, 2)  # a: 1 and 0, averaged; b: 1


def test_without_a_pair_there_is_no_area():
    assert pooled_auroc([0.1, 0.2], [True, True], ["a", "b"]) is None
    assert auroc_within_problems([0.1, 0.2], [True, False], ["a", "b"]) is None
    assert auroc_within_problems([], [], []) is None


def test_wrong_scores_are_refused():
    with pytest.raises(ValueError, match="must be vectors of the same length"):
        auroc([0.1], [True, False])
    with pytest.raises(ValueError, match="must be finite"):
        auroc([math.nan, 0.1], [True, False])
