"""The effect that ProGRPO would have had matches pairs counted one by one, scipy, and GRPO."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau
from tests.inspection.rollouts import NAMED, random_rows, write_jsonl

from progrpo.inspection import Options, inspect
from progrpo.inspection.what_if import MOST_LAGS, _pairs, advantages, effect, what_if
from progrpo.methods.arm import ArmOptions


@pytest.fixture
def table(tmp_path):
    return inspect([write_jsonl(tmp_path / "a.jsonl", random_rows(400))], Options(columns=NAMED, rewards="r")).table


def plain_effect(table, grpo, progrpo):
    """The effect, counted response by response and pair by pair."""
    judged = [i for i in range(table.size) if not np.isnan(table.rewards_B[i])]
    groups = {}
    for i in judged:
        groups.setdefault(int(table.groups_B[i]), []).append(i)
    pairs = [pair for members in groups.values() for pair in combinations(members, 2)]
    before = [np.sign(grpo[i] - grpo[j]) for i, j in pairs]
    after = [np.sign(progrpo[i] - progrpo[j]) for i, j in pairs]
    new_best = []
    for members in groups.values():
        best = [i for i in members if grpo[i] == max(grpo[j] for j in members)]
        new_best.append(not any(progrpo[i] == max(progrpo[j] for j in members) for i in best))
    everyone = {}
    for i in range(table.size):
        everyone.setdefault(int(table.groups_B[i]), []).append(i)
    return {
        "size": np.mean([abs(progrpo[i] - grpo[i]) for i in judged]),
        "shift": np.mean([progrpo[i] - grpo[i] for i in judged]),
        "moved": np.abs(progrpo - grpo).sum() / np.abs(grpo).sum(),
        "ordered": np.mean([a == 0 and b != 0 for a, b in zip(before, after, strict=True)]),
        "reversed": np.mean([a * b == -1 for a, b in zip(before, after, strict=True)]),
        "new_best": np.mean(new_best),
        "flipped": np.mean([grpo[i] * progrpo[i] < 0 for i in judged]),
        "taught": np.mean([grpo[i] == 0 and progrpo[i] != 0 for i in judged]),
        "activated": np.mean([any(table.rewards_B[i] > 0 for i in members) for members in everyone.values()]),
    }


@pytest.mark.parametrize("alpha", [0.3, 5.0])
@pytest.mark.parametrize("center", ["prompt", "group", "correct"])
def test_the_effect_matches_plain_loops(table, alpha, center):
    settings = ArmOptions(alpha=alpha, center=center)
    grpo, progrpo = advantages(table, settings)
    changed = vars(effect(grpo, progrpo, table, settings))
    assert changed == pytest.approx(plain_effect(table, grpo, progrpo))
    if alpha == 5.0:
        assert changed["reversed"] > 0
        assert changed["new_best"] > 0


def test_pairs_match_kendalls_tau(table):
    """Without ties in A, tau is 1 less twice the share of pairs whose order changes."""
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=30), rng.normal(size=30)
    single_group = replace(
        table,
        **{
            name: value[..., :30]
            for name, value in vars(table).items()
            if isinstance(value, np.ndarray) and name not in ("rewards_B", "correct_rewards_B", "groups_B")
        },
        rewards_B=np.ones(30),
        correct_rewards_B=np.ones(30),
        groups_B=np.zeros(30, dtype=np.int64),
    )
    changed = effect(before, after, single_group, ArmOptions())
    assert 1 - 2 * changed.reversed == pytest.approx(kendalltau(before, after).statistic)
    assert changed.ordered == 0


def test_every_pair_of_a_small_group_comes_once_and_a_part_of_those_of_a_large_one():
    groups = np.random.default_rng(1).permutation(np.repeat([3, 5, 8], [MOST_LAGS + 1, 1, 4]))
    pairs = [
        frozenset(pair) for left, right in _pairs(groups) for pair in zip(left.tolist(), right.tolist(), strict=True)
    ]
    expected = [frozenset(p) for g in (3, 8) for p in combinations(np.flatnonzero(groups == g).tolist(), 2)]
    assert sorted(map(sorted, pairs)) == sorted(map(sorted, expected))
    large = sum(len(left) for left, _ in _pairs(np.zeros(5000, dtype=np.int64)))
    assert 5000 * (MOST_LAGS - 1) < large < 5000 * MOST_LAGS
    assert _pairs(np.array([1])) == []


def test_alpha_0_is_grpo(table):
    changed = what_if(table, ArmOptions(alpha=0.0))
    np.testing.assert_array_equal(changed.progrpo_B, changed.grpo_B)
    effects = vars(changed.effect)
    assert {name: value for name, value in effects.items() if value} == {"activated": effects["activated"]}


def test_curves_pass_through_the_settings(table):
    settings = ArmOptions(alpha=0.6)
    changed = what_if(table, settings)
    assert changed.by_alpha[0.6] == changed.effect == changed.by_fraction[0.2]
    sizes = [changed.by_alpha[alpha].size for alpha in sorted(changed.by_alpha)]
    # The correction is proportional to alpha.
    np.testing.assert_allclose(sizes, np.array(sorted(changed.by_alpha)) / 0.6 * changed.effect.size)
    np.testing.assert_allclose(
        changed.by_fraction[1.0].shift,
        effect(*advantages(table, replace(settings, low_prob_fraction=1.0)), table, settings).shift,
    )


def test_groups_without_known_confidence_are_left_out(table):
    unknown = table.groups_B % 2 == 1
    partly = replace(table, c_o_FB=np.where(unknown, np.nan, table.c_o_FB))
    changed = what_if(partly, ArmOptions())
    assert set(changed.groups_B) == {g for g in range(table.n_groups) if g % 2 == 0}
    np.testing.assert_array_equal(changed.progrpo_B, advantages(table, ArmOptions())[1][~unknown])
    assert what_if(replace(table, c_q_B=np.full_like(table.c_q_B, np.nan)), ArmOptions()) is None
    assert what_if(replace(table, c_q_B=np.full_like(table.c_q_B, np.nan)), ArmOptions(center="group")) is not None
