"""pass@k, distinct@k and maj@k against every subset, exact fractions and simulated votes."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from tests.reference import statistics

from progrpo.evaluation import distinct_at_k, majority_at_k, pass_at_k


def test_pass_at_k_worked_by_hand() -> None:
    # Of the 6 pairs of 4 samples, 3 hold the one correct sample.
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5, abs=1e-15)
    assert pass_at_k(3, 1, 1) == pytest.approx(1 / 3, abs=1e-15)
    # 1 - C(3,2)/C(5,2) = 1 - 3/10.
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7, abs=1e-15)


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n: int) -> None:
    for c in range(n + 1):
        for k in range(1, n + 1):
            assert pass_at_k(n, c, k) == pytest.approx(float(statistics.pass_at_k_by_subsets(n, c, k)), abs=1e-15)


@pytest.mark.parametrize("n", range(1, 25))
def test_pass_at_k_equals_exact_fractions(n: int) -> None:
    for c in range(n + 1):
        for k in range(1, n + 1):
            exact = statistics.pass_at_k(n, c, k)
            assert pass_at_k(n, c, k) == pytest.approx(float(exact), abs=1e-14)
            # 0 and 1 are exact, so that solved and unsolved problems add no rounding error to a mean.
            assert (pass_at_k(n, c, k) == exact) or 0 < exact < 1


@pytest.mark.parametrize("c", [0, 1, 2, 17, 100, 2048, 4095, 4096])
@pytest.mark.parametrize("k", [1, 2, 32, 256, 2048, 4095, 4096])
def test_pass_at_k_is_precise_for_thousands_of_samples(c: int, k: int) -> None:
    assert pass_at_k(4096, c, k) == pytest.approx(float(statistics.pass_at_k(4096, c, k)), abs=1e-12)


def test_arrays_give_one_value_per_problem() -> None:
    n, c = np.array([4, 10, 7, 3]), np.array([1, 0, 7, 2])
    values = pass_at_k(n, c, 3)
    assert isinstance(values, np.ndarray)
    assert values.tolist() == [pass_at_k(int(a), int(b), 3) for a, b in zip(n, c, strict=True)]
    assert pass_at_k(10, [0, 5, 10], 1) == pytest.approx([0.0, 0.5, 1.0], abs=1e-15)
    assert np.shape(pass_at_k([[4, 4], [5, 5]], [[1, 2], [3, 4]], 2)) == (2, 2)
    assert isinstance(pass_at_k(4, 1, 2), float)


@pytest.mark.parametrize(("n", "c"), [(16, 3), (16, 16), (9, 0)])
def test_pass_at_k_rises_with_k_and_with_correct_samples(n: int, c: int) -> None:
    values = [pass_at_k(n, c, k) for k in range(1, n + 1)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(c / n, abs=1e-15)
    assert values[-1] == float(c > 0)


def test_the_mean_over_draws_of_n_samples_does_not_depend_on_n() -> None:
    # The estimate is unbiased: with 30 % right among 40 samples, its mean over draws of n is the same for every n.
    population = [True] * 12 + [False] * 28
    rng = np.random.default_rng(0)
    draws = rng.permuted(np.tile(population, (20_000, 1)), axis=1)
    means = [np.mean(pass_at_k(n, draws[:, :n].sum(axis=1), 4)) for n in (4, 8, 20, 40)]
    assert means == pytest.approx([float(statistics.pass_at_k(40, 12, 4))] * 4, abs=0.01)


@pytest.mark.parametrize(
    ("n", "c", "k", "message"),
    [
        (4, 2, 5, "k is 5 but a problem has only 4 samples; take at least k of each"),
        ([8, 3], [1, 1], 4, "k is 4 but a problem has only 3 samples"),
        (0, 0, 1, "k is 1 but a problem has only 0 samples"),
        (4, 5, 1, "num_correct must lie between 0 and num_samples for every problem"),
        ([4, 4], [1, -1], 1, "num_correct must lie between 0 and num_samples"),
        (4, 2, 0, "k must be an integer of at least 1, got 0"),
        (4, 2, -1, "k must be an integer of at least 1, got -1"),
        (4, 2, 1.0, "k must be an integer of at least 1, got 1.0"),
        (4, 2, True, "k must be an integer of at least 1, got True"),
        (4.0, 2, 1, "num_samples and num_correct must be integers, got float64"),
        (4, [1.5], 1, "num_samples and num_correct must be integers, got int64 and float64"),
    ],
)
def test_impossible_counts_are_refused(n: int, c: int, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pass_at_k(n, c, k)


def test_k_may_be_a_numpy_integer() -> None:
    assert pass_at_k(4, 1, np.int64(2)) == 0.5


@pytest.mark.parametrize("class_counts", [[], [1], [5], [1, 1, 1], [3, 1], [4, 2, 2], [2, 0, 3]])
def test_distinct_at_k_is_the_mean_over_subsets(class_counts: list[int]) -> None:
    for n in (sum(class_counts), sum(class_counts) + 3):
        for k in range(1, n + 1):
            expected = statistics.distinct_at_k_by_subsets(class_counts, n, k)
            assert distinct_at_k(class_counts, n, k) == pytest.approx(float(expected), abs=1e-14)


def test_distinct_at_k_of_one_solution_is_pass_at_k_and_at_n_the_number_of_solutions() -> None:
    assert distinct_at_k([3], 8, 4) == pytest.approx(float(statistics.pass_at_k(8, 3, 4)), abs=1e-15)
    assert distinct_at_k([9, 4, 1, 1], 64, 64) == 4.0
    assert distinct_at_k([9, 4, 1, 1], 64, 1) == pytest.approx(15 / 64, abs=1e-15)


@pytest.mark.parametrize(
    ("class_counts", "n", "k", "message"),
    [
        ([3, 2], 4, 1, "class_counts add up to 5, more than num_samples, 4"),
        ([3, 1], 4, 5, "k is 5 but a problem has only 4 samples"),
        ([], 4, 5, "k is 5 but a problem has only 4 samples"),
        ([3, -1], 4, 1, "num_correct must lie between 0 and num_samples"),
    ],
)
def test_impossible_class_counts_are_refused(class_counts: list[int], n: int, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distinct_at_k(class_counts, n, k)


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
