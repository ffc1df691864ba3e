r"""An approximate Codeforces rating: where a model's solutions would have put it in the standings of past contests.

The method is that of CodeElo (arXiv 2501.01257) and DeepCoder. In each contest, the model's rating is that at which a
player is expected to have the model's rank among the human participants (:func:`rating_at_rank`). The model's rating is
the mean over contests. These are the approximations:

- Time does not count: a solved problem scores its full points, as if it were solved in the first minute. This favours
  the model over humans who solved the same problems.
- A wrong attempt before the right one costs 50 points, or 10 minutes of penalty where problems have no points, as in
  CodeElo. Codeforces itself leaves a problem at least 30 % of its points. With one attempt there is no penalty.
- A solution is right if it passes the available tests, which may be weaker than the contest's.
- Problems of a contest that the model was not asked count as unsolved, see ``ContestRating.not_asked``.
- The rating is between 0 and 100 above the contest's best participant. If the model beats nobody or everybody, the
  equation has no solution and the rating is the bound.
- Codeforces shows 0 as the rating before a participant's first contest, and 0 is used here.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, fsum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progrpo.common.errors import ConfigError
from progrpo.evaluation import standings as files
from progrpo.evaluation.standings import Standings, shortened

FEWEST_PARTICIPANTS = 200
"""A contest must have more rated participants than this, as in CodeElo. With fewer, its ranks say little."""
_WRONG_ATTEMPT_POINTS = 50.0
_WRONG_ATTEMPT_PENALTY = 10.0
_ABOVE_THE_BEST = 100.0
_HALVINGS = 30  # steps of the bisection: they narrow some 4,000 points of rating to less than 0.00001
_PROBLEM_ID = re.compile(r"(\d+)([A-Z]\w*)", re.ASCII)


@dataclass(frozen=True)
class ContestRating:
    """A model's rating in one contest: the expected one, if the samples that are handed in are drawn at random. The
    model was asked ``problems`` of the contest's problems; the others are ``not_asked`` and count as unsolved."""

    contest: int
    rating: float
    participants: int
    problems: int
    not_asked: list[str]


@dataclass(frozen=True)
class CodeforcesRating:
    """An approximate rating. Read this module's notes before comparing it with a human's.

    Attributes:
        rating: the mean over contests.
        percentile: the share of rated humans below it, in per cent; None without their ratings.
        attempts: how many attempts the model had at each problem.
        skipped: contests with too few rated participants, see :data:`FEWEST_PARTICIPANTS`.
        not_judged: problems for which the verifier failed on all samples. They count as unsolved.
    """

    rating: float
    percentile: float | None
    attempts: int
    contests: list[ContestRating]
    skipped: list[int]
    not_judged: list[str]

    def __str__(self) -> str:
        percentile = "" if self.percentile is None else f", above {self.percentile:.1f} % of rated humans"
        lost = f"; without a judged sample, and so unsolved: {shortened(self.not_judged)}" if self.not_judged else ""
        return f"about {self.rating:.0f}{percentile} ({len(self.contests)} contests, attempts: {self.attempts}{lost})"


def rate(
    results: Mapping[str, tuple[int, int]],
    standings: Mapping[int, Standings],
    *,
    attempts: int = 1,
    human_ratings: Mapping[int, int] | None = None,
) -> CodeforcesRating:
    """A model's approximate Codeforces rating and percentile. This module's notes list the approximations.

    Args:
        results: by problem id (``"1971A"``), the number of judged samples and of right ones. A problem without judged
            samples counts as unsolved, as does one that was not asked.
        standings: by contest, for each contest of these problems; see :func:`load_standings`.
        attempts: how many samples are handed in, until one is right. The expectation over all orders of the samples is
            exact, so more samples make the rating less random but not higher.
        human_ratings: how many humans have each rating, see :func:`read_human_ratings`.

    Raises:
        ConfigError: standings are missing, an id is not that of a problem, a problem has fewer samples than attempts,
            or no contest has enough participants.
    """
    asked: defaultdict[int, dict[str, tuple[int, int]]] = defaultdict(dict)
    for problem, counts in results.items():
        asked[contest_of(problem)][problem] = counts
    missing = sorted(asked.keys() - standings.keys())
    if missing:
        raise ConfigError(f"the standings lack the contests {shortened(missing)}, of which the results have problems.")
    if attempts < 1:
        raise ConfigError(f"attempts must be at least 1, got {attempts}.")
    contests, skipped = [], []
    for contest, problems in asked.items():
        _check(problems, standings[contest], attempts)
        participants = len(standings[contest].ratings_P)
        if participants > FEWEST_PARTICIPANTS:
            expected = _expected_rating(problems, standings[contest], attempts)
            not_asked = [problem for problem in standings[contest].points if problem not in problems]
            contests.append(ContestRating(contest, expected, participants, len(problems), not_asked))
        else:
            skipped.append(contest)
    if not contests:
        raise ConfigError(
            f"no contest of the results ({shortened(sorted(asked)) or 'none'}) has more than {FEWEST_PARTICIPANTS} "
            "rated participants, which a rating needs; rate on other contests."
        )
    rating = fsum(contest.rating for contest in contests) / len(contests)
    percentile = None if human_ratings is None else percentile_of(rating, human_ratings)
    not_judged = [problem for problem, (samples, _) in results.items() if not samples]
    return CodeforcesRating(rating, percentile, attempts, contests, sorted(skipped), not_judged)


def rate_from_folder(
    problems: Sequence[Mapping[str, Any]], counts: Sequence[tuple[int, int]], folder: Path
) -> CodeforcesRating:
    """:func:`rate` with the files of one folder. Missing standings are downloaded into it.

    ``problems.json`` in the folder lists the problems' ids in the order of the benchmark's rows; it is needed only for
    rows without ids. With ``ratings.json`` (:func:`read_human_ratings`) the result has a percentile.

    ``problems`` are the benchmark's, whose ``source_id`` is their id; ``counts`` has the number of judged samples and
    of right ones for each. Raises ConfigError if ids are missing or standings can't be downloaded, or as :func:`rate`.
    """
    ids: Any = [problem.get("source_id") for problem in problems]
    if None in ids:
        file = folder / "problems.json"
        listed = files.read_json(file)
        ids = listed.get("data") if isinstance(listed, dict) else listed
        if not isinstance(ids, list) or len(ids) != len(problems):
            raise ConfigError(
                f"{file} must be a list of the ids of all {len(problems)} problems, in the order of the benchmark rows."
            )
    results = dict(zip(map(str, ids), counts, strict=True))
    contests = {contest_of(problem) for problem in results}
    files.download_standings(contests, folder)
    ratings = folder / "ratings.json"
    humans = files.read_human_ratings(ratings) if ratings.exists() else None
    return rate(results, files.load_standings(folder, contests), human_ratings=humans)


def contest_of(problem: str) -> int:
    """The contest of a problem; raises ConfigError if the id is not a contest's number with a problem's letter.

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
    r"""The rating at which a player's expected rank among participants with these ratings is ``rank``.

    .. math:: 1 + \sum_i \frac{1}{1 + 10^{(R - r_i) / 400}} = \text{rank}

    ``ratings`` has shape (participants,). R is found by bisection between 0 and 100 above the highest rating. If no R
    there solves the equation, it is the nearer bound.

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
    """The share of humans with a lower rating, in per cent. ``human_ratings`` says how many have each rating.

    >>> percentile_of(1200, {800: 3, 1200: 1, 1600: 1})
    60.0
    """
    below = sum(count for human, count in human_ratings.items() if human < rating)
    return 100 * below / sum(human_ratings.values())


def _check(problems: dict[str, tuple[int, int]], standings: Standings, attempts: int) -> None:
    for problem, (samples, correct) in problems.items():
        if problem not in standings.points:
            known = f"contest {standings.contest}: {', '.join(standings.points)}"
            raise ConfigError(f"the results have {problem}, which is not a problem of {known}.")
        if not 0 <= correct <= samples:
            raise ConfigError(f"the results of {problem} have {correct} right samples of {samples}.")
        if 0 < samples < attempts:
            raise ConfigError(
                f"attempts is {attempts}, but {problem} has only {samples} samples; take at least as many of each."
            )


def _expected_rating(problems: dict[str, tuple[int, int]], standings: Standings, attempts: int) -> float:
    # The chance of each score and penalty over the problems so far. Problems are solved independently of each other.
    chances = {(0.0, 0.0): 1.0}
    for problem, (samples, correct) in problems.items():
        if not samples:
            continue
        points = standings.points[problem]
        after: defaultdict[tuple[float, float], float] = defaultdict(float)
        for wrong, chance in enumerate(_wrong_attempts(samples, correct, attempts)):
            if wrong == attempts:
                gain, penalty = 0.0, 0.0
            elif points is None:
                gain, penalty = 1.0, _WRONG_ATTEMPT_PENALTY * wrong
            else:
                gain, penalty = max(0.0, points - _WRONG_ATTEMPT_POINTS * wrong), 0.0
            for (score, minutes), so_far in chances.items():
                after[score + gain, minutes + penalty] += so_far * chance
        chances = {state: chance for state, chance in after.items() if chance}
    by_rank: defaultdict[int, float] = defaultdict(float)
    for (score, minutes), chance in chances.items():
        # A tie counts as lost, as in Codeforces' ratings.
        is_as_good = (standings.scores_P == score) & (standings.penalties_P <= minutes)
        by_rank[1 + int(((standings.scores_P > score) | is_as_good).sum())] += chance
    return fsum(chance * rating_at_rank(rank, standings.ratings_P) for rank, chance in by_rank.items())


def _wrong_attempts(samples: int, correct: int, attempts: int) -> list[float]:
    """The chance of each number of wrong attempts before the right one; and, last, that all attempts are wrong.

    All orders of the samples are equally likely: C(n - i - 1, c - 1) of C(n, c) have their first right one at place i.
    """
    ways = [comb(samples - i - 1, correct - 1) if correct else 0 for i in range(attempts)]
    return [way / comb(samples, correct) for way in [*ways, comb(samples - attempts, correct)]]
