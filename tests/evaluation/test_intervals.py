from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from progrpo.evaluation import Estimate, mean_over_problems, paired_difference, pass_at_k
from progrpo.evaluation.intervals import mean_over_sampling, sign_test


def scores(problems: int, *, runs: int | None = None, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).beta(0.5, 1.0, size=problems if runs is None else (runs, problems))


def test_the_mean_is_the_mean_over_problems() -> None:
    assert mean_over_problems([0.0, 1.0, 0.5, 0.5]).mean == 0.5
    assert mean_over_problems([[0.0, 1.0], [0.5, 0.5]]).mean == 0.5
    assert paired_difference([1.0, 0.5], [0.25, 0.25]).mean == 0.5


def test_an_estimate_reads_as_mean_and_interval() -> None:
    assert str(Estimate(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


@pytest.mark.parametrize("problems", [10, 60, 200])
@pytest.mark.parametrize("seed", range(2))
def test_the_interval_agrees_with_scipys(problems: int, seed: int) -> None:
    values = scores(problems, seed=seed)
    actual = mean_over_problems(values)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    # The bounds are themselves random: 10,000 resamples place each to about 1 % of the interval's width.
    tolerance = 0.04 * (expected.high - expected.low)
    assert actual.low == pytest.approx(expected.low, abs=tolerance)
    assert actual.high == pytest.approx(expected.high, abs=tolerance)


def test_the_interval_of_runs_agrees_with_scipys_on_the_means_of_problems() -> None:
    values = scores(80, runs=3)
    actual = mean_over_problems(values)
    expected = stats.bootstrap(
        (values.mean(axis=0),), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    tolerance = 0.04 * (expected.high - expected.low)
    assert (actual.low, actual.high) == pytest.approx((expected.low, expected.high), abs=tolerance)


def test_the_paired_interval_agrees_with_scipys() -> None:
    a, b = scores(100, seed=1), scores(100, seed=2)
    actual = paired_difference(a, b)
    expected = stats.bootstrap(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    tolerance = 0.04 * (expected.high - expected.low)
    assert (actual.low, actual.high) == pytest.approx((expected.low, expected.high), abs=tolerance)


def test_95_of_100_intervals_contain_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    true_mean = 0.5 / 1.5
    covered = 0
    for seed in range(400):
        estimate = mean_over_problems(rng.beta(0.5, 1.0, size=100), seed=seed, resamples=1000)
        covered += estimate.low <= true_mean <= estimate.high
    # Binomial: 0.95 with a standard error of 0.011, and the percentile interval is a little short at 100 problems.
    assert 0.91 <= covered / 400 <= 0.98


def test_problems_in_common_make_the_paired_interval_narrow() -> None:
    base = scores(100)
    better = np.clip(base + np.random.default_rng(1).normal(0.05, 0.01, 100), 0, 1.2)
    paired = paired_difference(better, base)
    assert paired.low > 0.04
    assert paired.high - paired.low < 0.1 * (mean_over_problems(base).high - mean_over_problems(base).low)


def test_more_runs_on_the_same_problems_do_not_count_as_more_problems() -> None:
    values = scores(30)
    one, ten = mean_over_problems(values), mean_over_problems(np.tile(values, (10, 1)))
    assert (ten.low, ten.high) == pytest.approx((one.low, one.high), abs=1e-12)


def test_the_interval_depends_only_on_the_seed() -> None:
    """So the numbers of a report can be reproduced on any machine and in any process."""
    values = [0.0, 0.25, 0.5, 1.0, 1.0, 0.125, 0.75]
    first, other = mean_over_problems(values), mean_over_problems(values, seed=1, resamples=2000)
    assert (first.low, first.high) == pytest.approx((13 / 56, 45 / 56), abs=1e-12)
    assert (other.low, other.high) == pytest.approx((14 / 56, 44 / 56), abs=1e-12)


@pytest.mark.parametrize("values", [[0.25], [0.25] * 5, [[0.25] * 5] * 2])
def test_equal_values_have_an_interval_of_width_0(values: list[float]) -> None:
    assert mean_over_problems(values) == Estimate(0.25, 0.25, 0.25, problems=np.shape(values)[-1])


def test_a_difference_has_the_sign_of_a_minus_b() -> None:
    a, b = scores(40, runs=2, seed=1), scores(40, runs=2, seed=2)
    forward, back = paired_difference(a, b), paired_difference(b, a)
    assert forward.mean == pytest.approx((a - b).mean(), rel=1e-12)
    assert (forward.mean, forward.low, forward.high) == pytest.approx((-back.mean, -back.high, -back.low), abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b"), [([1.0, 2.0], [1.0]), ([1.0], [1.0, 2.0]), ([[1.0, 2.0]] * 2, [1.0, 2.0]), ([[1.0]] * 2, [[1.0]] * 3)]
)
def test_a_difference_of_other_problems_or_runs_is_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match=r"a and b must hold the same runs and problems, got shapes \(\d, \d\) and"):
        paired_difference(a, b)


@pytest.mark.parametrize(
    "call", [lambda: mean_over_problems([]), lambda: mean_over_problems([[], []]), lambda: paired_difference([], [])]
)
def test_no_problem_is_refused(call: Callable[[], Estimate]) -> None:
    with pytest.raises(ValueError, match="values must hold at least one problem, got none"):
        call()


def test_the_interval_over_sampling_covers_what_it_should() -> None:
    """2,000 evaluations of the same 40 problems, 32 samples each: 95 % of the intervals contain the true value."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.6, 0.9, size=40)
    n, repeats = 32, 2000
    for k in (1, 8):
        truth = (1 - (1 - p) ** k).mean()
        covered = 0
        for c in rng.binomial(n, p, size=(repeats, 40)):
            values = pass_at_k(np.full(40, n), c, k)
            less = np.maximum(c - 1, 0)
            thetas = np.stack(
                [pass_at_k(np.full(40, n - 1), less, k), pass_at_k(np.full(40, n - 1), np.minimum(c, n - 1), k)]
            )
            without = [(thetas[:, i], (c[i], n - c[i])) for i in range(40)]
            estimate = mean_over_sampling(values, without, np.full(40, n))
            covered += estimate.low <= truth <= estimate.high
        assert 0.93 < covered / repeats < 0.97, k


def test_the_interval_over_sampling_of_pass_at_1_in_closed_form() -> None:
    c, n = np.array([0, 3, 8, 5]), np.array([8, 8, 8, 12])
    without = [(((ci - 1) / (ni - 1), ci / (ni - 1)), (ci, ni - ci)) for ci, ni in zip(c, n, strict=True)]
    p = c / n
    estimate = mean_over_sampling(p, without, n)
    assert estimate.mean == pytest.approx(p.mean())
    assert (estimate.high - estimate.mean) / 1.959963984540054 == pytest.approx(
        np.sqrt(np.sum(p * (1 - p) / (n - 1))) / 4
    )
    assert estimate.over == "sampling"
    with pytest.raises(ValueError, match="must add up to 8 samples, got 7"):
        mean_over_sampling([0.5], [((0.5, 0.5), (4, 3))], [8])
    with pytest.raises(ValueError, match="at least one problem"):
        mean_over_sampling([], [], [])


@pytest.mark.parametrize(
    ("wins", "losses", "ties"), [(9, 1, 4), (0, 0, 5), (5, 5, 0), (3, 17, 2), (60, 41, 0), (1, 0, 0)]
)
def test_the_sign_test_against_scipy(wins: int, losses: int, ties: int) -> None:
    a = np.array([0.7] * wins + [0.1] * losses + [0.1 + 0.2] * ties)
    b = np.array([0.3] * wins + [0.2] * losses + [0.3] * ties)  # 0.1 + 0.2 and 0.3 differ by rounding: a tie
    result = sign_test(a, b)
    assert (result.wins, result.losses, result.ties) == (wins, losses, ties)
    wanted = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert result.p_value == pytest.approx(wanted, rel=1e-12)
    assert sign_test(b, a).p_value == result.p_value


def test_the_sign_test_needs_pairs() -> None:
    with pytest.raises(ValueError, match=r"same problems, got shapes \(2,\) and \(3,\)"):
        sign_test([1, 2], [1, 2, 3])
