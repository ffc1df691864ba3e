"""Test helper: a reward that a random model meets half the time."""

from typing import Any


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, *, broken_by: str = "", bonus: float = 0.0, **unused: Any
) -> dict[str, Any]:
    """Right if a character of the gold is in the response; the verifier "fails" on one with one of ``broken_by``.
    ``bonus`` is what every response gets beside that, as for its format."""
    found = sorted({char for char in solution_str if char in ground_truth})
    broken = any(char in broken_by for char in solution_str)
    right = float(bool(found) and not broken)
    return {
        "score": right + bonus,
        "is_right": right,
        "verifier_error": float(broken),
        "canonical": "".join(found),
    }
