"""Measuring exploration: pass@k, diversity and coverage, with honest intervals."""

from progrpo.evaluation.intervals import Estimate, mean_over_problems, paired_difference
from progrpo.evaluation.pass_at_k import pass_at_k

__all__ = ["Estimate", "mean_over_problems", "paired_difference", "pass_at_k"]
