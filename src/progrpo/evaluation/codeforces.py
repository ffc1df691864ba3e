r"""An approximate Codeforces rating: where a model's solutions would have put it in the standings of past contests.

The method is CodeElo's (arXiv 2501.01257), also used for DeepCoder: in each contest, the model's rating is the R at
which a player of rating R is expected to come in at the model's rank among the human participants,

.. math:: 1 + \sum_{i} \frac{1}{1 + 10^{(R - r_i) / 400}} = \text{rank}

with :math:`r_i` the participants' ratings before the contest; its rating is the mean over contests.

What is approximate about it:

- Time does not count: a solved problem scores its full points, as if it were solved in the first minute. This favours
  the model over humans with the same problems solved.
- Wrong attempts before the right one cost 50 points, or 10 minutes of penalty where problems have no points, as in the
  reference; Codeforces itself takes no points off a problem below 30 % of its points. With one attempt there are none.
- Right means right by the tests at hand, which may be weaker than the contest's own.
- Problems of a contest that the model was not asked count as unsolved, see ``ContestRating.not_asked``.
- The rating stays between 0 and 100 above the contest's best participant, where the equation has no solution: nobody
  or everybody beaten.
- A participant's first contests: the public rating before the first is 0, and is taken as it is.

A contest's files are the answers of Codeforces' public API, kept as ``standings/1971.json`` (``contest.standings``
without unofficial participants) and ``rating_changes/1971.json`` (``contest.ratingChanges``) in one folder.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, fsum
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray

from progrpo.common.errors import ConfigError
from progrpo.common.files import write_text

API = "https://codeforces.com/api"
_QUESTIONS = {
    "standings": "contest.standings?contestId={contest}&showUnofficial=false",
    "rating_changes": "contest.ratingChanges?contestId={contest}",
}
_PAUSE_SECONDS = 2.0
"""The API allows one request in two seconds."""
_TIMEOUT_SECONDS = 120.0

FEWEST_PARTICIPANTS = 200
"""A contest must have more rated ones, as in the reference: else its ranks say little."""
_WRONG_ATTEMPT_POINTS = 50.0
_WRONG_ATTEMPT_PENALTY = 10.0
_ABOVE_THE_BEST = 100.0
_HALVINGS = 30
"""Of some 4,000 points of rating: to less than 0.00001."""
_PROBLEM_ID = re.compile(r"(\d+)([A-Z]\w*)", re.ASCII)


@dataclass(frozen=True)
class Standings:
    """A contest's problems, and what its rated participants scored. P participants."""

    contest: int
    points: dict[str, float | None]
    """Of each problem, by its id such as ``1971A``; None where each counts as one."""
    scores_P: NDArray[np.float64]
    penalties_P: NDArray[np.float64]
    """Minutes; 0 where problems have points."""
    ratings_P: NDArray[np.float64]
    """Before the contest."""


@dataclass(frozen=True)
class ContestRating:
    """What a model would be rated in one contest."""

    contest: int
    rating: float
    """Expected, over which of a problem's samples are handed in."""
    participants: int
    problems: int
    """That the model was asked."""
    not_asked: list[str]
    """The contest's other problems, which count as unsolved."""


@dataclass(frozen=True)
class CodeforcesRating:
    """An approximate rating: see this module's notes before comparing it with a human's."""

    rating: float
    """Mean over contests."""
    percentile: float | None
    """Share of rated humans below it, in per cent; None without their ratings."""
    attempts: int
    """That the model had at each problem."""
    contests: list[ContestRating]
    skipped: list[int]
    """Contests with too few rated participants, see :data:`FEWEST_PARTICIPANTS`."""
    not_judged: list[str]
    """Problems without a judged sample, for the verifier failed on all: they count as unsolved."""

    def __str__(self) -> str:
        percentile = "" if self.percentile is None else f", above {self.percentile:.1f} % of rated humans"
        lost = f"; without a judged sample, and so unsolved: {_listed(self.not_judged)}" if self.not_judged else ""
        return f"about {self.rating:.0f}{percentile} ({len(self.contests)} contests, attempts: {self.attempts}{lost})"


def rate(
    results: Mapping[str, tuple[int, int]],
    standings: Mapping[int, Standings],
    *,
    attempts: int = 1,
    human_ratings: Mapping[int, int] | None = None,
) -> CodeforcesRating:
    """A model's approximate Codeforces rating and percentile.

    Args:
        results: by problem id (``"1971A"``), how many judged samples the problem has and how many of them are right. A
            problem with none counts as unsolved, as one that was not asked does.
        standings: of each contest that a problem is of, see :func:`load_standings`.
        attempts: how many samples are handed in, until one is right. The expectation over all orders of the samples is
            worked out exactly, so that more samples make the rating less random but not higher.
        human_ratings: how many humans have each rating, see :func:`read_human_ratings`.

    Raises:
        ConfigError: standings that are missing, ids that are no problem's, a problem with fewer samples than attempts,
            or no contest with enough participants.

    Source: CodeElo (arXiv 2501.01257); what is approximate is said in this module's notes.
    """
    asked: dict[int, dict[str, tuple[int, int]]] = {}
    for problem, counts in results.items():
        asked.setdefault(contest_of(problem), {})[problem] = counts
    missing = sorted(asked.keys() - standings.keys())
    if missing:
        raise ConfigError(f"the standings lack the contests {_listed(missing)}, which the results have problems of.")
    _check(asked, standings, attempts)
    rated = [contest for contest in asked if len(standings[contest].ratings_P) > FEWEST_PARTICIPANTS]
    if not rated:
        raise ConfigError(
            f"no contest of the results ({_listed(sorted(asked)) or 'none'}) has more than {FEWEST_PARTICIPANTS} rated "
            "participants, which a rating needs; rate on other contests."
        )
    contests = [
        ContestRating(
            contest,
            _expected_rating(asked[contest], standings[contest], attempts),
            participants=len(standings[contest].ratings_P),
            problems=len(asked[contest]),
            not_asked=[problem for problem in standings[contest].points if problem not in asked[contest]],
        )
        for contest in rated
    ]
    rating = fsum(contest.rating for contest in contests) / len(contests)
    percentile = None if human_ratings is None else percentile_of(rating, human_ratings)
    not_judged = [problem for problem, (samples, _) in results.items() if not samples]
    return CodeforcesRating(rating, percentile, attempts, contests, sorted(asked.keys() - set(rated)), not_judged)


def rate_from_folder(
    problems: Sequence[Mapping[str, Any]], counts: Sequence[tuple[int, int]], folder: Path
) -> CodeforcesRating:
    """:func:`rate`, with all that it needs from one folder; what it lacks of the standings is downloaded into it.

    The folder may hold ``problems.json``, a list of the problems' ids in the order of the benchmark's rows, for rows
    without ids of their own; and ``ratings.json``, for the percentile (:func:`read_human_ratings`).

    Args:
        problems: the benchmark's; ``source_id`` of each, where there is one, is its id.
        counts: samples and right samples of each.
        folder: made if it is not there.

    Raises:
        ConfigError: ids that are missing or too few, standings that can't be had, and as :func:`rate`.
    """
    ids: Any = [problem.get("source_id") for problem in problems]
    if None in ids:
        listed = _read_json(folder / "problems.json")
        ids = listed.get("data") if isinstance(listed, dict) else listed
        if not isinstance(ids, list) or len(ids) != len(problems):
            raise ConfigError(
                f"{folder / 'problems.json'} must be a list of the ids of all {len(problems)} problems, in the order "
                "of the benchmark's rows."
            )
    results = dict(zip(map(str, ids), counts, strict=True))
    contests = {contest_of(problem) for problem in results}
    download_standings(contests, folder)
    ratings = folder / "ratings.json"
    humans = read_human_ratings(ratings) if ratings.exists() else None
    return rate(results, load_standings(folder, contests), human_ratings=humans)


def contest_of(problem: str) -> int:
    """The contest of a problem.

    Raises:
        ConfigError: the id is not a contest's number and a problem's letter.

    >>> contest_of("1972D1")
    1972
    """
    match = _PROBLEM_ID.fullmatch(problem)
    if match is None:
        raise ConfigError(
            f"the problem id {problem!r} must be a contest's number and a problem's letter in capitals, such as 1971A."
        )
    return int(match[1])


def rating_at_rank(rank: float, ratings: NDArray[np.float64]) -> float:
    r"""The rating at which a player is expected to come in at a rank among participants of these ratings.

    .. math:: 1 + \sum_i \frac{1}{1 + 10^{(R - r_i) / 400}} = \text{rank}

    Args:
        rank: 1 is the best; the last is one more than there are participants.
        ratings: shape (participants,).

    Returns:
        R by bisection, between 0 and 100 above the highest rating: the bound that is nearer where no R between them
        solves the equation.

    >>> round(rating_at_rank(51, np.full(100, 1500.0)), 3)
    1500.0
    """
    # Thousands of participants share a few hundred ratings.
    values, counts = np.unique(ratings, return_counts=True)
    low, high = 0.0, float(values[-1]) + _ABOVE_THE_BEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = 1 + counts @ (1 / (1 + 10 ** ((middle - values) / 400)))
        low, high = (middle, high) if expected >= rank else (low, middle)
    return (low + high) / 2


def percentile_of(rating: float, human_ratings: Mapping[int, int]) -> float:
    """The share of humans who are rated lower, in per cent.

    Args:
        rating: of the model.
        human_ratings: how many humans have each rating.

    >>> percentile_of(1200, {800: 3, 1200: 1, 1600: 1})
    60.0
    """
    below = sum(count for human, count in human_ratings.items() if human < rating)
    return 100 * below / sum(human_ratings.values())


def _check(asked: dict[int, dict[str, tuple[int, int]]], standings: Mapping[int, Standings], attempts: int) -> None:
    if attempts < 1:
        raise ConfigError(f"attempts must be at least 1, got {attempts}.")
    for contest, problems in asked.items():
        for problem, (samples, correct) in problems.items():
            if problem not in standings[contest].points:
                known = ", ".join(standings[contest].points)
                raise ConfigError(f"the results have {problem}, which is no problem of contest {contest}: {known}.")
            if not 0 <= correct <= samples:
                raise ConfigError(f"the results of {problem} have {correct} right samples of {samples}.")
            if 0 < samples < attempts:
                raise ConfigError(
                    f"attempts is {attempts}, but {problem} has only {samples} samples; take at least as many of each."
                )


def _expected_rating(problems: dict[str, tuple[int, int]], standings: Standings, attempts: int) -> float:
    chances: dict[tuple[float, float], float] = {(0.0, 0.0): 1.0}
    """Of each score with its penalty: of all problems so far, which are solved or not independently of each other."""
    judged = {problem: counts for problem, counts in problems.items() if counts[0]}
    for problem, (samples, correct) in judged.items():
        points = standings.points[problem]
        after: dict[tuple[float, float], float] = {}
        for wrong, chance in enumerate(_wrong_attempts(samples, correct, attempts)):
            if wrong == attempts:
                gain, penalty = 0.0, 0.0
            elif points is None:
                gain, penalty = 1.0, _WRONG_ATTEMPT_PENALTY * wrong
            else:
                gain, penalty = max(0.0, points - _WRONG_ATTEMPT_POINTS * wrong), 0.0
            for (score, minutes), so_far in chances.items():
                state = (score + gain, minutes + penalty)
                after[state] = after.get(state, 0.0) + so_far * chance
        chances = {state: chance for state, chance in after.items() if chance}
    of_rank: dict[int, float] = {}
    for (score, minutes), chance in chances.items():
        rank = _rank(standings, score, minutes)
        of_rank[rank] = of_rank.get(rank, 0.0) + chance
    return fsum(chance * rating_at_rank(rank, standings.ratings_P) for rank, chance in of_rank.items())


def _wrong_attempts(samples: int, correct: int, attempts: int) -> list[float]:
    """The chance of each number of wrong attempts before the right one, and last, that all attempts are wrong.

    All orders of the samples are as likely: C(n - i - 1, c - 1) of C(n, c) have their first right one in place i.
    """
    ways = [comb(samples - i - 1, correct - 1) if correct else 0 for i in range(attempts)]
    return [way / comb(samples, correct) for way in [*ways, comb(samples - attempts, correct)]]


def _rank(standings: Standings, score: float, penalty: float) -> int:
    """One more than the participants who are not worse: a tie is lost, as in Codeforces' own ratings."""
    better = standings.scores_P > score
    as_good = (standings.scores_P == score) & (standings.penalties_P <= penalty)
    return 1 + int((better | as_good).sum())


# -- Files and their download ------------------------------------------------------------------------------------------


def read_human_ratings(path: Path) -> dict[int, int]:
    """How many humans have each rating, from a JSON object such as ``{"1199": 12, "1200": 15}``.

    Raises:
        ConfigError: the file is missing or holds something else.
    """
    value = _read_json(path)
    try:
        ratings = {int(rating): int(count) for rating, count in value.items()}
    except (AttributeError, ValueError, TypeError):
        ratings = {}
    if not ratings or min(ratings.values()) < 0 or not sum(ratings.values()):
        raise ConfigError(f"{path} must be a JSON object of ratings and how many humans have each.")
    return ratings


def load_standings(folder: Path, contests: Iterable[int]) -> dict[int, Standings]:
    """The standings of contests, from the files that the folder keeps.

    Raises:
        ConfigError: files that are missing (the message says which contests, and how to get them) or can't be used.
    """
    wanted = sorted(set(contests))
    missing = [contest for contest in wanted if not all(path.exists() for path in _paths(folder, contest).values())]
    if missing:
        raise ConfigError(
            f"{folder} lacks the contests {_listed(missing)}: download them with "
            "progrpo.evaluation.codeforces.download_standings, or keep the answers of "
            f"{API}/{_QUESTIONS['standings'].format(contest=missing[0])} and "
            f"{API}/{_QUESTIONS['rating_changes'].format(contest=missing[0])}, and so on, as "
            f"standings/{missing[0]}.json and rating_changes/{missing[0]}.json in it."
        )
    return {contest: _read_standings(folder, contest) for contest in wanted}


def download_standings(
    contests: Iterable[int], folder: Path, *, api: str = API, pause_seconds: float = _PAUSE_SECONDS
) -> list[int]:
    """Download what the folder lacks from Codeforces' public API, and keep it.

    Args:
        contests: numbers, such as 1971.
        folder: gets ``standings/`` and ``rating_changes/``; a file that is there stays.
        api: where the API is.
        pause_seconds: between two requests.

    Returns:
        The contests of which something was downloaded.

    Raises:
        ConfigError: the API can't be reached or has no answer. What was downloaded before is kept.
    """
    downloaded: list[int] = []
    asked_before = False
    for contest in sorted(set(contests)):
        for kind, path in _paths(folder, contest).items():
            if path.exists():
                continue
            if asked_before:
                time.sleep(pause_seconds)
            asked_before = True
            write_text(path, _download(f"{api}/{_QUESTIONS[kind].format(contest=contest)}"))
            if contest not in downloaded:
                downloaded.append(contest)
    return downloaded


def _download(url: str) -> str:
    try:
        with urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            text = str(response.read().decode("utf-8"))
        answer = json.loads(text)
    except HTTPError as error:  # says why in its body, if it is from the API itself
        comment = _comment(error.read())
        raise ConfigError(f"{url} answered {error.code} {comment or error.reason}.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{url} can't be downloaded ({error}); fetch it where the network allows and copy the folder."
        ) from error
    if not isinstance(answer, dict) or answer.get("status") != "OK":
        raise ConfigError(f"{url} answered {_comment(text.encode()) or 'something that is not the status OK'}.")
    return text


def _comment(body: bytes) -> str:
    try:
        return str(json.loads(body)["comment"])
    except (ValueError, KeyError, TypeError):
        return ""


def _paths(folder: Path, contest: int) -> dict[str, Path]:
    return {kind: folder / kind / f"{contest}.json" for kind in _QUESTIONS}


def _read_standings(folder: Path, contest: int) -> Standings:
    paths = _paths(folder, contest)
    answers = {kind: _read_json(path) for kind, path in paths.items()}
    try:
        kind = "rating_changes"
        ratings = {change["handle"]: float(change["oldRating"]) for change in answers[kind]["result"]}
        kind = "standings"
        result = answers[kind]["result"]
        rows = [row for row in result["rows"] if row["party"]["members"][0]["handle"] in ratings]
        return Standings(
            contest,
            points={f"{p['contestId']}{p['index']}": p.get("points") for p in result["problems"]},
            scores_P=np.array([row["points"] for row in rows], dtype=np.float64),
            penalties_P=np.array([row["penalty"] for row in rows], dtype=np.float64),
            ratings_P=np.array([ratings[row["party"]["members"][0]["handle"]] for row in rows], dtype=np.float64),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(
            f"{paths[kind]} is not an answer of Codeforces' API to {_QUESTIONS[kind].format(contest=contest)} "
            f"({error!r}); remove it and download it again."
        ) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read as JSON ({error}).") from error


def _listed(contests: Sequence[int | str]) -> str:
    """A few of them in full."""
    shown = ", ".join(str(contest) for contest in contests[:10])
    return f"{shown} and {len(contests) - 10} more" if len(contests) > 10 else shown
