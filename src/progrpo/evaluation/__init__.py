"""Measuring exploration: pass@k, maj@k, diversity and coverage, with honest intervals."""

from progrpo.evaluation.at_k import distinct_at_k, majority_at_k, pass_at_k
from progrpo.evaluation.diversity import answer_entropy
from progrpo.evaluation.intervals import (
    Estimate,
    SignTest,
    mean_over_problems,
    mean_over_sampling,
    paired_difference,
    sign_test,
)

__all__ = [
    "Estimate",
    "SignTest",
    "answer_entropy",
    "distinct_at_k",
    "majority_at_k",
    "mean_over_problems",
    "mean_over_sampling",
    "paired_difference",
    "pass_at_k",
    "sign_test",
]
