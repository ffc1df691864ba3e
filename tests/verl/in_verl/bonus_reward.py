"""Test helper: progrpo's verifiers, with a bonus on every score, as for the format; ``is_right`` has no bonus."""

from typing import Any

from progrpo.tasks import rewards


def compute_score(*args: Any, bonus: float, **settings: Any) -> dict[str, Any]:
    judged = rewards.compute_score(*args, **settings)
    return judged | {"is_right": judged["score"], "score": judged["score"] + bonus}
