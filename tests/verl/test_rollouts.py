"""A step's rollouts as a run folder has them; that verl's trainer hands them over is tested in verl/test_recipes.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from progrpo.verl.batch import Responses
from progrpo.verl.rollouts import write_rollouts


class Characters:
    """A tokenizer of characters; 0 is a special token."""

    def decode(self, ids: Any, skip_special_tokens: bool) -> str:
        return "".join(chr(int(i)) for i in ids if i or not skip_special_tokens)


def ids(text: str) -> torch.Tensor:
    return torch.tensor([*map(ord, text), 0])


TEXTS = ("4", "5!", "four", "")
RESPONSES = Responses(
    advantages_S=torch.tensor([0.5, -1.0, 0.0, 0.5]),
    rewards_S=torch.tensor([1.0, 0.0, 0.0, 0.0]),
    shaped_rewards_S=torch.tensor([1.0, 0.0, 0.0, 0.0]),
    correct_rewards_S=torch.tensor([1.0, 0.0, torch.nan, -0.5]),
    failed_S=torch.tensor([False, False, True, False]),
    groups_S=torch.tensor([0, 1, 0, 1]),
    prompt_confidence_S=torch.tensor([0.25] * 4),
    answer_confidence_S=torch.tensor([0.5, 0.75, 0.5, 0.25]),
    solutions=["4", None, None, None],
)
INFOS = [{"problem_id": f"p{i % 2}", "reason": "" if i == 0 else f"reason {i}"} for i in range(4)]
TOKENS = {
    "prompts": [ids("2 + 2?"), ids("3 + 3?")] * 2,
    "responses": [ids(text) for text in TEXTS],
    "old_log_probs": [torch.full((len(text) + 1,), -0.5) for text in TEXTS],
}


def test_a_row_a_response_the_groups_together(tmp_path: Path) -> None:
    advantages_S = RESPONSES.advantages_S + torch.tensor([0.125, -0.25, 0.0, 0.0])
    write_rollouts({"folder": str(tmp_path)}, 7, Characters(), RESPONSES, advantages_S, INFOS, TOKENS)
    frame = pd.read_parquet(tmp_path / "step-000007-rank0.parquet")
    assert frame["group"].tolist() == [0, 0, 1, 1]
    assert frame["text"].tolist() == ["4", "four", "5!", ""]
    assert frame["prompt"].tolist() == ["2 + 2?"] * 2 + ["3 + 3?"] * 2
    assert frame["problem_id"].tolist() == ["p0", "p0", "p1", "p1"]
    assert frame["status"].tolist() == ["correct", "error", "incorrect", "incorrect"]
    assert frame["canonical"].fillna("").tolist() == ["4", "", "", ""]
    np.testing.assert_array_equal(frame["reward"], [1.0, np.nan, 0.0, 0.0])
    np.testing.assert_allclose(frame["advantage"], frame["grpo_advantage"] + frame["correction"])
    assert frame["correction"].tolist() == [0.125, 0.0, -0.25, 0.0]
    assert [len(row) for row in frame["logps"]] == [len(row) for row in frame["token_ids"]] == [2, 5, 3, 1]


def test_the_status_goes_by_what_says_that_a_response_is_right(tmp_path: Path) -> None:
    for step, correct_above in enumerate((0.0, -0.25, -1.0), start=1):
        write_rollouts(
            *({"folder": str(tmp_path)}, step, Characters(), RESPONSES, RESPONSES.advantages_S, INFOS, TOKENS),
            correct_above,
        )
    statuses = [pd.read_parquet(path)["status"].tolist() for path in sorted(tmp_path.iterdir())]
    assert statuses == [
        ["correct", "error", "incorrect", "incorrect"],
        ["correct", "error", "correct", "incorrect"],
        ["correct", "error", "correct", "correct"],
    ]


@pytest.mark.parametrize(
    ("setting", "steps"),
    [
        (None, []),
        ({}, [1, 2, 3, 4]),
        ({"every": 2}, [1, 2, 4]),
        # As the optimiser steps 1-4, 5-8, ... of a run folder.
        ({"updates": 4}, [1, 5, 9, 13]),
        ({"updates": 4, "every": 8}, [1, 9]),
    ],
)
def test_only_the_steps_that_are_asked_for(setting: dict[str, Any] | None, steps: list[int], tmp_path: Path) -> None:
    if setting is not None:
        setting = setting | {"folder": str(tmp_path)}
    for step in range(1, 5):
        write_rollouts(setting, step, Characters(), RESPONSES, RESPONSES.advantages_S, INFOS, TOKENS)
    assert sorted(int(path.name[5:11]) for path in tmp_path.iterdir()) == steps


def test_a_response_shows_the_thinking_part_that_its_prompt_opened(tmp_path: Path) -> None:
    opened = TOKENS | {"prompts": [ids("2 + 2? <think>\n"), ids("3 + 3?")] * 2}
    write_rollouts({"folder": str(tmp_path)}, 1, Characters(), RESPONSES, RESPONSES.advantages_S, INFOS, opened)
    frame = pd.read_parquet(tmp_path / "step-000001-rank0.parquet")
    assert frame["text"].tolist() == ["<think>\n4", "<think>\nfour", "5!", ""]
