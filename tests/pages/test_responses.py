"""The reader: which groups it shows, and what it says about their responses."""

import math

import numpy as np
import pytest
from tests.pages.runs import rollout

from progrpo.pages.collect import collect, verdict_of
from progrpo.pages.responses import decoder_from, group_view, low_tokens, reader


def test_first_and_last_step_of_each_method_with_the_same_prompts_mixed_first(make_run):
    views = reader(collect([make_run("grpo"), make_run("progrpo")]))
    assert [method["title"] for method in views] == ["GRPO", "ProGRPO"]
    for method in views:
        assert [step["step"] for step in method["steps"]] == [1, 4]
        for step in method["steps"]:
            assert [group["prompt"] for group in step["groups"]] == ["4 2 3 : 12 ;", "4 1 3 : 12 ;"]
    group = views[1]["steps"][0]["groups"][0]
    assert (group["right"], group["size"], group["distinct"]) == (2, 4, 1)
    assert [response["verdict"] for response in group["responses"]] == ["right", "right", "wrong", "wrong"]
    assert group["responses"][0]["numbers"]["correction"] == -0.1


def test_tokens_carry_text_probability_and_membership_in_t_low(make_run):
    views = reader(collect([make_run("grpo")]))
    tokens = views[0]["steps"][0]["groups"][0]["responses"][1]["tokens"]
    assert [p for _, p, _ in tokens] == [0.9, 0.05, 0.8, 0.7, 0.99]
    assert [low for _, _, low in tokens] == [False, True, False, False, False]
    assert all(isinstance(text, str) and text for text, _, _ in tokens)


def test_the_shipped_tokenizer_is_found_without_a_checkpoint(make_run):
    run = collect([make_run("grpo")])[0].runs[0]
    assert decoder_from(run.folder, run.recipe.model.path)(1) == "<eos>"


def test_t_low_leaves_out_tokens_without_a_log_prob():
    logps_BT = np.array([[math.nan, -1.0, -3.0, -2.0]])
    assert low_tokens(logps_BT, 0.5).tolist() == [[False, False, True, True]]
    assert low_tokens(logps_BT[:, :0], 0.2).tolist() == [[]]


def test_equal_responses_are_counted():
    rows = rollout(1, groups=1).to_dict("records")
    for row in rows:
        row |= {"token_ids": [1, 2, 3, 4, 5], "verdict": verdict_of(row["reward"])}
    view = group_view(rows, str, 0.2)
    assert [response["times"] for response in view["responses"]] == [4]
    assert (view["right"], view["size"]) == (4, 4)


def test_not_a_number_is_none_and_long_responses_are_cut():
    row = rollout(1).iloc[0].to_dict() | {"token_ids": [1] * 700, "logps": np.array([-0.5] * 699 + [math.nan])}
    row |= {"verdict": "not judged", "answer_confidence": math.nan}
    (view,) = group_view([row], str, 0.2)["responses"]
    assert (len(view["tokens"]), view["hidden"]) == (600, 100)
    assert (view["verdict"], view["numbers"]["answer_confidence"]) == ("not judged", None)


@pytest.mark.parametrize(("reward", "verdict"), [(1.0, "right"), (0.0, "wrong"), (-1.0, "wrong"), (None, "not judged")])
def test_verdicts(reward, verdict):
    assert verdict_of(reward) == verdict
