"""Going back to an intact checkpoint: what is dropped, what is kept, what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from progrpo.common.errors import ConfigError
from progrpo.common.files import write_json, write_text
from progrpo.recipes.schema import load_recipe
from progrpo.runs.checkpoints import publish
from progrpo.runs.folder import RunFolder

STEPS = 9


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Nine steps, and checkpoints of steps 3, 6 and 8."""
    folder = RunFolder(tmp_path / "run")
    folder.start(load_recipe("countdown_cpu", ["training.checkpoint_every=3"]), {})
    for step in range(1, STEPS + 1):
        folder.append_metrics({"step": step, "loss": step / 10})
        for rank in (0, 1):
            write_text(folder.rollouts / f"step-{step:06d}-rank{rank}.parquet", f"{step} {rank}")
        write_json(folder.evaluations / f"step-{step:06d}.json", {"step": step})
        write_text(folder.evaluations / f"step-{step:06d}-samples" / "part-000000.parquet", str(step))
    for step in (3, 6, 8):
        written = folder.path / f"checkpoint-{step}"
        write_text(written / "model.safetensors", "weights" * step)
        publish(written, folder.checkpoints, keep=3)
    return folder


def steps(folder: RunFolder) -> list[int]:
    return [record["step"] for record in folder.metrics()]


def names(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


@pytest.mark.parametrize(("damaged", "step"), [((), 8), ((8,), 6), ((8, 6), 3), ((6,), 8)])
def test_records_go_back_to_the_checkpoint_that_is_used(run: RunFolder, damaged: tuple[int, ...], step: int) -> None:
    for bad in damaged:
        write_text(run.checkpoints / f"checkpoint-{bad}" / "model.safetensors", "x")
    assert run.rewind() == step
    assert steps(run) == list(range(1, step + 1))
    kept = [f"step-{s:06d}-rank{rank}.parquet" for s in range(1, step + 1) for rank in (0, 1)]
    assert names(run.rollouts, "step-*") == kept
    assert len(run.recorded_rollouts()) == 2 * (STEPS - step)
    assert names(run.evaluations, "*.json") == [f"step-{s:06d}.json" for s in range(1, step + 1)]
    assert len(names(run.evaluations, "*-samples")) == STEPS, "samples are kept: they may be of the same weights"
    newer_and_damaged = [bad for bad in damaged if bad > step]
    assert names(run.checkpoints, "damaged-*") == sorted(f"damaged-checkpoint-{bad}" for bad in newer_and_damaged)
    events = [json.loads(line) for line in run.events_file.read_text().splitlines()] if newer_and_damaged else []
    assert [event["checkpoint"] for event in events] == [f"checkpoint-{step}"] * len(newer_and_damaged)
    if newer_and_damaged:
        assert (
            f"checkpoint-{newer_and_damaged[0]} can't be used: model.safetensors has 1 bytes, but"
            in (events[0]["text"])
        )
    before = sorted(run.path.rglob("*"))
    assert run.rewind() == step
    assert sorted(run.path.rglob("*")) == before, "once is enough"


def test_recorded_rollouts_stay_until_their_step_is_in_a_checkpoint(run: RunFolder) -> None:
    shutil.rmtree(run.checkpoints / "checkpoint-8")
    run.rewind()
    assert names(run.rollouts, ".*") == [
        f".step-{step:06d}-rank{rank}.recorded" for step in (7, 8, 9) for rank in (0, 1)
    ]
    for step in (7, 8):  # the run goes on to a checkpoint of step 8
        run.append_metrics({"step": step})
        write_text(run.rollouts / f"step-{step:06d}-rank0.parquet", "again")
    write_text(run.path / "checkpoint-8" / "model.safetensors", "weights")
    publish(run.path / "checkpoint-8", run.checkpoints, keep=2)
    assert run.rewind() == 8
    assert names(run.rollouts, ".*") == [f".step-000009-rank{rank}.recorded" for rank in (0, 1)]


def test_without_a_good_checkpoint_nothing_is_changed(run: RunFolder) -> None:
    for step in (3, 6, 8):
        (run.checkpoints / f"checkpoint-{step}" / "digests.json").unlink()
    before = sorted(run.path.rglob("*"))
    with pytest.raises(
        ConfigError, match=r"no checkpoint of .*run' can be used \(checkpoint-8: it has no digests.json"
    ):
        run.rewind()
    assert sorted(run.path.rglob("*")) == before


def test_a_run_whose_checkpoints_are_gone_does_not_silently_start_again(run: RunFolder) -> None:
    shutil.rmtree(run.checkpoints)
    with pytest.raises(ConfigError, match="has metrics up to step 9 but no checkpoint"):
        run.rewind()
    assert steps(run) == list(range(1, STEPS + 1))


def test_a_run_without_its_first_checkpoint_starts_again(run: RunFolder) -> None:
    shutil.rmtree(run.checkpoints)
    write_text(run.metrics_file, "".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)))
    assert run.rewind() == 0
    assert run.metrics() == []


def test_a_checkpoint_that_can_not_be_resumed_is_refused_before_anything_is_changed(run: RunFolder) -> None:
    def refuse(checkpoint: Path) -> None:
        raise ConfigError(f"not {checkpoint.name}")

    with pytest.raises(ConfigError, match="not checkpoint-8"):
        run.rewind(refuse)
    assert steps(run) == list(range(1, STEPS + 1))


def test_a_damaged_line_is_named(run: RunFolder) -> None:
    lines = run.metrics_file.read_bytes().split(b"\n")
    run.metrics_file.write_bytes(b"\n".join([lines[0], b"\0\0\xff", *lines[2:]]))
    with pytest.raises(ConfigError, match=r"line 2 of '.*metrics.jsonl' is damaged; put the file back"):
        run.rewind()


HOLD = """
import sys, time
from pathlib import Path
from progrpo.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_until_its_process_ends_even_by_a_kill(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=rf"run' is being written by process {holder.pid} on "), folder.locked():
        pass
    holder.kill()
    holder.wait()
    with folder.locked():
        assert folder.path.is_dir()


def test_a_new_folder_without_a_run_is_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ConfigError, match="no such model"), folder.locked():
        raise ConfigError("no such model")
    assert not folder.path.exists()
