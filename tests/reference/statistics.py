"""pass@k and distinct@k by definition, and pass@k in exact fractions."""

from fractions import Fraction
from itertools import combinations
from math import comb


def pass_at_k_by_subsets(n: int, c: int, k: int) -> Fraction:
    """The share of all subsets of k of the n samples that contain a correct one."""
    subsets = list(combinations([i < c for i in range(n)], k))
    return Fraction(sum(any(subset) for subset in subsets), len(subsets))


def pass_at_k(n: int, c: int, k: int) -> Fraction:
    """1 - C(n-c, k) / C(n, k), exactly."""
    return 1 - Fraction(comb(n - c, k), comb(n, k))


def distinct_at_k_by_subsets(class_counts: list[int], n: int, k: int) -> Fraction:
    """The mean number of classes in a subset of k of the n samples, over all subsets. Other samples have no class."""
    labels = [i for i, size in enumerate(class_counts) for _ in range(size)]
    subsets = list(combinations(labels + [-1] * (n - len(labels)), k))
    return Fraction(sum(len(set(subset) - {-1}) for subset in subsets), len(subsets))
