"""maj@k against every subset, and against simulated votes."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from progrpo.evaluation.majority import majority_at_k
from progrpo.evaluation.pass_at_k import pass_at_k


def votes_of(correct: int, wrong_votes: list[int], no_answer: int) -> list[int]:
    """0 is right, -1 is no answer."""
    wrong = [name for name, votes in enumerate(wrong_votes, start=1) for _ in range(votes)]
    return [0] * correct + wrong + [-1] * no_answer


def share_of_the_win(votes: tuple[int, ...]) -> Fraction:
    counts = {name: votes.count(name) for name in set(votes) if name >= 0}
    winners = [name for name, count in counts.items() if count == max(counts.values())]
    return Fraction(winners.count(0), len(winners)) if winners else Fraction(0)


@pytest.mark.parametrize(
    ("correct", "wrong_votes", "no_answer"),
    [
        (2, [2, 1], 0),
        (3, [2, 2, 1, 1], 1),
        (0, [3, 2], 1),
        (4, [], 2),
        (2, [1] * 5, 2),
        (3, [3, 3], 0),
        (1, [1, 1, 1], 3),
    ],
)
def test_majority_at_k_is_the_mean_over_subsets(correct: int, wrong_votes: list[int], no_answer: int) -> None:
    votes = votes_of(correct, wrong_votes, no_answer)
    wanted = []
    for k in range(1, len(votes) + 1):
        subsets = list(combinations(votes, k))
        wanted.append(float(sum(map(share_of_the_win, subsets), Fraction(0)) / len(subsets)))
    # Whole numbers and one division, so every bit is equal.
    assert majority_at_k(correct, wrong_votes, no_answer).tolist() == wanted


def test_majority_at_k_equals_simulated_votes() -> None:
    correct, wrong_votes, no_answer = 14, [13, 9, 6, 5, 4] + [1] * 9, 4
    votes = np.array(votes_of(correct, wrong_votes, no_answer))
    rng = np.random.default_rng(0)
    exact = majority_at_k(correct, wrong_votes, no_answer)
    for k in (2, 8, 33):
        held = [float(share_of_the_win(tuple(rng.permutation(votes)[:k].tolist()))) for _ in range(4000)]
        assert exact[k - 1] == pytest.approx(np.mean(held), abs=4 * np.std(held) / 4000**0.5)


def test_majority_at_k_in_cases_with_a_known_value() -> None:
    one = majority_at_k(5, [3, 2], 2)
    assert one[0] == pytest.approx(5 / 12)  # a single vote is pass@1
    assert one[-1] == 1.0  # of all votes, the plurality
    assert majority_at_k(2, [3, 2], 0)[-1] == 0.0
    assert majority_at_k(3, [3], 0)[-1] == 0.5
    assert majority_at_k(0, [2], 1).tolist() == [0.0] * 3
    assert majority_at_k(4, [], 0).tolist() == [1.0] * 4
    # Without rivals one right sample of the k is enough.
    alone = majority_at_k(3, [], 5)
    assert alone == pytest.approx([pass_at_k(8, 3, k) for k in range(1, 9)])
    many = majority_at_k(160, [120, 100] + [1] * 20)
    assert np.isfinite(many).all()
    assert many.max() <= 1.0
    assert majority_at_k(1000, []).tolist() == [1.0] * 1000  # the most samples allowed


@pytest.mark.parametrize(("correct", "wrong_votes"), [(-1, [2]), (1, [-1]), (0, []), (1, [1000])])
def test_impossible_counts_are_refused_by_majority_at_k(correct: int, wrong_votes: list[int]) -> None:
    with pytest.raises(ValueError, match="must be 0 or more and add up to 1 to 1000 samples"):
        majority_at_k(correct, wrong_votes)


@pytest.mark.parametrize("sizes", [[20, 14, 14, 9, 4, 2, 1], [90, 80, 40, 30, 10, 6], [3] * 20 + [1] * 4])
def test_the_chances_of_all_answers_add_up_to_1(sizes: list[int]) -> None:
    # Each answer in turn is taken for the right one.
    chances = [majority_at_k(size, sizes[:i] + sizes[i + 1 :]) for i, size in enumerate(sizes)]
    assert sum(chances) == pytest.approx(1.0, abs=1e-13)
