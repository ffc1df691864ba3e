"""Measures of collapse match plain loops, and warnings appear exactly when the numbers call for them."""

import math
from collections import Counter, defaultdict
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from tests.inspection.rollouts import NAMED, random_rows, write_jsonl

from progrpo.inspection import Options, inspect
from progrpo.inspection.collapse import LEAST_GROUPS, Collapse, collapse, measure, warnings
from progrpo.inspection.table import FRACTIONS, Table


def make_table(rows: list[tuple[int, int, float, str, str]], **more: list[float]) -> Table:
    """Step, group, reward, text and answer of each response."""
    steps, groups, rewards, texts, answers = zip(*rows, strict=True)
    n = len(rows)
    floats = {"lengths_B": [10.0] * n, "entropy_B": [math.nan] * n, "c_o_B": [math.nan] * n} | more
    return Table(
        np.array(steps),
        np.array(groups),
        np.array(rewards, dtype=np.float64),
        np.array(rewards, dtype=np.float64),
        np.array([hash(text) for text in texts]),
        np.array([hash(answer) for answer in answers]),
        np.array(floats["lengths_B"]),
        np.array(floats["entropy_B"]),
        np.full(n, np.nan, dtype=np.float32),
        np.tile(np.array(floats["c_o_B"], dtype=np.float32), (len(FRACTIONS), 1)),
        FRACTIONS,
    )


def test_measures_match_plain_loops(tmp_path):
    rows = random_rows(400)
    inspection = inspect([write_jsonl(tmp_path / "a.jsonl", rows)], Options(columns=NAMED, rewards="r"))
    table, by_step = inspection.table, inspection.collapse.by_step
    assert inspection.collapse.steps.tolist() == [1, 2, 3, 4, 5]
    for i, step in enumerate(inspection.collapse.steps):
        of_step = [(j, row) for j, row in enumerate(rows) if row["step"] == step]
        judged = [(j, row) for j, row in of_step if row["r"] is not None]
        groups = defaultdict(list)
        for _, row in of_step:
            groups[row["q"]].append(row)
        judged_groups = [g for members in groups.values() if (g := [r for r in members if r["r"] is not None])]
        answers = [Counter(r["answer"] or r["o"] for r in g) for g in judged_groups]
        solutions = [len({r["answer"] or r["o"] for r in g if r["r"] > 0}) for g in judged_groups]
        c_o = table.c_o_B(0.2)
        expected = {
            "reward": fmean(row["r"] for _, row in judged),
            "entropy": -fmean(logp for _, row in of_step for logp in row["logps"]),
            "groups/all_right": fmean(all(r["r"] > 0 for r in g) for g in judged_groups),
            "groups/all_wrong": fmean(all(r["r"] <= 0 for r in g) for g in judged_groups),
            "groups/same_reward": fmean(len({r["r"] for r in g}) == 1 for g in judged_groups),
            "groups/mixed": fmean(len({r["r"] > 0 for r in g}) == 2 for g in judged_groups),
            "distinct_answers": fmean(len(counts) for counts in answers),
            "distinct_solutions": fmean(solutions),
            "most_common_answer": fmean(max(c.values()) / c.total() for c in answers if c.total() > 1),
            "duplicates": fmean(
                0 if r["o"] not in [s["o"] for s in g[:k]] else 1 for g in groups.values() for k, r in enumerate(g)
            ),
            "length": fmean(len(row["logps"]) for _, row in of_step),
            "confidence/answer": fmean(c_o[j] for j, _ in of_step),
            "confidence/right": fmean(c_o[j] for j, row in judged if row["r"] > 0),
            "confidence/wrong": fmean(c_o[j] for j, row in judged if row["r"] <= 0),
            "confidence/prompt": fmean(table.c_q_B[j] for j, _ in of_step),
        }
        expected |= {f"pass@{k}": plain_pass_at_k(judged_groups, k) for k in (1, 2, 4, 8, 16)}
        assert {name: by_step[name][i] for name in expected} == pytest.approx(expected, rel=1e-5, nan_ok=True)
        assert set(expected) == set(by_step)


def plain_pass_at_k(groups: list[list[dict]], k: int) -> float:
    """The share of all draws of k responses with a right one among them, mean over groups that have k."""
    shares = []
    for group in groups:
        n, wrong = len(group), sum(row["r"] <= 0 for row in group)
        if n >= k:
            shares.append(1 - math.comb(wrong, k) / math.comb(n, k))
    return fmean(shares) if shares else math.nan


def test_measures_match_values_worked_by_hand():
    table = make_table(
        [
            (1, 0, 1.0, "2*6", "12"),
            (1, 0, 1.0, "2*6", "12"),
            (1, 0, 0.0, "2+6", "8"),
            (1, 0, math.nan, "2*6", "12"),
            (1, 1, 0.0, "?", "?"),
            (1, 2, math.nan, "?", "?"),
        ]
    )
    measured = {name: value.item() for name, value in measure(table, 0.2, np.zeros(6, dtype=np.int64), 1).items()}
    assert measured["reward"] == 0.5
    # Group 2 was not judged at all: it is neither right nor wrong, and counts nowhere.
    assert (measured["groups/all_right"], measured["groups/mixed"], measured["groups/all_wrong"]) == (0, 0.5, 0.5)
    assert (measured["distinct_answers"], measured["distinct_solutions"]) == (1.5, 0.5)
    assert measured["most_common_answer"] == pytest.approx(2 / 3)
    assert measured["duplicates"] == pytest.approx(2 / 6)
    assert math.isnan(measured["entropy"])
    assert math.isnan(measured["confidence/answer"])


CALM = {"reward": 0.5, "entropy": 1.0, "groups/all_right": 0.2, "groups/mixed": 0.6, "groups/all_wrong": 0.2}
CALM |= {"groups/same_reward": 0.4}
CALM |= {
    "distinct_answers": 4.0,
    "distinct_solutions": 2.0,
    "most_common_answer": 0.4,
    "duplicates": 0.1,
    "length": 50.0,
}
CALM |= {"confidence/answer": 0.4, "confidence/right": 0.5, "confidence/wrong": 0.3, "confidence/prompt": 0.2}


def collapse_with(**last: float) -> Collapse:
    """Measures without any problem, except for the given measures of the last tenth of the steps."""
    later = CALM | {name.replace("__", "/"): value for name, value in last.items()}
    return Collapse(np.arange(1, 101), {}, CALM, CALM, later, (1, 10), (91, 100), True)


def test_no_warning_where_nothing_is_wrong():
    assert warnings(collapse_with(), answers_are_final=False) == []
    better = collapse_with(
        reward=0.9, entropy=0.6, confidence__right=0.55, duplicates=0.2, most_common_answer=0.7, length=30.0
    )
    assert warnings(better, answers_are_final=False) == []


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ({"entropy": 0.49}, "Entropy fell to less than half: 1.000 nats in steps 1 to 10, 0.490 in steps 91 to 100."),
        (
            {"groups__same_reward": 0.51, "groups__all_right": 0.35, "groups__all_wrong": 0.16},
            "In steps 91 to 100, 51 % of the groups teach GRPO nothing: all their responses have the same reward, so "
            "that every advantage is 0. 35 % of the groups are all right and 16 % all wrong.",
        ),
        (
            {"duplicates": 0.3},
            "More and more responses repeat another one of their group word for word: 10 % of them in steps 1 to 10, "
            "30 % in steps 91 to 100.",
        ),
        (
            {"most_common_answer": 0.85},
            "One answer takes over: the most common in a group makes up 40 % of its responses in steps 1 to 10, 85 % "
            "in steps 91 to 100.",
        ),
        (
            {"confidence__right": 0.8, "distinct_solutions": 1.5},
            "Right answers grow more confident while they grow fewer: c(o|q) of right responses was 0.500 in steps 1 "
            "to 10 and 0.800 in steps 91 to 100, different right answers a group 2.00 and 1.50.",
        ),
        ({"length": 20.0}, "Responses shrank to less than half: 50 long in steps 1 to 10, 20 in steps 91 to 100."),
    ],
    ids=lambda value: "" if isinstance(value, str) else ", ".join(value),
)
def test_each_warning_names_its_numbers(last, message):
    assert warnings(collapse_with(**last), answers_are_final=False) == [message]
    # With too few groups there is no trend, and only the state over everything can give a warning.
    few = replace(collapse_with(**last), enough_groups=False)
    assert warnings(few, answers_are_final=False) == []


def test_no_warning_where_a_final_answer_takes_over_or_fewer_are_right():
    assert warnings(collapse_with(most_common_answer=0.95), answers_are_final=True) == []
    less_right = collapse_with(reward=0.2, confidence__right=0.8, distinct_solutions=1.0)
    assert warnings(less_right, answers_are_final=False) == []


def test_unknown_measures_give_no_warning():
    unknown = {name: math.nan for name in ("entropy", "confidence__right", "most_common_answer", "distinct_solutions")}
    assert warnings(collapse_with(**unknown), answers_are_final=False) == []


@pytest.mark.parametrize(("groups_a_step", "enough"), [(LEAST_GROUPS, True), (LEAST_GROUPS - 1, False)])
def test_a_trend_needs_enough_groups(groups_a_step, enough):
    rows = [
        (step, 100 * step + g, 1.0 * (i > 0), f"{i}", f"{i}")
        for step in (1, 2)
        for g in range(groups_a_step)
        for i in range(2)
    ]
    measured = collapse(make_table(rows, entropy_B=[1.0 if row[0] == 1 else 0.1 for row in rows]), 0.2)
    assert measured.enough_groups is enough
    assert bool(warnings(measured, answers_are_final=False)) is enough


def test_one_step_has_no_first_and_last():
    measured = collapse(make_table([(0, g, 1.0, "a", "a") for g in range(20)]), 0.2)
    assert measured.first == measured.last == {}
    assert "100 % of the groups teach GRPO nothing" in warnings(measured, answers_are_final=False)[0]


def table_of_rewards(rewards: list[list[float]]) -> Table:
    """Groups of these rewards at one step."""
    return make_table([(1, g, r, f"{i}", f"{i}") for g, group in enumerate(rewards) for i, r in enumerate(group)])


def test_groups_teach_if_rewards_differ_even_where_all_are_right():
    """With rewards from 0.1 to 1, every response counts as right, but GRPO still learns from each group."""
    measured = collapse(table_of_rewards([[0.1, 1.0, 0.4], [0.2, 0.3, 0.3]] * 10), 0.2)
    assert measured.overall["groups/all_right"] == 1
    assert measured.overall["groups/same_reward"] == 0
    assert warnings(measured, answers_are_final=False) == []
    same = collapse(table_of_rewards([[0.4, 0.4, math.nan], [0.1 + 0.2, 0.3]] * 10), 0.2)
    assert same.overall["groups/same_reward"] == 1
    assert warnings(same, answers_are_final=False)[0].startswith("100 % of the groups teach GRPO nothing")


def test_the_threshold_and_the_correct_reward_say_what_is_right():
    table = replace(table_of_rewards([[0.1, 1.0, 0.4], [0.2, 0.3, 0.3]]), correct_above=0.35)
    assert table.right_B.tolist() == [False, True, True, False, False, False]
    measured = collapse(table, 0.2).overall
    assert (measured["groups/mixed"], measured["groups/all_wrong"]) == (0.5, 0.5)
    assert measured["pass@1"] == pytest.approx(1 / 3)
    by_another = replace(table, correct_above=0.0, correct_rewards_B=np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0]))
    assert collapse(by_another, 0.2).overall["pass@1"] == pytest.approx(1 / 6)


def test_pass_at_k_of_ragged_groups_worked_by_hand():
    table = make_table(
        [(1, 0, r, "a", "a") for r in (1.0, 0.0, 0.0, 0.0, math.nan)] + [(1, 1, r, "a", "a") for r in (1.0, 0.0)]
    )
    measured = collapse(table, 0.2).overall
    assert {name: value for name, value in measured.items() if name.startswith("pass@")} == pytest.approx(
        # The unjudged response is none of the four, and the second group has no four.
        {"pass@1": (1 / 4 + 1 / 2) / 2, "pass@2": (1 / 2 + 1) / 2, "pass@4": 1.0}
    )
