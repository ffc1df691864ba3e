"""pass@k by definition, and in exact fractions."""

from fractions import Fraction
from itertools import combinations
from math import comb


def pass_at_k_by_subsets(n: int, c: int, k: int) -> Fraction:
    """The share of all subsets of k of the n samples that hold a correct one."""
    subsets = list(combinations([i < c for i in range(n)], k))
    return Fraction(sum(any(subset) for subset in subsets), len(subsets))


def pass_at_k(n: int, c: int, k: int) -> Fraction:
    """1 - C(n-c, k) / C(n, k), exactly."""
    return 1 - Fraction(comb(n - c, k), comb(n, k))
