"""Test helper: a reward that a random model meets half the time."""

from typing import Any


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, *, broken_by: str = "", **unused: Any
) -> dict[str, Any]:
    """Right if a character of the gold is in the response; the verifier "fails" on one with one of ``broken_by``."""
    found = sorted({char for char in solution_str if char in ground_truth})
    broken = any(char in broken_by for char in solution_str)
    return {
        "score": float(bool(found) and not broken),
        "verifier_error": float(broken),
        "canonical": "".join(found),
    }
