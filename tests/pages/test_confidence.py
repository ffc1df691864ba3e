"""Confidence and correctness: the figures add up, and the sentences claim no more than the intervals show."""

import numpy as np
import pandas as pd
import pytest

from progrpo.evaluation.intervals import Estimate
from progrpo.pages.collect import collect
from progrpo.pages.confidence import (
    problems_figure,
    rows_by_group,
    sentences,
    separations,
    share_right_figure,
    spread_figure,
    tenths,
)
from progrpo.pages.problems import read_responses


def test_tenths_are_pandas_quantiles_with_intervals_around_them():
    rng = np.random.default_rng(1)
    scores = rng.random(1000)
    right = rng.random(1000) < scores
    rows = pd.DataFrame(
        {"answer_confidence": scores, "right": right, "problem_id": rng.integers(0, 50, 1000).astype(str)}
    )
    mean, share, low, high = tenths(rows)
    expected = rows.groupby(pd.qcut(rows["answer_confidence"], 10), observed=True)
    assert mean == pytest.approx(expected["answer_confidence"].mean().to_numpy())
    assert share == pytest.approx(expected["right"].mean().to_numpy())
    assert np.all((low <= share) & (share <= high))
    # About 100 responses each: an interval of some 0.19 in the middle.
    assert 0.1 < high[5] - low[5] < 0.3


def test_equal_scores_stay_together():
    rows = pd.DataFrame(
        {"answer_confidence": [1.0] * 90 + [0.5] * 10, "right": [True] * 100, "problem_id": ["a"] * 100}
    )
    mean, share, _, _ = tenths(rows)
    assert list(mean) == [0.5, 1.0]
    assert list(share) == [1.0, 1.0]


def test_the_spread_has_all_responses_right_ones_upwards_and_wrong_ones_downwards(make_run):
    methods = collect([make_run("grpo"), make_run("progrpo")])
    by_group = rows_by_group(methods, read_responses(methods))
    spread = spread_figure(by_group)["data"]
    assert [trace["name"] for trace in spread] == ["GRPO, right", "GRPO, wrong", "ProGRPO, right", "ProGRPO, wrong"]
    share_right = sum([0, 2, 4, 6, 8, 3]) / 48
    assert [sum(trace["y"]) for trace in spread[:2]] == pytest.approx([share_right, share_right - 1], abs=1e-3)
    points = problems_figure(by_group)["data"][0]
    assert points["y"] == [0.0, 0.25, 0.5, 0.75, 1.0, 0.375]


def test_confident_responses_are_right_in_these_runs(make_run):
    methods = collect([make_run("grpo")])
    (row,) = separations(rows_by_group(methods, read_responses(methods)))
    # In each problem the right samples are the more confident ones; two of six have no pair.
    assert (row["within"].mean, row["mixed"]) == (1.0, 4)
    assert row["right"] > row["wrong"]
    assert "GRPO 100 % [100 %, 100 %], on the 4 problems that have both" in " ".join(sentences([row]))


@pytest.mark.parametrize(
    ("within", "words"),
    [
        (Estimate(0.6, 0.55, 0.65), "For GRPO, confidence goes with being right."),
        (Estimate(0.4, 0.35, 0.45), "For GRPO, the more confident response is more often wrong."),
        (Estimate(0.6, 0.49, 0.7), "For GRPO, the interval contains 50 %: no clear connection."),
    ],
)
def test_the_sentence_follows_the_interval(within, words):
    assert sentences([{"title": "GRPO", "within": within, "mixed": 9}])[-1] == words


def test_without_samples_there_are_no_figures(make_run):
    methods = collect([make_run("grpo", samples=False)])
    by_group = rows_by_group(methods, read_responses(methods))
    assert {draw(by_group) for draw in (share_right_figure, spread_figure, problems_figure)} == {None}
    assert separations(by_group) == []
