"""What each column holds: known formats, and columns that the user names."""

import pytest

from progrpo.common.errors import ConfigError
from progrpo.inspection.columns import FORMATS, choose_columns
from progrpo.runs import rollouts

TRL = {"step": 1, "prompt": "1 + 1?", "completion": "2", "accuracy": 1.0, "format": None, "note": "x", "advantage": 0.0}
OTHER = {"question": "1 + 1?", "text": "2", "score": 1.0, "a,b": 1.0}


def test_trl_sums_the_reward_functions_between_completion_and_advantage():
    title, columns = choose_columns(TRL, {})
    assert title == "completions logged by TRL"
    assert (columns.prompt, columns.response, columns.step) == ("prompt", "completion", "step")
    assert columns.rewards == (("accuracy", 1.0), ("format", 1.0))


def test_rewards_are_chosen_and_weighted():
    assert choose_columns(TRL, {}, "accuracy")[1].rewards == (("accuracy", 1.0),)
    assert choose_columns(TRL, {}, "accuracy:1, format:0.2")[1].rewards == (("accuracy", 1.0), ("format", 0.2))
    named = {"prompt": "question", "response": "text"}
    assert choose_columns(OTHER, named, "a,b")[1].rewards == (("a,b", 1.0),)


def test_a_named_column_replaces_the_column_of_the_format():
    _, columns = choose_columns(TRL, {"answer": "note"})
    assert columns.answer == "note"
    assert columns.names() == ["prompt", "completion", "step", "note", "accuracy", "format"]


def test_missing_columns_of_a_format_are_left_out():
    present = dict.fromkeys(("step", "group", "prompt", "text", "reward"), "text")
    title, columns = choose_columns(present, {})
    assert title == "rollouts of a progrpo run"
    assert columns.logps is None
    assert columns.answer is None


def test_columns_of_a_run_are_those_of_the_rollout_table():
    """A column of the table that is renamed must be renamed here too, or it would be left out silently."""
    table = [column.name for column in rollouts.COLUMNS]
    _, marks, all_columns = FORMATS[0]
    assert marks.union(all_columns.names()) <= set(table)
    _, columns = choose_columns(dict.fromkeys(table), {})
    assert columns == all_columns
    assert (columns.logps, columns.token_ids, columns.prompt_confidence) == ("logps", "token_ids", "prompt_confidence")


@pytest.mark.parametrize(
    ("named", "rewards", "message"),
    [
        ({}, None, "name the missing ones with --prompt COL --response COL --reward COL"),
        ({"prompt": "question", "response": "text"}, None, "name the missing ones with --reward COL"),
        ({"prompt": "q"}, "score", r"--prompt 'q' is not a column of the file; its columns are 'question', 'text'"),
        ({"prompt_logps": "q"}, "score", "--prompt-logps 'q' is not a column"),
        ({}, "point", "--reward 'point' is not a column"),
        ({}, "score:much", "the weight after the colon must be a finite number"),
    ],
)
def test_missing_columns_are_reported(named, rewards, message):
    with pytest.raises(ConfigError, match=message):
        choose_columns(OTHER, named, rewards)


def test_trl_without_rewards_is_refused():
    with pytest.raises(ConfigError, match="no column of rewards between 'completion' and 'advantage'"):
        choose_columns({name: value for name, value in TRL.items() if name not in ("accuracy", "format")}, {})
