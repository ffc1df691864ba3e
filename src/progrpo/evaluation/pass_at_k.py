"""pass@k: the chance that at least one of k samples is right."""

from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray


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

    Raises:
        ValueError: k > n, for which there is no unbiased estimate, or counts that are not possible.

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
