"""The notes say what was assumed, and claim nothing that can't be known."""

import math

import numpy as np
import pytest
import torch
from tests.inspection.rollouts import write_jsonl
from tests.pages.runs import make_recipe, rollout

from progrpo.common.errors import ConfigError
from progrpo.core import arm_advantages, group_relative_advantages
from progrpo.inspection import Options, inspect, print_summary
from progrpo.inspection.summary import NO_WARNING, rows
from progrpo.pages.inspection import assemble, write_page
from progrpo.runs.folder import RunFolder

COLUMNS = {"prompt": "q", "response": "o"}


def inspect_rewards(tmp_path, rewards, *, steps=None, **options):
    """Inspect groups of four; their rewards are these, repeated."""
    rows = [
        {
            "q": f"problem {i // 4}",
            "o": f"answer {i % 4}",
            "r": reward,
            "logps": [-0.1 * (i % 4 + 1)],
            "exact": i % 4 == 3,
        }
        | ({} if steps is None else {"step": i * steps // 160})
        for i, reward in enumerate((rewards * 160)[:160])
    ]
    columns = COLUMNS | {"logps": "logps"} | ({} if steps is None else {"step": "step"})
    return inspect([write_jsonl(tmp_path / "a.jsonl", rows)], Options(columns=columns, rewards="r", **options))


def summary_of(inspection, capsys):
    print_summary(inspection)
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        (None, "nothing tells the training steps of the responses apart; --step COL names the column that does."),
        (1, "all responses are of one step."),
        (8, "the first or the last tenth of the steps has fewer than 10 groups with a reward."),
    ],
)
def test_the_summary_says_why_collapse_is_not_known(steps, why, tmp_path, capsys):
    inspection = inspect_rewards(tmp_path, [0.0, 1.0, 0.0, 1.0], steps=steps)
    assert inspection.warnings == []
    for text in (
        summary_of(inspection, capsys),
        write_page(inspection, tmp_path / "page.html").read_text(encoding="utf-8"),
    ):
        assert NO_WARNING not in text
        assert f"Whether the policy collapses over training can't be said: {why}" in text.replace("&#39;", "'")


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        (
            None,
            "There are no curves to draw: nothing tells the training steps of the responses apart; --step COL names "
            "the column that does.",
        ),
        (1, "There are no curves to draw: all responses are of one step."),
    ],
)
def test_the_page_says_why_there_are_no_curves(steps, why, tmp_path):
    inspection = inspect_rewards(tmp_path, [0.0, 1.0, 0.0, 1.0], steps=steps)
    assert why in write_page(inspection, tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_summary_says_that_nothing_collapses(tmp_path, capsys):
    assert NO_WARNING in summary_of(inspect_rewards(tmp_path, [0.0, 1.0, 0.0, 1.0], steps=4), capsys)


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([0.0, 1.0, 0.0, 1.0], None),
        ([-1.0, 1.0, -1.0, 1.0], None),
        (
            [0.1, 1.0, 0.4, 0.5],
            "Every response counts as right. A response is right if its reward is above 0, and the lowest is 0.1",
        ),
        (
            [0.0, 1.0, 0.4, 0.5],
            "Rewards are graded: 4 values from 0 to 1. A response is right if its reward is above 0",
        ),
        (
            [-3.0, -1.0, -0.5, -2.0],
            "No response counts as right. A response is right if its reward is above 0, and the highest is -0.5",
        ),
        ([1.0, 1.0, 1.0, 1.0], None),
    ],
)
def test_notes_say_what_counts_as_right_where_it_is_not_obvious(rewards, message, tmp_path):
    notes = [note for note in inspect_rewards(tmp_path, rewards).notes if "right" in note]
    assert len(notes) == (message is not None)
    if message is not None:
        assert notes[0].startswith(message)
        assert "--correct-above FLOAT sets another threshold, --correct-reward COL names the reward" in notes[0]


def test_a_threshold_separates_graded_rewards(tmp_path, capsys):
    """By default all four responses are right; with a threshold of 0.45, two of them are."""
    inspection = inspect_rewards(tmp_path, [0.1, 1.0, 0.4, 0.5])
    assert "teach GRPO nothing" not in summary_of(inspection, capsys)
    assert inspection.collapse.overall["groups/same_reward"] == 0
    inspection = inspect_rewards(tmp_path, [0.1, 1.0, 0.4, 0.5], correct_above=0.45)
    assert inspection.collapse.overall["pass@1"] == 0.5
    assert "A response is right if its reward is above 0.45" in summary_of(inspection, capsys)
    assert "A response is right if its reward is above 0.45." in write_page(inspection, tmp_path / "a.html").read_text()


def test_arm_uses_the_same_rule_for_right_responses(tmp_path):
    """ARM's groups and centre follow the threshold, or the reward that means right, as in the core."""
    for options, right in (
        ({"correct_above": 0.45}, [False, True, False, True]),
        ({"correct_reward": "exact"}, [False, False, False, True]),
        ({"correct_above": 1.0}, [False] * 4),
    ):
        inspection = inspect_rewards(tmp_path, [0.1, 1.0, 0.4, 0.5], center="correct", **options)
        assert inspection.table.right_B.tolist() == right * 40
        rewards, c_o = (np.array(inspection.table.rewards_B), np.array(inspection.table.c_o_B(0.2)))
        groups = torch.from_numpy(inspection.table.groups_B)
        grpo = group_relative_advantages(torch.from_numpy(rewards), groups)
        verdicts = torch.tensor(right * 40, dtype=torch.float64)
        known = torch.from_numpy(c_o)
        expected = arm_advantages(grpo, verdicts, known, known, groups, alpha=1.0, center="correct")
        np.testing.assert_array_equal(inspection.what_if.progrpo_B, expected.numpy())
        assert inspection.what_if.effect.activated == float(any(right))


def test_a_response_without_the_correct_reward_counts_in_the_advantages_alone(tmp_path):
    """As in training, A is made from its reward, and ARM leaves it out."""
    rows = [
        {"q": "1 + 1?", "o": "2", "r": 0.5, "exact": 1.0},
        {"q": "1 + 1?", "o": "3", "r": 0.2, "exact": 0.0},
        {"q": "1 + 1?", "o": "4", "r": 0.9, "exact": None},
    ]
    rows = [row | {"logps": [-0.5]} for row in rows]
    options = Options(columns=COLUMNS | {"logps": "logps"}, rewards="r", correct_reward="exact", center="correct")
    inspection = inspect([write_jsonl(tmp_path / "a.jsonl", rows)], options)
    expected = group_relative_advantages(torch.tensor([0.5, 0.2, 0.9], dtype=torch.float64), torch.zeros(3).long())
    np.testing.assert_allclose(inspection.what_if.grpo_B, expected)
    assert inspection.what_if.progrpo_B[2] == inspection.what_if.grpo_B[2]
    measured = inspection.collapse.overall
    assert measured["reward"] == pytest.approx(1.6 / 3)
    assert (measured["pass@1"], measured["groups/mixed"], measured["confidence/wrong"]) == (
        *(0.5, 1.0),
        pytest.approx(math.exp(-0.5)),
    )
    assert not any("no reward" in note for note in inspection.notes)
    assert (
        "For 1 responses exact is not known: they count in the reward and in A, and are neither right nor wrong."
        in inspection.notes
    )
    assert write_page(inspection, tmp_path / "a.html").exists()


def test_a_correct_reward_that_is_always_null_is_refused(tmp_path):
    rows = [{"q": "1 + 1?", "o": "2", "r": 0.5, "exact": None}, {"q": "1 + 1?", "o": "3", "r": 0.2, "exact": None}]
    options = Options(columns=COLUMNS, rewards="r", correct_reward="exact")
    with pytest.raises(ConfigError, match="no response is known to be right or wrong: all of column 'exact' is null"):
        inspect([write_jsonl(tmp_path / "a.jsonl", rows)], options)


def test_the_threshold_comes_from_the_recipe_of_a_run(tmp_path):
    """This holds for a run of GRPO too, whose other settings are not ProGRPO's."""
    recipe = make_recipe("grpo", 0)
    recipe.methods["grpo"] = {"correct_above": 0.5}
    folder = RunFolder(tmp_path / "run")
    folder.start(recipe, {})
    folder.rollouts.mkdir()
    rollout(1).to_parquet(folder.rollouts / "step-000001-rank0.parquet")
    assert inspect([folder.path], Options()).settings.correct_above == 0.5
    assert inspect([folder.path], Options(correct_above=0.2)).table.correct_above == 0.2


def test_a_note_names_the_correct_reward_that_the_rollouts_lack(tmp_path):
    recipe = make_recipe("progrpo", 0)
    recipe.methods["progrpo"] = {"correct_reward": "exact"}
    folder = RunFolder(tmp_path / "run")
    folder.start(recipe, {})
    folder.rollouts.mkdir()
    rollout(1).to_parquet(folder.rollouts / "step-000001-rank0.parquet")
    inspection = inspect([folder.path], Options())
    assert inspection.notes[0].startswith(
        "In the run, reward 'exact' says whether a response is right. Its rollouts don't hold"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_threshold_must_be_finite(value):
    with pytest.raises(ConfigError, match=r"--correct-above must be a number in \(-inf, inf\), got"):
        Options(correct_above=value)


def test_pass_at_k_is_shown_with_its_number_of_groups(tmp_path, capsys):
    rollouts = [{"q": f"p{g}", "o": f"{i}", "r": float(i == 0)} for g in range(10) for i in range(8 if g < 3 else 2)]
    inspection = inspect([write_jsonl(tmp_path / "a.jsonl", rollouts)], Options(columns=COLUMNS, rewards="r"))
    table = dict(rows(inspection))
    assert table["pass@1"] == ["38.8 %"]  # 3 groups of 1/8, 7 of 1/2
    assert table["pass@8, 3 of 10 groups"] == ["100.0 %"]
    text = summary_of(inspection, capsys)
    assert "pass@4, 3 of 10 groups" in text
    page = write_page(inspection, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "pass@8, 3 of 10 groups" in page


def test_pass_at_k_over_training_is_on_the_page(tmp_path):
    inspection = inspect_rewards(tmp_path, [0.0, 1.0, 0.0, 0.0], steps=4)
    figure = assemble(inspection)["figures"]["pass-at-k"]
    assert [line["name"] for line in figure["data"]] == ["pass@1", "pass@4"]
    assert [line["y"] for line in figure["data"]] == [[0.25] * 4, [1.0] * 4]
