"""How different a problem's samples are."""

from collections.abc import Sequence

import numpy as np

from progrpo.evaluation.pass_at_k import pass_at_k


def distinct_at_k(class_counts: Sequence[int], num_samples: int, k: int) -> float:
    r"""Expected number of different solutions among k of a problem's n samples, drawn without replacement.

    .. math:: \sum_j \Big[1 - \binom{n-c_j}{k} \Big/ \binom{n}{k}\Big]

    the pass@k of each solution added up; unbiased, so evaluations with different n compare at one k (rarefaction,
    Hurlbert 1971).

    Args:
        class_counts: c_j, how many samples are each different solution.
        num_samples: n, all samples.
        k: as in :func:`progrpo.evaluation.pass_at_k`.

    Raises:
        ValueError: k > n.

    >>> distinct_at_k([2, 1], 4, 1), distinct_at_k([2, 1], 4, 4)
    (0.75, 2.0)
    """
    counts = np.asarray(class_counts, dtype=np.int64)
    return float(np.sum(pass_at_k(np.full_like(counts, num_samples), counts, k)))
