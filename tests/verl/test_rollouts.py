"""The rollout table of a step on verl. tests/verl/in_verl/test_recipes.py tests that verl's trainer writes it."""

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


def write(
    setting: dict[str, Any],
    step: int,
    *,
    advantages_S: torch.Tensor = RESPONSES.advantages_S,
    tokens: dict[str, list[torch.Tensor]] = TOKENS,
    correct_above: float = 0.0,
) -> None:
    write_rollouts(setting, step, Characters(), RESPONSES, advantages_S, INFOS, tokens, correct_above)


def test_each_response_is_a_row_and_groups_stand_together(tmp_path: Path) -> None:
    advantages_S = RESPONSES.advantages_S + torch.tensor([0.125, -0.25, 0.0, 0.0])
    write({"folder": str(tmp_path)}, 7, advantages_S=advantages_S)
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


def test_the_status_depends_on_the_reward_that_decides_correctness(tmp_path: Path) -> None:
    for step, correct_above in enumerate((0.0, -0.25, -1.0), start=1):
        write({"folder": str(tmp_path)}, step, correct_above=correct_above)
    statuses = [pd.read_parquet(path)["status"].tolist() for path in sorted(tmp_path.iterdir())]
    assert statuses == [
        ["correct", "error", "incorrect", "incorrect"],
        ["correct", "error", "correct", "incorrect"],
        ["correct", "error", "correct", "correct"],
    ]


@pytest.mark.parametrize(
    ("setting", "steps"),
    [
        ({}, [1, 2, 3, 4]),
        ({"every": 2}, [1, 2, 4]),
        # A run folder counts the optimiser steps 1-4, 5-8, ...
        ({"updates": 4}, [1, 5, 9, 13]),
        ({"updates": 4, "every": 8}, [1, 9]),
    ],
)
def test_the_setting_chooses_the_steps(setting: dict[str, Any], steps: list[int], tmp_path: Path) -> None:
    for step in range(1, 5):
        write(setting | {"folder": str(tmp_path)}, step)
    assert sorted(int(path.name[5:11]) for path in tmp_path.iterdir()) == steps


def test_a_response_shows_the_thinking_part_that_its_prompt_opened(tmp_path: Path) -> None:
    tokens = TOKENS | {"prompts": [ids("2 + 2? <think>\n"), ids("3 + 3?")] * 2}
    write({"folder": str(tmp_path)}, 1, tokens=tokens)
    frame = pd.read_parquet(tmp_path / "step-000001-rank0.parquet")
    assert frame["text"].tolist() == ["<think>\n4", "<think>\nfour", "5!", ""]
