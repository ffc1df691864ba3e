"""The rating against closed forms, a plain re-implementation, and contests among players of known strength."""

import json
import math
import re
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from tests.evaluation.codeforces_contests import Answer, contest, keep, keep_two

from progrpo.common.errors import ConfigError
from progrpo.evaluation.codeforces import contest_of, percentile_of, rate, rate_from_folder, rating_at_rank
from progrpo.evaluation.standings import Standings, load_standings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return keep_two(tmp_path)


# -- The rating at a rank ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rating", "beaten_by"), [(1500, 50), (1500, 1), (2100, 99), (800, 37)])
def test_among_equals_the_rating_has_a_closed_form(rating: int, beaten_by: int) -> None:
    # 1 + n / (1 + 10^((R - r) / 400)) = 1 + a. The bound is 100 above r.
    n = 100
    expected = rating + 400 * math.log10(n / beaten_by - 1)
    actual = rating_at_rank(1 + beaten_by, np.full(n, float(rating)))
    assert actual == pytest.approx(min(max(expected, 0), rating + 100), abs=1e-4)


@pytest.mark.parametrize("rank", [2, 3, 10, 100.5, 200, 299])
def test_the_bisection_finds_the_root(rank: float) -> None:
    ratings = np.random.default_rng(0).normal(1500, 400, 300).clip(0)

    def off(rating: float) -> float:
        return 1 + sum(1 / (1 + 10 ** ((rating - other) / 400)) for other in ratings) - rank

    highest = max(ratings) + 100
    root = 0.0 if off(0) < 0 else highest if off(highest) > 0 else brentq(off, 0, highest)
    assert rating_at_rank(rank, ratings) == pytest.approx(root, abs=1e-4)


def test_the_rating_stays_within_its_bounds() -> None:
    ratings = np.array([1200.0, 1500.0, 1800.0])
    assert rating_at_rank(1, ratings) == pytest.approx(1900, abs=1e-4)
    assert rating_at_rank(4, ratings) == pytest.approx(0, abs=1e-4)


# -- A contest ---------------------------------------------------------------------------------------------------------


def plain_rating(standings: Answer, changes: Answer, first_right: dict[str, int | None]) -> float:
    """A plain rating of one set of submissions; ``first_right`` has the number of wrong ones before each right one."""
    before = {change["handle"]: change["oldRating"] for change in changes["result"]}
    rows = [r for r in standings["result"]["rows"] if r["party"]["members"][0]["handle"] in before]
    score, penalty = 0.0, 0
    for problem in standings["result"]["problems"]:
        wrong = first_right.get(f"{problem['contestId']}{problem['index']}")
        if wrong is not None and "points" in problem:
            score += max(0, problem["points"] - 50 * wrong)
        elif wrong is not None:
            score, penalty = score + 1, penalty + 10 * wrong
    rank = 1
    for row in rows:
        if row["points"] > score or (row["points"] == score and row["penalty"] <= penalty):
            rank += 1
    others = [before[r["party"]["members"][0]["handle"]] for r in rows]
    for rating in range(max(others) + 100, -1, -1):
        if 1 + sum(1 / (1 + 10 ** ((rating - other) / 400)) for other in others) >= rank:
            return rating
    return 0.0


@pytest.mark.parametrize("number", [1971, 1972])
def test_one_sample_of_each_problem_is_rated_as_it_would_be_by_hand(folder: Path, number: int) -> None:
    answers = contest(1971) if number == 1971 else contest(1972, with_points=False, seed=1)
    standings = load_standings(folder, [number])
    for solved in ("", "A", "AB", "ACE", "ABCDE"):
        results = {f"{number}{letter}": (1, int(letter in solved)) for letter in "ABCDE"}
        expected = plain_rating(*answers, {f"{number}{letter}": 0 for letter in solved})
        # The plain rating is in whole points.
        assert expected <= rate(results, standings).rating + 1e-3
        assert rate(results, standings).rating < expected + 1.001


@pytest.mark.parametrize("number", [1971, 1972])
@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_the_rating_is_the_mean_over_all_orders_of_the_samples(folder: Path, number: int, attempts: int) -> None:
    answers = contest(1971) if number == 1971 else contest(1972, with_points=False, seed=1)
    counts = {f"{number}A": (3, 2), f"{number}B": (4, 1), f"{number}D": (3, 0)}
    orders = [
        [order[:attempts] for order in permutations([True] * right + [False] * (n - right))]
        for n, right in counts.values()
    ]
    ratings: list[float] = []
    known: dict[tuple[int | None, ...], float] = {}
    for submissions in product(*orders):
        first = tuple(next((i for i, right in enumerate(tried) if right), None) for tried in submissions)
        if first not in known:
            known[first] = plain_rating(*answers, dict(zip(counts, first, strict=True)))
        ratings.append(known[first])
    rating = rate(counts, load_standings(folder, [number]), attempts=attempts).rating
    # The plain ratings are whole points, each up to one too low.
    assert np.mean(ratings) - 1e-3 <= rating < np.mean(ratings) + 1.001


def test_more_solved_problems_and_more_right_samples_are_rated_higher(folder: Path) -> None:
    standings = load_standings(folder, [1971, 1972])
    ratings = [
        rate({f"{number}{letter}": (8, right) for number in (1971, 1972) for letter in "ABCDE"}, standings).rating
        for right in range(9)
    ]
    assert ratings == sorted(ratings)
    assert ratings[-1] > ratings[0] + 500


def test_more_samples_with_the_same_share_do_not_change_the_rating(folder: Path) -> None:
    standings = load_standings(folder, [1971])
    few = rate({"1971A": (4, 3), "1971B": (4, 1)}, standings).rating
    assert rate({"1971A": (64, 48), "1971B": (64, 16)}, standings).rating == pytest.approx(few, abs=1e-6)


def test_more_attempts_help_if_a_wrong_one_costs_less_than_a_problem(folder: Path) -> None:
    standings = load_standings(folder, [1971])
    results = {"1971A": (8, 4), "1971B": (8, 2), "1971C": (8, 1)}
    assert rate(results, standings, attempts=4).rating > rate(results, standings).rating


def performances(ratings: NDArray[np.float64], contests: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Elo's model: with Gumbel noise, i is before j with chance 1 / (1 + 10^((r_j - r_i) / 400))."""
    return ratings + rng.gumbel(0, 400 / math.log(10), (contests, len(ratings)))


@pytest.mark.parametrize("strength", [1000.0, 1600.0, 2100.0])
def test_the_rating_at_the_mean_rank_is_the_players_strength(strength: float) -> None:
    rng = np.random.default_rng(0)
    others = rng.normal(1500, 400, 300).clip(0)
    played = performances(np.append(others, strength), 4000, rng)
    ranks = 1 + (played[:, :-1] > played[:, -1:]).sum(axis=1)
    # The mean rank is known to some 1 or 2 places, which is less than 10 points of rating.
    assert rating_at_rank(float(ranks.mean()), others) == pytest.approx(strength, abs=15)


@pytest.mark.parametrize("strength", [1000.0, 1600.0, 2100.0])
def test_a_player_with_real_results_is_rated_near_their_strength(strength: float) -> None:
    rng = np.random.default_rng(0)
    standings, results = {}, {}
    for number in range(1, 81):
        others = rng.normal(1500, 400, 500).clip(0)
        scores = performances(np.append(others, strength), 1, rng)[0]
        scores -= scores.min() - 1
        # The player solves the one problem, which is worth their score.
        standings[number] = Standings(number, {f"{number}A": scores[-1]}, scores[:-1], np.zeros(500), others)
        results[f"{number}A"] = (1, 1)
    rated = rate(results, standings)
    # The rating of one contest is off by some 250, so their mean is off by less than 4 * 250 / sqrt(80) = 112. The
    # bounds and the curvature of the expected rank add to that.
    assert rated.rating == pytest.approx(strength, abs=150)
    assert np.std([contest.rating for contest in rated.contests]) > 150


# -- What the rating says ----------------------------------------------------------------------------------------------


def test_the_rating_lists_its_contests(folder: Path) -> None:
    keep(folder, 1973, *contest(1973, participants=150))
    standings = load_standings(folder, [1971, 1972, 1973])
    results = {"1971A": (2, 1), "1971C": (2, 0), "1972B": (2, 2), "1973A": (2, 2)}
    rated = rate(results, standings, human_ratings={1000: 1, 1400: 2, 2800: 1})
    assert [(c.contest, c.participants, c.problems) for c in rated.contests] == [(1971, 300, 2), (1972, 300, 1)]
    assert rated.contests[0].not_asked == ["1971B", "1971D", "1971E"]
    assert rated.skipped == [1973]
    assert rated.rating == pytest.approx(np.mean([c.rating for c in rated.contests]), abs=1e-9)
    assert rated.percentile in (0.0, 25.0, 75.0)
    assert str(rated) == f"about {rated.rating:.0f}, above {rated.percentile:.1f} % of rated humans (2 contests, " + (
        "attempts: 1)"
    )
    assert rate(results, standings).percentile is None
    assert "rated humans" not in str(rate(results, standings))


def test_participants_without_a_rating_are_left_out(folder: Path) -> None:
    standings, changes = contest(1974)
    stranger = {"party": {"members": [{"handle": "stranger"}]}, "points": 1e6, "penalty": 0}
    standings["result"]["rows"].insert(0, stranger)
    keep(folder, 1974, standings, changes)
    assert len(load_standings(folder, [1974])[1974].scores_P) == 300


@pytest.mark.parametrize(("problem", "number"), [("1971A", 1971), ("1972D1", 1972), ("2F", 2)])
def test_a_problem_id_names_its_contest(problem: str, number: int) -> None:
    assert contest_of(problem) == number


@pytest.mark.parametrize("problem", ["A", "1971", "1971a", "1971 A", "", "abc/1971A"])
def test_a_wrong_problem_id_is_refused(problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"the problem id {problem!r} must be a contest's number and a")):
        contest_of(problem)


def test_the_percentile_is_the_share_of_humans_below() -> None:
    humans = {800: 2, 1200: 5, 1600: 3}
    assert [percentile_of(r, humans) for r in (0, 800, 801, 1200.5, 5000)] == [0.0, 0.0, 20.0, 70.0, 100.0]


@pytest.mark.parametrize(
    ("results", "attempts", "message"),
    [
        ({"1971A": (2, 1), "1999A": (2, 1), "1998A": (2, 1)}, 1, "standings lack the contests 1998, 1999, of which"),
        ({"1971Z": (2, 1)}, 1, "the results have 1971Z, which is not a problem of contest 1971: 1971A, 1971B"),
        ({"1971A": (2, 3)}, 1, "the results of 1971A have 3 right samples of 2"),
        ({"1971A": (2, 1)}, 3, "attempts is 3, but 1971A has only 2 samples; take at least as many of each"),
        ({"1971A": (2, 1)}, 0, "attempts must be at least 1, got 0"),
        ({}, 1, "no contest of the results (none) has more than 200 rated participants"),
    ],
)
def test_results_that_cannot_be_rated_are_refused(
    folder: Path, results: dict[str, tuple[int, int]], attempts: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        rate(results, load_standings(folder, [1971, 1972]), attempts=attempts)


def test_a_problem_without_a_judged_sample_counts_as_unsolved(folder: Path) -> None:
    """The verifier failed on all its samples. The rating says that it counts as unsolved."""
    standings = load_standings(folder, [1971])
    rated = rate({"1971A": (8, 8), "1971B": (0, 0), "1971C": (7, 3)}, standings)
    assert rated.rating == rate({"1971A": (8, 8), "1971B": (8, 0), "1971C": (7, 3)}, standings).rating
    assert rated.not_judged == ["1971B"]
    assert "without a judged sample, and so unsolved: 1971B)" in str(rated)


def test_contests_with_only_few_participants_are_refused(tmp_path: Path) -> None:
    keep(tmp_path, 1, *contest(1, participants=200))
    with pytest.raises(ConfigError, match=r"no contest of the results \(1\) has more than 200 rated participants"):
        rate({"1A": (1, 1)}, load_standings(tmp_path, [1]))


def test_an_evaluation_is_rated_from_one_folder(folder: Path, tmp_path: Path) -> None:
    ids = ["1971A", "1971B", "1971C"]
    counts = [(8, 8), (8, 3), (8, 0)]
    wanted = rate(dict(zip(ids, counts, strict=True)), load_standings(folder, [1971]))
    with_ids = [{"source_id": problem} for problem in ids]
    assert rate_from_folder(with_ids, counts, folder) == wanted
    # Rows without ids are identified by their place.
    (folder / "problems.json").write_text(json.dumps(ids))
    (folder / "ratings.json").write_text(json.dumps({"0": 1, "4000": 1}))
    rated = rate_from_folder([{}] * 3, counts, folder)
    assert (rated.rating, rated.percentile) == (wanted.rating, 50.0)
    with pytest.raises(ConfigError, match=r"must be a list of the ids of all 2 problems"):
        rate_from_folder([{}] * 2, counts[:2], folder)
    with pytest.raises(ConfigError, match=r"problems.json can't be read as JSON"):
        rate_from_folder([{}], counts[:1], tmp_path / "empty")
