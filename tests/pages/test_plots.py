"""The figures show the right numbers, and Plotly accepts them."""

import plotly.graph_objects as go
import pytest

from progrpo.evaluation.intervals import mean_over_problems
from progrpo.methods import METHODS
from progrpo.pages import plots
from progrpo.pages.collect import collect
from progrpo.pages.figures import MARKS, mark
from progrpo.pages.page import assemble


def test_plotly_accepts_every_figure(make_run):
    figures = assemble(collect([make_run(m, s) for m in ("grpo", "progrpo") for s in (0, 1)]))["figures"]
    assert len(figures) == 18
    for figure in figures.values():
        colourless = {**figure, "data": [_plain(trace) for trace in figure["data"]], "layout": _plain(figure["layout"])}
        go.Figure(colourless)


def _plain(value):
    """Replace CSS variables by a colour, as the page's script does."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return "#000000" if isinstance(value, str) and value.startswith("var(") else value


def test_a_curve_is_the_mean_over_seeds_with_each_seed_behind(make_run):
    methods = collect([make_run("grpo", 0), make_run("grpo", 1, metrics=2)])
    data = plots.over_training(methods, "confidence/answer/mean")
    assert [len(series["x"]) for series in data] == [4, 2, 2]
    assert data[-1]["y"] == [0.305, 0.305]


def test_without_data_there_is_no_figure(make_run):
    methods = collect([make_run("grpo", final=False, metrics=0, evaluations=False, rollouts=False)])
    assert plots.training_panels(methods) == []
    assert plots.over_training(methods, "reward") == []
    assert plots.pass_at_k_figure(methods) is None
    assert plots.distinct_figure(methods) is None
    assert plots.coverage_figure(methods) is None
    assert plots.difference_figure([]) is None


def test_the_last_point_of_pass_at_1_is_the_final_evaluation_on_the_same_problems(make_run):
    run = collect([make_run("grpo", correct=[8, 8, 8, 0, 0, 0])])[0].runs[0]
    assert plots.curve(run, "pass@1") == pytest.approx({0: 1 / 3, 2: 1 / 3, 4: 1.0})


def test_pass_at_k_has_every_k_and_a_band_of_bootstrap_intervals(make_run):
    methods = collect([make_run("grpo", correct=[0, 2, 4, 6, 8, 3])])
    fill, line, _ = plots.pass_at_k_figure(methods)["data"]
    assert line["x"] == list(range(1, 9))
    assert line["y"][0] == pytest.approx(23 / 48, abs=1e-5)
    expected = mean_over_problems([0, 2 / 8, 4 / 8, 6 / 8, 1, 3 / 8])
    assert [fill["y"][0], fill["y"][-1]] == pytest.approx([expected.low, expected.high], abs=1e-5)


def test_the_share_of_problems_by_distinct_solutions_sums_to_one(make_run):
    bars = plots.distinct_figure(collect([make_run("grpo", distinct=[0, 0, 1, 1, 1, 3])]))["data"][0]
    assert (bars["x"], bars["y"]) == ([0, 1, 2, 3], [0.33333, 0.5, 0.0, 0.16667])


def test_long_curves_are_smoothed_and_short_ones_are_not(make_run):
    assert [plots.window_for(steps) for steps in (10, 59, 60, 200, 500)] == [1, 1, 3, 11, 25]
    # The reward is a tenth of the step, so a window of three changes only the ends, where the window is cut.
    for seed, steps, ends in ((0, 59, (0.1, 5.9)), (1, 60, (0.15, 5.95))):
        methods = collect([make_run("grpo", seed, metrics=steps)])
        *thin, mean = plots.over_training(methods, "reward")
        assert (len(thin), mean["y"][0], mean["y"][1], mean["y"][-1]) == (seed, ends[0], 0.2, ends[1])


def test_every_method_has_another_colour_and_mark():
    known = [mark for mark in MARKS if mark.name in METHODS]
    for looks in ({m.light for m in known}, {m.dark for m in known}, {m.symbol for m in known}):
        assert len(looks) == len(known)
    assert mark("a method without a colour").colour == "var(--m-base)"
    assert (mark("model-0").name, mark("model-1").name) == ("grpo", "progrpo")
