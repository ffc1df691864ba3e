"""Generated contests in the form of Codeforces' API."""

import json
from pathlib import Path
from typing import Any

import numpy as np

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


def keep_two(folder: Path) -> Path:
    """Keep one contest with points, 1971, and one without, 1972."""
    keep(folder, 1971, *contest(1971))
    keep(folder, 1972, *contest(1972, with_points=False, seed=1))
    return folder
