"""The files of trainers: those of a real run of TRL, and rows as verl writes them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from tests.inspection.rollouts import verl_rows, write_jsonl, write_verl
from tests.pages.runs import make_recipe, rollout

from progrpo.inspection import Options, inspect, print_summary
from progrpo.methods.arm import ArmOptions
from progrpo.runs.folder import RunFolder
from progrpo.sampling.models import load_model
from progrpo.tasks import Countdown
from trl import GRPOConfig, GRPOTrainer

GROUP = 4


def even(completions, **columns):
    return [float(completion.count("1") % 2 == 0) for completion in completions]


def sometimes_unknown(completions, **columns):
    return [None if "+" in completion else 0.25 * completion.count("-") for completion in completions]


@pytest.fixture(scope="module")
def trl_output(tmp_path_factory):
    """Two steps of TRL's own trainer on the shipped model, with log_completions."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("trl")
    model, tokenizer = load_model("countdown")
    config = GRPOConfig(
        output_dir=str(out),
        log_completions=True,
        num_completions_to_print=0,
        max_steps=2,
        num_generations=GROUP,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=1,
        max_completion_length=14,
        temperature=1.7,
        logging_steps=1,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model,
        [even, sometimes_unknown],
        config,
        train_dataset=Dataset.from_list(Countdown(numbers=3, train_size=32, heldout_size=8).train_problems()),
        processing_class=tokenizer,
    )
    trainer.train()
    return out, trainer.state.log_history


def test_completions_of_a_trl_run(trl_output):
    out, log = trl_output
    inspection = inspect([out], Options())
    assert inspection.source.title == "completions logged by TRL"
    assert inspection.source.columns.rewards == (("even", 1.0), ("sometimes_unknown", 1.0))
    assert inspection.table.size == 32
    assert np.bincount(inspection.table.groups_B).tolist() == [GROUP] * 8
    logged = {entry["step"]: entry["reward"] for entry in log if "reward" in entry}
    assert dict(
        zip(inspection.collapse.steps.tolist(), inspection.collapse.by_step["reward"], strict=True)
    ) == pytest.approx(logged)
    assert any("The reward is even + sometimes_unknown" in note for note in inspection.notes)
    assert any("There are no log-probs of responses" in note for note in inspection.notes)
    assert inspection.what_if is None


def test_grpo_advantages_match_those_of_trl(trl_output):
    """The model computes the log-probs; the advantages that TRL computed are in its files."""
    out, _ = trl_output
    inspection = inspect([out / "completions"], Options(model="countdown", center="group", rewards="even"))
    frames = [pd.read_parquet(path) for path in sorted((out / "completions").glob("*.parquet"))]
    table = pd.concat(frames, ignore_index=True)
    assert inspection.what_if.rows_B.tolist() == list(range(32))
    both = inspect([out], Options(model="countdown"))
    assert (table["advantage"] != 0).mean() > 0.4
    np.testing.assert_allclose(both.what_if.grpo_B, table["advantage"], atol=1e-4)
    assert not np.allclose(inspection.what_if.grpo_B, table["advantage"], atol=0.1)


def test_rollouts_of_verl(tmp_path, capsys):
    inspection = inspect([write_verl(tmp_path / "rollouts", range(9, 12))], Options())
    rows = [row for step in range(9, 12) for row in verl_rows(step)]
    assert inspection.source.title == "rollouts dumped by verl"
    assert inspection.collapse.steps.tolist() == [9, 10, 11]
    assert np.bincount(inspection.table.groups_B).tolist() == [4] * 9
    assert inspection.collapse.overall["reward"] == np.mean([row["score"] for row in rows])
    assert inspection.table.right_B.tolist() == [row["acc"] for row in rows]
    # If a reward function returns the answer that it extracted, this tells answers apart.
    by_group = pd.DataFrame(rows).groupby(["step", "input"])["pred"].nunique()
    assert inspection.collapse.overall["distinct_answers"] == by_group.mean()
    print_summary(inspection)
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "36 responses in 9 groups, 3 steps; rollouts dumped by verl" in shown
    assert "--logps COL names" in shown


def test_a_note_counts_generations_that_are_logged_again(tmp_path):
    rows = [row | {"step": step} for step in (1, 2, 3, 4) for row in verl_rows((step + 1) // 2)]
    inspection = inspect([write_jsonl(tmp_path / "a.jsonl", rows)], Options())
    assert any(note.startswith("2 steps hold the same responses as the step before them") for note in inspection.notes)
    assert not any("hold the same" in note for note in inspect([write_verl(tmp_path / "b", range(4))], Options()).notes)


def test_settings_come_from_the_recipe_of_a_run(tmp_path):
    for method, expected in (
        ("grpo", ArmOptions()),
        ("progrpo_correct", ArmOptions(alpha=3.0, center="correct")),
    ):
        folder = RunFolder(tmp_path / method)
        folder.start(make_recipe(method, 0), {})
        folder.rollouts.mkdir()
        rollout(1).to_parquet(folder.rollouts / "step-000001-rank0.parquet")
        assert inspect([folder.path], Options()).settings == expected
        assert inspect([folder.path], Options(alpha=0.5)).settings == replace(expected, alpha=0.5)


def test_completions_may_be_chat_messages(tmp_path):
    prompt = [{"role": "user", "content": "1 + 1?"}]
    rows = [
        {"step": 1, "prompt": prompt, "completion": [{"role": "assistant", "content": text}], "right": right}
        for text, right in (("2", 1.0), ("3", 0.0), ("2", 1.0))
    ]
    frame = pd.DataFrame([row | {"advantage": 0.0} for row in rows])
    frame.to_parquet(tmp_path / "completions_00001.parquet")
    inspection = inspect([tmp_path], Options())
    assert inspection.table.n_groups == 1
    assert inspection.collapse.overall["duplicates"] == pytest.approx(1 / 3)
    assert inspection.collapse.overall["distinct_answers"] == 2
