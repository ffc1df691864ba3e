"""The rating against closed forms, a plain re-implementation, and contests among players of known strength."""

import json
import math
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from tests.verify.shared_data import shared_file, shared_rows

from progrpo.common.errors import ConfigError
from progrpo.evaluation.codeforces import (
    Standings,
    contest_of,
    download_standings,
    load_standings,
    percentile_of,
    rate,
    rate_from_folder,
    rating_at_rank,
    read_human_ratings,
)

Answer = dict[str, Any]


def contest(
    number: int = 1971, *, participants: int = 300, problems: int = 5, with_points: bool = True, seed: int = 0
) -> tuple[Answer, Answer]:
    """A contest as the API answers it: stronger participants solve more; some have wrong attempts and use time."""
    rng = np.random.default_rng(seed)
    ratings = rng.normal(1400, 350, participants).round().clip(0)
    difficulties = np.linspace(900, 2400, problems)
    solved = rng.random((participants, problems)) < 1 / (1 + 10 ** ((difficulties - ratings[:, None]) / 400))
    worth = 500.0 * (1 + np.arange(problems))
    late = rng.uniform(0, 0.5, solved.shape)
    rows: list[Answer] = []
    for i in range(participants):
        points = (worth * (1 - late[i]) * solved[i]).round().sum() if with_points else float(solved[i].sum())
        penalty = 0 if with_points else int((1 + 120 * late[i] * solved[i]).sum() * solved[i].any())
        rows.append(
            {"party": {"members": [{"handle": f"player{i}"}]}, "points": float(points), "penalty": penalty, "rank": 0}
        )
    rows.sort(key=lambda row: (-row["points"], row["penalty"]))
    letters = [
        {"contestId": number, "index": "ABCDEFGH"[i]} | ({"points": worth[i]} if with_points else {})
        for i in range(problems)
    ]
    changes = [{"handle": f"player{i}", "oldRating": int(r), "newRating": 0} for i, r in enumerate(ratings)]
    standings = {"status": "OK", "result": {"contest": {"id": number}, "problems": letters, "rows": rows}}
    return standings, {"status": "OK", "result": changes}


def keep(folder: Path, number: int, standings: Answer, changes: Answer) -> None:
    for kind, answer in (("standings", standings), ("rating_changes", changes)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / f"{number}.json").write_text(json.dumps(answer))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One contest with points, and one without."""
    keep(tmp_path, 1971, *contest(1971))
    keep(tmp_path, 1972, *contest(1972, with_points=False, seed=1))
    return tmp_path


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
    """A plain rating of one set of submissions; ``first_right`` says how many wrong ones came before each right one."""
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
        ({"1971A": (2, 1), "1999A": (2, 1), "1998A": (2, 1)}, 1, "the standings lack the contests 1998, 1999, which"),
        ({"1971Z": (2, 1)}, 1, "the results have 1971Z, which is no problem of contest 1971: 1971A, 1971B"),
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


def test_contests_with_few_participants_alone_are_refused(tmp_path: Path) -> None:
    keep(tmp_path, 1, *contest(1, participants=200))
    with pytest.raises(ConfigError, match=r"no contest of the results \(1\) has more than 200 rated participants"):
        rate({"1A": (1, 1)}, load_standings(tmp_path, [1]))


# -- Files -------------------------------------------------------------------------------------------------------------


def test_missing_standings_are_named_with_what_to_do(folder: Path) -> None:
    (folder / "rating_changes" / "1972.json").unlink()
    with pytest.raises(ConfigError, match=r"lacks the contests 1972, 1980: download them") as refused:
        load_standings(folder, [1971, 1972, 1980])
    assert "contest.ratingChanges?contestId=1972" in str(refused.value)
    with pytest.raises(ConfigError, match="2009 and 30 more"):
        load_standings(folder, range(2000, 2040))


@pytest.mark.parametrize("kind", ["standings", "rating_changes"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"result": [1]}', '{"result": {"rows": [{}], "problems": []}}'])
def test_the_error_names_a_file_that_is_not_an_answer(folder: Path, kind: str, text: str) -> None:
    (folder / kind / "1971.json").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(folder / kind / "1971.json"))):
        load_standings(folder, [1971])


def test_the_ratings_of_humans_are_read(tmp_path: Path) -> None:
    path = tmp_path / "ratings.json"
    path.write_text('{"-3": 1, "800": 0, "1200": 5}')
    assert read_human_ratings(path) == {-3: 1, 800: 0, 1200: 5}


@pytest.mark.parametrize("text", ["", "[1, 2]", "{}", '{"a": 1}', '{"1200": "many"}', '{"1200": 0}', '{"1200": -1}'])
def test_wrong_ratings_of_humans_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ratings.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read_human_ratings(path)


def test_the_ratings_of_2024_and_the_problems_of_deepcoder_are_read() -> None:
    humans = read_human_ratings(shared_file("codeforces_ratings_2024.jsonl"))
    # The bounds of Codeforces' titles: about half are newbies and pupils, few are grandmasters.
    assert 40 < percentile_of(1200, humans) < percentile_of(1600, humans) < 99 < percentile_of(2400, humans) < 100
    (problems,) = shared_rows("codeforces_metadata.jsonl")
    contests = {contest_of(problem) for problem in problems["data"]}
    assert (len(problems["data"]), min(contests)) == (408, 1971)


# -- Download ----------------------------------------------------------------------------------------------------------


class Api:
    """A server that answers as Codeforces' API does."""

    def __init__(self, contests: dict[int, tuple[Answer, Answer]]) -> None:
        self.asked: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.asked.append(self.path)
                match = re.fullmatch(r"/api/contest\.(standings|ratingChanges)\?contestId=(\d+)(&.*)?", self.path)
                answers = contests.get(int(match[2])) if match else None
                answer = answers and answers[0 if match and match[1] == "standings" else 1]
                if answer is None:
                    answer = {"status": "FAILED", "comment": "contestId: Contest not found"}
                self.send_response(400 if answer["status"] == "FAILED" and "refused" not in answer else 200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/api"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def api() -> Iterator[Api]:
    refused = {"status": "FAILED", "comment": "Call limit exceeded", "refused": True}
    server = Api({1971: contest(1971), 1972: contest(1972, with_points=False, seed=1), 1975: (refused, refused)})
    yield server
    server.close()


def test_missing_files_are_downloaded_once_and_can_be_rated(api: Api, tmp_path: Path) -> None:
    assert download_standings([1972, 1971], tmp_path, api=api.url, pause_seconds=0) == [1971, 1972]
    assert api.asked == [
        f"/api/contest.{question}"
        for number in (1971, 1972)
        for question in (f"standings?contestId={number}&showUnofficial=false", f"ratingChanges?contestId={number}")
    ]
    results = {"1971A": (1, 1), "1972A": (1, 1)}
    rating = rate(results, load_standings(tmp_path, [1971, 1972])).rating
    assert 0 < rating < 3000
    assert download_standings([1971, 1972], tmp_path, api=api.url) == []
    (tmp_path / "rating_changes" / "1971.json").unlink()
    assert download_standings([1971, 1972], tmp_path, api=api.url) == [1971]
    assert len(api.asked) == 5


def test_a_refusal_of_the_api_is_reported_and_earlier_files_are_kept(api: Api, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"contestId=1999.* answered 400 contestId: Contest not found"):
        download_standings([1971, 1999], tmp_path, api=api.url, pause_seconds=0)
    assert list(load_standings(tmp_path, [1971])) == [1971]
    with pytest.raises(ConfigError, match=r"contestId=1975.* answered Call limit exceeded"):
        download_standings([1975], tmp_path, api=api.url)
    assert not (tmp_path / "standings" / "1975.json").exists()


def test_an_api_that_is_not_there_is_reported(api: Api, tmp_path: Path) -> None:
    api.close()
    with pytest.raises(ConfigError, match=r"contestId=1971.* can't be downloaded .*; fetch it where the network"):
        download_standings([1971], tmp_path, api=api.url)
    assert list(tmp_path.rglob("*.*")) == []


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
