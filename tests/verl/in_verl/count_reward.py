"""Test helper: a reward that a random model gets half the time."""

from typing import Any


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, *, broken_by: str = "", **unused: Any
) -> dict[str, Any]:
    """A response is right if it has a character of the gold. The verifier "fails" on one with a character of
    ``broken_by``."""
    shared = sorted({char for char in solution_str if char in ground_truth})
    broken = any(char in broken_by for char in solution_str)
    return {
        "score": float(bool(shared) and not broken),
        "verifier_error": float(broken),
        "canonical": "".join(shared),
    }
