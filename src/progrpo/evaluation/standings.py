"""The standings of Codeforces' past contests: download, files, and the ratings of humans.

A folder keeps the answers of Codeforces' public API for each contest: ``standings/1971.json`` (``contest.standings``
without unofficial participants) and ``rating_changes/1971.json`` (``contest.ratingChanges``).
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
_PAUSE_SECONDS = 2.0  # the API allows one request in two seconds
_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Standings:
    """A contest's problems, and the scores and earlier ratings of its P rated participants.

    ``points`` has the points of each problem, by an id such as ``1971A``; None if each problem counts as one.
    ``penalties_P`` are minutes; 0 if problems have points.
    """

    contest: int
    points: dict[str, float | None]
    scores_P: NDArray[np.float64]
    penalties_P: NDArray[np.float64]
    ratings_P: NDArray[np.float64]


def read_human_ratings(path: Path) -> dict[int, int]:
    """How many humans have each rating, from a JSON object such as ``{"1199": 12, "1200": 15}``. Raises ConfigError if
    the file is missing or holds something else."""
    value = read_json(path)
    try:
        ratings = {int(rating): int(count) for rating, count in value.items()}
    except (AttributeError, ValueError, TypeError):
        ratings = {}
    if not ratings or min(ratings.values()) < 0 or not sum(ratings.values()):
        raise ConfigError(f"{path} must be a JSON object of ratings and how many humans have each.")
    return ratings


def load_standings(folder: Path, contests: Iterable[int]) -> dict[int, Standings]:
    """The standings of contests, from the files in a folder. Raises ConfigError if a file can't be used or is missing;
    the message lists the contests and says how to get them."""
    wanted = sorted(set(contests))
    missing = [contest for contest in wanted if not all(path.exists() for path in _paths(folder, contest).values())]
    if missing:
        questions = " and ".join(f"{API}/{question.format(contest=missing[0])}" for question in _QUESTIONS.values())
        raise ConfigError(
            f"{folder} lacks the contests {shortened(missing)}: download them with "
            f"progrpo.evaluation.standings.download_standings, or keep the answers of {questions}, and so on, as "
            f"standings/{missing[0]}.json and rating_changes/{missing[0]}.json in it."
        )
    return {contest: _read_standings(folder, contest) for contest in wanted}


def download_standings(
    contests: Iterable[int], folder: Path, *, api: str = API, pause_seconds: float = _PAUSE_SECONDS
) -> list[int]:
    """Download the files that a folder lacks from Codeforces' public API, and return the contests of these files.

    Files that are there, and those that were downloaded before an error, are kept. Raises ConfigError if the API can't
    be reached or refuses.
    """
    downloaded: list[int] = []
    for contest in sorted(set(contests)):
        for kind, path in _paths(folder, contest).items():
            if not path.exists():
                time.sleep(pause_seconds if downloaded else 0)
                write_text(path, _download(f"{api}/{_QUESTIONS[kind].format(contest=contest)}"))
                downloaded.append(contest)
    return list(dict.fromkeys(downloaded))


def _download(url: str) -> str:
    code, reason = "", "something that is not the status OK"
    try:
        with urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            body: bytes = response.read()
    except HTTPError as error:  # the API gives its reason in the body
        body, code, reason = error.read(), f"{error.code} ", error.reason
    except OSError as error:
        raise ConfigError(
            f"{url} can't be downloaded ({error}); fetch it where the network allows and copy the folder."
        ) from error
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    fields = answer if isinstance(answer, dict) else {}
    if code or fields.get("status") != "OK":
        raise ConfigError(f"{url} answered {code}{fields.get('comment') or reason}.")
    return body.decode("utf-8")


def _paths(folder: Path, contest: int) -> dict[str, Path]:
    return {kind: folder / kind / f"{contest}.json" for kind in _QUESTIONS}


def _read_standings(folder: Path, contest: int) -> Standings:
    paths = _paths(folder, contest)
    answers = {kind: read_json(path) for kind, path in paths.items()}
    try:
        kind = "rating_changes"
        ratings = {change["handle"]: float(change["oldRating"]) for change in answers[kind]["result"]}
        kind = "standings"
        result = answers[kind]["result"]
        rows = [(row["party"]["members"][0]["handle"], row["points"], row["penalty"]) for row in result["rows"]]
        rated = [(points, penalty, ratings[handle]) for handle, points, penalty in rows if handle in ratings]
        scores_P, penalties_P, ratings_P = np.array(rated, dtype=np.float64).reshape(-1, 3).T
        points = {f"{p['contestId']}{p['index']}": p.get("points") for p in result["problems"]}
        return Standings(contest, points, scores_P, penalties_P, ratings_P)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(
            f"{paths[kind]} is not an answer of Codeforces' API to {_QUESTIONS[kind].format(contest=contest)} "
            f"({error!r}); remove it and download it again."
        ) from error


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises ConfigError if it can't be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read as JSON ({error}).") from error


def shortened(names: Sequence[int | str]) -> str:
    """The first ten names and the number of the others."""
    shown = ", ".join(map(str, names[:10]))
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown
