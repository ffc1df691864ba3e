"""Votes: how many responses give the same answer."""

from collections import Counter
from collections.abc import Callable, Sequence

Equivalent = Callable[[Sequence[str], Sequence[str]], list[bool]]
"""Whether each answer of the first list is the same as the answer at the same index of the second."""


def count_classes(answers: Sequence[str | None], same: Equivalent | None = None) -> tuple[list[int], int]:
    """How many votes each answer has, the most frequent first, and how many responses give no answer.

    An answer joins the largest class whose first answer it equals. This matters if ``same`` is not transitive, as for
    decimals that are close to several others.

    Args:
        answers: one per response; None is no answer. Equal texts are one answer.
        same: compares answers of different spelling, many pairs at a time. By default, they differ.

    >>> count_classes(["1/2", "0.5", None, "3", "1/2"], lambda a, b: [eval(x) == eval(y) for x, y in zip(a, b)])
    ([3, 1], 1)
    """
    votes = Counter(answer for answer in answers if answer is not None)
    distinct = [answer for answer, _ in votes.most_common()]
    pairs = [(later, earlier) for i, later in enumerate(distinct) for earlier in distinct[:i]]
    verdicts = same([a for a, _ in pairs], [b for _, b in pairs]) if same else [False] * len(pairs)
    are_same = {pair for pair, is_same in zip(pairs, verdicts, strict=True) if is_same}
    classes: dict[str, int] = {}
    for answer in distinct:
        head = next((head for head in classes if (answer, head) in are_same), answer)
        classes[head] = classes.get(head, 0) + votes[answer]
    return sorted(classes.values(), reverse=True), len(answers) - votes.total()
