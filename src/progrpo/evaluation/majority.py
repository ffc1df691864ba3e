"""maj@k: whether the answer that most samples give is right."""

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

MOST_SAMPLES = 1000
"""Binomial coefficients of more samples do not fit into a float."""


def majority_at_k(correct: int, wrong_votes: Sequence[int], no_answer: int = 0) -> NDArray[np.float64]:
    r"""maj@k of one problem for every k: the chance that a plurality vote of k of its n samples is right.

    .. math:: \frac{1}{\binom{n}{k}} \sum_{m \ge 1} \binom{c}{m} \sum_{t \ge 0} \frac{W_{m,t}(k-m)}{1+t}

    where W_{m,t}(j) counts the ways to draw j of the other samples with t wrong answers of just m votes, and none of
    more: right answers win m to at most m, and a tie with t others is won once in 1 + t. Every draw of k of the n
    samples without replacement is counted, so the estimate is unbiased, as :func:`pass_at_k` is.

    Args:
        correct: c, how many samples vote for the right answer.
        wrong_votes: how many samples vote for each wrong answer.
        no_answer: how many samples vote for nothing. If all of the k do, the vote is not right.

    Returns:
        Shape (n,): the value for k = 1, ..., n.

    Raises:
        ValueError: a negative count, no samples, or more than 1,000.

    >>> majority_at_k(2, [2, 1]).round(3).tolist()  # at k = 5 two answers tie with two votes each
    [0.4, 0.4, 0.433, 0.5, 0.5]
    """
    counts = [correct, no_answer, *wrong_votes]
    n = sum(counts)
    if min(counts) < 0 or not 0 < n <= MOST_SAMPLES:
        raise ValueError(f"the counts must be 0 or more and add up to 1 to {MOST_SAMPLES} samples, got {counts}.")
    won = np.zeros(n + 1)
    for m in range(1, correct + 1):
        # Of answers with fewer than m votes any number may be drawn: together they are one pool.
        rivals = [votes for votes in wrong_votes if votes >= m]
        pool = no_answer + sum(votes for votes in wrong_votes if votes < m)
        ways_by_ties = [_binomials(pool, pool)]
        for votes in rivals:
            fewer, just_m = _binomials(votes, m - 1), comb(votes, m)
            ways_by_ties = [
                _sum(
                    np.convolve(ways_by_ties[t], fewer) if t < len(ways_by_ties) else None,
                    np.pad(ways_by_ties[t - 1] * just_m, (m, 0)) if t > 0 else None,
                )
                for t in range(len(ways_by_ties) + 1)
            ]
        for t, ways in enumerate(ways_by_ties):
            won[m : m + len(ways)] += comb(correct, m) * ways / (1 + t)
    return np.minimum(won[1:] / np.array([comb(n, k) for k in range(1, n + 1)], dtype=np.float64), 1.0)


def _binomials(n: int, most: int) -> NDArray[np.float64]:
    """n over 0, ..., n over most."""
    return np.array([comb(n, i) for i in range(min(n, most) + 1)], dtype=np.float64)


def _sum(a: NDArray[np.float64] | None, b: NDArray[np.float64] | None) -> NDArray[np.float64]:
    known = [part for part in (a, b) if part is not None]
    total = np.zeros(max(map(len, known)))
    for part in known:
        total[: len(part)] += part
    return total
