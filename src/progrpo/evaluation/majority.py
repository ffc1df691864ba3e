"""maj@k: the chance that the most frequent of k answers is right."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import comb, lcm

import numpy as np
from numpy.typing import NDArray

MOST_SAMPLES = 1000
"""The time grows with the cube of the number of samples."""


def majority_at_k(correct: int, wrong_votes: Sequence[int], no_answer: int = 0) -> NDArray[np.float64]:
    r"""maj@k of one problem for every k: the chance that a plurality vote of k of its n samples is right.

    .. math:: \frac{1}{\binom{n}{k}} \sum_{m \ge 1} \binom{c}{m} \sum_{t \ge 0} \frac{W_{m,t}(k-m)}{1+t}

    W_{m,t}(j) is the number of ways to draw j of the other samples so that t wrong answers have exactly m votes and
    none has more. The right answer has m votes, and wins a tie with t others once in 1 + t. All draws of k of the n
    samples without replacement are counted, so the estimate is unbiased, as :func:`pass_at_k` is. The counts are whole
    numbers, and only the result is rounded.

    Of the samples, ``correct``, or c, vote for the right answer, ``wrong_votes`` for each wrong answer, and
    ``no_answer`` for nothing; if all k do that, the vote is not right. The result has shape (n,), for k = 1, ..., n.
    ValueError for a negative count, no samples, or more than 1,000.

    >>> majority_at_k(2, [2, 1]).round(3).tolist()  # at k = 5 two answers tie with two votes each
    [0.4, 0.4, 0.433, 0.5, 0.5]
    """
    counts = [correct, no_answer, *wrong_votes]
    n = sum(counts)
    if min(counts) < 0 or not 0 < n <= MOST_SAMPLES:
        raise ValueError(f"the counts must be 0 or more and add up to 1 to {MOST_SAMPLES} samples, got {counts}.")
    # W is a product of polynomials, one per answer, whose coefficients of x^j are the ways to draw j samples. Each
    # polynomial is stored as its value at x = 2^bits, which no coefficient reaches: a product is one multiplication of
    # two integers.
    width = n // 8 + 1
    bits = 8 * width
    won: Counter[int] = Counter()  # by the number of answers in the lead, the right one included
    for m in range(1, correct + 1):
        ties = [1]  # by the number of wrong answers with exactly m votes
        for votes in wrong_votes:
            if votes >= m:
                fewer, just_m = _ways(votes, m - 1, width), comb(votes, m) << bits * m
                ties = [less * fewer + tied * just_m for less, tied in zip([*ties, 0], [0, *ties], strict=True)]
        # Any number of an answer's votes may be drawn if it has fewer than m, so all such answers are one pool.
        pool = no_answer + sum(votes for votes in wrong_votes if votes < m)
        others = (comb(correct, m) << bits * m) * _ways(pool, pool, width)
        for t, ways in enumerate(ties):
            won[1 + t] += ways * others
    common = lcm(*won)
    digits = [(common // leaders, ways.to_bytes(width * (n + 1), "little")) for leaders, ways in won.items()]
    return np.array(
        [
            sum(weight * int.from_bytes(ways[width * k : width * (k + 1)], "little") for weight, ways in digits)
            / (common * comb(n, k))
            for k in range(1, n + 1)
        ]
    )


@lru_cache(maxsize=4096)
def _ways(votes: int, most: int, width: int) -> int:
    """The polynomial for drawing at most ``most`` of an answer's votes."""
    coefficients = [comb(votes, i).to_bytes(width, "little") for i in range(min(votes, most) + 1)]
    return int.from_bytes(b"".join(coefficients), "little")
