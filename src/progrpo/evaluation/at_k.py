"""What k of a problem's samples show: pass@k, distinct@k and maj@k, as unbiased estimates from n samples."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import comb, lcm
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST_VOTES = 1000  # the time of maj@k grows with the cube of the number of samples


@overload
def pass_at_k(num_samples: int, num_correct: int, k: int) -> float: ...
@overload
def pass_at_k(num_samples: ArrayLike, num_correct: ArrayLike, k: int) -> NDArray[np.float64] | float: ...


def pass_at_k(num_samples: ArrayLike, num_correct: ArrayLike, k: int) -> NDArray[np.float64] | float:
    r"""Unbiased estimate of pass@k from n samples of which c are correct.

    .. math:: 1 - \binom{n-c}{k} \Big/ \binom{n}{k} = 1 - \prod_{i=n-c+1}^{n} \Big(1 - \frac{k}{i}\Big)

    Args:
        num_samples: n, per problem or one for all.
        num_correct: c, per problem, 0 <= c <= n. The result is a float for one problem, an array for several.
        k: at least 1 and at most every n. Take n >= 2k samples: at n = k the estimate is only "any correct".

    Raises ValueError if k > n, for which there is no unbiased estimate, or if the counts are not possible.

    Source: Chen et al. 2021 (arXiv 2107.03374, Eq. 1), computed as the product, which is exact to 1e-14 at n = 4096.

    >>> pass_at_k(4, 1, 2)
    0.5
    >>> pass_at_k([4, 4], [0, 4], 4)
    array([0., 1.])
    """
    n, c = np.broadcast_arrays(np.asarray(num_samples), np.asarray(num_correct))
    if not (np.issubdtype(n.dtype, np.integer) and np.issubdtype(c.dtype, np.integer)):
        raise ValueError(f"num_samples and num_correct must be integers, got {n.dtype} and {c.dtype}.")
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k must be an integer of at least 1, got {k!r}.")
    if np.any(c < 0) or np.any(c > n):
        raise ValueError("num_correct must lie between 0 and num_samples for every problem.")
    if np.any(k > n):
        raise ValueError(f"k is {k} but a problem has only {int(n.min())} samples; take at least k of each.")
    factors = 1.0 - k / np.arange(1, int(n.max(initial=0)) + 1)
    index = np.arange(len(factors)) + 1
    # A row per problem: the factors from n-c+1 to n, and 1 elsewhere. A factor of 0 or less means that no draw misses.
    used = (index > (n - c)[..., None]) & (index <= n[..., None])
    misses = np.where(used, factors.clip(min=0.0), 1.0).prod(axis=-1)
    return 1.0 - misses if n.ndim else float(1.0 - misses)


def distinct_at_k(class_counts: Sequence[int], num_samples: int, k: int) -> float:
    r"""Expected number of different solutions among k of a problem's n samples, drawn without replacement.

    .. math:: \sum_j \Big[1 - \binom{n-c_j}{k} \Big/ \binom{n}{k}\Big]

    with ``class_counts`` c_j of the samples of each different solution. This is the sum of the pass@k of each solution.
    It is unbiased, so evaluations with different n can be compared at one k (rarefaction, Hurlbert 1971). Raises
    ValueError if k > n, or if the classes hold more than n samples.

    >>> distinct_at_k([2, 1], 4, 1), distinct_at_k([2, 1], 4, 4)
    (0.75, 2.0)
    """
    counts = np.asarray(class_counts, dtype=np.int64)
    if counts.sum() > num_samples:
        raise ValueError(f"class_counts add up to {counts.sum()}, more than num_samples, {num_samples}.")
    pass_at_k(num_samples, 0, k)  # refuses a wrong k even if there is no class
    return float(np.sum(pass_at_k(np.full_like(counts, num_samples), counts, k)))


def majority_at_k(correct: int, wrong_votes: Sequence[int], no_answer: int = 0) -> NDArray[np.float64]:
    r"""maj@k of one problem for every k: the chance that a plurality vote of k of its n samples is right.

    .. math:: \frac{1}{\binom{n}{k}} \sum_{m \ge 1} \binom{c}{m} \sum_{t \ge 0} \frac{W_{m,t}(k-m)}{1+t}

    W_{m,t}(j) is the number of ways to draw j of the other samples so that t wrong answers have exactly m votes and
    none has more. The right answer has m votes, and wins a tie with t others once in 1 + t. All draws of k of the n
    samples without replacement are counted, so the estimate is unbiased, as :func:`pass_at_k` is. The counts are whole
    numbers, and only the result is rounded.

    Of the samples, ``correct``, or c, vote for the right answer, ``wrong_votes`` for each wrong answer, and
    ``no_answer`` for nothing; if all k do that, the vote is not right. The result has shape (n,), for k = 1, ..., n.
    Raises ValueError for a negative count, no samples, or more than 1,000.

    >>> majority_at_k(2, [2, 1]).round(3).tolist()  # at k = 5 two answers tie with two votes each
    [0.4, 0.4, 0.433, 0.5, 0.5]
    """
    counts = [correct, no_answer, *wrong_votes]
    n = sum(counts)
    if min(counts) < 0 or not 0 < n <= MOST_VOTES:
        raise ValueError(f"the counts must be 0 or more and add up to 1 to {MOST_VOTES} samples, got {counts}.")
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
