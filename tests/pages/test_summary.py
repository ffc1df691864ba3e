"""The sentences and tables claim only what the numbers support."""

import pytest

from progrpo.common.errors import ConfigError
from progrpo.pages.collect import collect
from progrpo.pages.measures import largest_k, method_table, run_rows
from progrpo.pages.summary import compare, differences, missing_from_runs, sentences, text


def text_of(lines: list[str]) -> str:
    return " ".join(lines)


def test_a_clear_difference_has_its_interval(make_run):
    grpo = [make_run("grpo", seed, correct=[1] * 6, distinct=[1] * 6) for seed in (0, 1)]
    pro = [make_run("progrpo", seed, correct=[3] * 6, distinct=[2] * 6) for seed in (0, 1)]
    words = text_of(sentences(collect([*grpo, *pro])))
    assert "Against GRPO, ProGRPO has a higher pass@1 (+0.250 [+0.250, +0.250])" in words
    # 1 - C(5,4)/C(8,4) = 1 - 5/70 against 1 - C(7,4)/C(8,4) = 1/2: + 3/7.
    assert "a higher pass@4 (+0.429" in words
    assert "finds 2.00 times as many distinct correct solutions (2.00 against 1.00 a problem; +1.00" in words
    assert "no clear difference" not in words


def test_the_sign_test_is_beside_the_interval(make_run):
    a, b = make_run("grpo", correct=[0, 1, 2, 3, 4, 5]), make_run("progrpo", correct=[1, 2, 3, 4, 5, 5])
    words = text_of(sentences(collect([a, b])))
    # Five of five: 2 / 2^5.
    assert "ProGRPO is ahead in pass@1 on 5, behind on 0 and even on 1 (exact sign test: p = 0.062)" in words


def test_an_interval_with_zero_is_not_a_clear_difference(make_run):
    a = make_run("grpo", correct=[0, 8, 0, 8, 4, 4])
    b = make_run("progrpo", correct=[8, 0, 1, 8, 4, 4])
    words = text_of(sentences(collect([b, a])))
    assert words.startswith("There is no clear difference between ProGRPO and GRPO in pass@1 (+0.021 [")
    assert "higher" not in words


def test_clear_and_unclear_measures_are_separate(make_run):
    a = make_run("grpo", correct=[4] * 6, distinct=[1] * 6)
    b = make_run("progrpo", correct=[4] * 6, distinct=[3] * 6)
    words = text_of(sentences(collect([a, b])))
    assert "ProGRPO finds 3.00 times as many" in words
    assert "There is no clear difference in pass@1 (+0.000 [+0.000, +0.000]) or pass@4" in words


def test_the_summary_says_that_seeds_disagree(make_run):
    a = [make_run("grpo", 0, correct=[0] * 6), make_run("grpo", 1, correct=[3] * 6)]
    b = [make_run("progrpo", 0, correct=[8] * 6), make_run("progrpo", 1, correct=[2] * 6)]
    assert "Seeds disagree on the direction in pass@1" in text_of(sentences(collect([*a, *b])))


def test_differences_pair_seeds_whatever_the_order_of_runs(make_run):
    a = [make_run("grpo", 0, correct=[0] * 6), make_run("grpo", 1, correct=[4] * 6)]
    b = [make_run("progrpo", 1, correct=[6] * 6), make_run("progrpo", 0, correct=[1] * 6)]
    grpo, pro = collect([*b, *a])
    assert compare(pro, grpo, "avg").per_seed == [1 / 8, 2 / 8]


def test_seeds_without_a_partner_are_left_out_of_pairs(make_run):
    a = make_run("grpo", 0, correct=[2] * 6)
    b = [make_run("progrpo", 0, correct=[4] * 6), make_run("progrpo", 1, correct=[8] * 6)]
    grpo, pro = collect([a, *b])
    difference = compare(pro, grpo, "pass@1")
    assert [difference.mean, difference.baseline_mean, *difference.per_seed] == pytest.approx([0.5, 0.25, 0.25])


def test_without_common_seeds_problems_are_paired(make_run):
    grpo, pro = collect([make_run("grpo", 0, correct=[2] * 6), make_run("progrpo", 5, correct=[4] * 6)])
    difference = compare(pro, grpo, "pass@1")
    assert difference.difference.mean == pytest.approx(0.25)
    assert difference.per_seed == []


def test_a_single_method_is_compared_with_its_start(make_run):
    words = text_of(sentences(collect([make_run("progrpo", correct=[8, 8, 8, 0, 0, 0])])))
    assert (
        "ProGRPO (one run) solves 50.0 % of 6 held-out problems with one sample and 50.0 % with the best of 4." in words
    )
    assert "On the 3 problems that were also evaluated before training, pass@1 rose (0.333 before, 1.000 after" in words


def test_the_summary_says_that_a_run_is_unfinished(make_run):
    methods = collect([make_run("grpo", final=False, metrics=3, rollouts=False)])
    words = text_of(sentences(methods))
    assert words.startswith("GRPO is not finished: 3 of 4 steps are recorded, no final evaluation yet. At step 2 its")
    assert differences(methods) == []
    notes = text_of(missing_from_runs(methods))
    assert "3 of 4 steps are recorded, no final evaluation yet" in notes
    assert "no rollouts" in notes


def test_notes_name_verifier_errors_and_recipes_that_differ(make_run):
    runs = [make_run("grpo", errors=3), make_run("progrpo", evaluations=False, learning_rate=0.5)]
    notes = text_of(missing_from_runs(collect(runs)))
    assert "the verifier failed on 3 samples" in notes
    assert "The recipes differ in training.learning_rate, which may be why" in notes
    assert "ProGRPO, seed 0: no evaluations during training" in notes


def test_the_table_holds_base_and_methods_with_intervals(make_run):
    methods = collect([make_run("grpo", s, correct=[2] * 6) for s in (0, 1)] + [make_run("progrpo")])
    shown = method_table(methods)
    assert [row["title"] for row in shown["rows"]] == ["Base model, before training", "GRPO", "ProGRPO"]
    assert shown["measures"] == ["pass@1", "pass@4", "pass@8", "distinct", "coverage", "entropy"]
    grpo = shown["rows"][1]
    assert (grpo["seeds"], grpo["size"]) == ("2 seeds", "6 problems × 8 samples")
    shown_as = {"measure": "pass@1", "mean": "0.250", "interval": "0.250–0.250"}
    # Two runs of 6 problems, 2 of 8 right: the variance is p (1 - p) / (n - 1) / 6 / 2.
    half = 1.959964 * (0.25 * 0.75 / 7 / 6 / 2) ** 0.5
    cell = grpo["cells"][0]
    assert {key: cell[key] for key in shown_as} == shown_as
    assert cell["exact"][:5] == pytest.approx([0.25, 0.25, 0.25, 0.25 - half, 0.25 + half], abs=1e-6)
    assert cell["sampling"] == f"{0.25 - half:.3f}–{0.25 + half:.3f}"
    # The base model has 4 samples per problem, so it has no pass@8.
    assert shown["rows"][0]["cells"][2]["mean"] == "–"
    assert shown["mixed_sizes"]
    assert len(run_rows(methods, shown["measures"])) == 3


@pytest.mark.parametrize(("n", "k"), [(2, 1), (16, 8), (64, 32), (256, 32), (1, 1)])
def test_largest_k(n, k):
    assert largest_k(n) == k


def test_no_run_is_refused():
    with pytest.raises(ConfigError, match="at least one run folder"):
        collect([])


def test_the_terminal_gets_the_sentences_and_every_difference(make_run):
    runs = [make_run("grpo", 0, correct=[2] * 6), make_run("progrpo", 0, correct=[4] * 6)]
    words = text(collect(runs))
    assert words.split("\n")[0] == sentences(collect(runs))[0]
    assert "pass@1  ProGRPO 0.500, GRPO 0.250 (2.00 times), difference +0.250" in words
