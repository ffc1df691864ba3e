"""Votes over answers: which are the same answer."""

from collections import Counter
from collections.abc import Callable, Sequence

Equivalent = Callable[[Sequence[str], Sequence[str]], list[bool]]
"""Whether each answer is the same as the one at its place in the second list."""


def count_classes(answers: Sequence[str | None], same: Equivalent | None = None) -> tuple[list[int], int]:
    """How many votes each answer has, the most frequent first, and how many there are for none.

    Args:
        answers: a vote each; None is for nothing. Equal texts are one answer.
        same: compares answers of different spelling, many pairs at a time.

    An answer belongs to the first class, in the order of size, that holds an equivalent one: where equivalence is not
    transitive (decimals that are close to several others), the larger class has it.

    >>> count_classes(["1/2", "0.5", None, "3", "1/2"], lambda a, b: [eval(x) == eval(y) for x, y in zip(a, b)])
    ([3, 1], 1)
    """
    spellings = Counter(answer for answer in answers if answer is not None)
    distinct = [answer for answer, _ in spellings.most_common()]
    pairs = [(i, j) for i in range(len(distinct)) for j in range(i)]
    found = same([distinct[i] for i, _ in pairs], [distinct[j] for _, j in pairs]) if same else [False] * len(pairs)
    joined = {pair for pair, is_same in zip(pairs, found, strict=True) if is_same}
    heads: dict[int, int] = {}
    for i, answer in enumerate(distinct):
        head = next((j for j in heads if (i, j) in joined), i)
        heads[head] = heads.get(head, 0) + spellings[answer]
    return sorted(heads.values(), reverse=True), len(answers) - sum(spellings.values())
