"""The rollout files that a path stands for, and the step in their names."""

from pathlib import Path

import pytest

from progrpo.common.errors import ConfigError
from progrpo.inspection.folders import find_files, step_in_name


def test_files_of_a_folder_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("10.jsonl", "9.jsonl", ".8.jsonl.tmp", "readme.txt"):
        (tmp_path / name).write_text("{}\n")
    assert [file.name for file in find_files([tmp_path])] == ["9.jsonl", "10.jsonl"]


@pytest.mark.parametrize("folder", ["rollouts", "completions"])
def test_the_rollouts_of_a_run_are_found(folder, tmp_path):
    (tmp_path / folder).mkdir()
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / folder / "completions_00001.parquet").write_bytes(b"PAR1")
    assert find_files([tmp_path]) == [tmp_path / folder / "completions_00001.parquet"]


def test_a_file_that_is_being_packed_is_found_once(tmp_path):
    for name in ("1.jsonl.gz", "2.jsonl", "2.jsonl.gz", "3.jsonl.zst"):
        (tmp_path / name).write_text("{}\n")
    assert [file.name for file in find_files([tmp_path])] == ["1.jsonl.gz", "2.jsonl", "3.jsonl.zst"]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv"])
def test_csv_files_are_found(name, tmp_path):
    (tmp_path / name).write_text("prompt,response\n")
    assert find_files([tmp_path]) == [tmp_path / name]


@pytest.mark.parametrize("names", [[], ["metrics.jsonl"], ["step_3/rank_0.bin"], ["checkpoints/step_3/model.bin"]])
def test_the_error_for_a_folder_without_rollouts_says_where_they_would_be(names, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match=r"holds no rollouts: .* nor in rollouts/ \(a run of progrpo or prime-rl\)"):
        find_files([tmp_path])


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("rollouts/step_12/train_rollouts.jsonl", 12),
        ("rollouts/step_7/train/all/traces.jsonl.gz", 7),
        ("log/train_iteration_000040_rollout_summaries.jsonl", 40),
        ("global_step_5.jsonl", 5),
        ("rollouts/9.jsonl", None),
        ("stepwise/data.jsonl", None),
        ("step_1/a/b/c/d/data.jsonl", None),
    ],
)
def test_steps_in_names(path, step, tmp_path):
    assert step_in_name(tmp_path / Path(path)) == step
