"""Runs from the command line: what they leave behind, and that they survive being stopped and killed."""

import json
import shutil
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

NOT_COMPARED = ("seconds", "step_time")  # wall-clock times


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in NOT_COMPARED} for line in lines]


def assert_same_run(one: Path, other: Path, weights: str = "model.safetensors") -> None:
    """The same curve, rollouts, weights and evaluations, to the last bit."""
    assert metrics(one) == metrics(other)
    a, b = (load_file(run / "checkpoints" / "checkpoint-6" / weights) for run in (one, other))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    for folder in ("evaluations", "rollouts"):
        names = sorted(path.name for path in (one / folder).iterdir())
        assert names == sorted(path.name for path in (other / folder).iterdir())
    for name in ("final", "step-000000", "step-000003"):
        assert (one / "evaluations" / f"{name}.json").read_text() == (
            other / "evaluations" / f"{name}.json"
        ).read_text()
    for path in (one / "rollouts").iterdir():
        pd.testing.assert_frame_equal(pd.read_parquet(path), pd.read_parquet(other / "rollouts" / path.name))


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_a_run_leaves_a_readable_folder(finished_run: Path) -> None:
    recipe = json.loads((finished_run / "recipe.json").read_text())
    assert recipe["training"]["steps"] == 6
    environment = json.loads((finished_run / "environment.json").read_text())
    assert environment["seed"] == 0
    assert environment["packages"]["trl"]
    assert [line["step"] for line in metrics(finished_run)] == [1, 2, 3, 4, 5, 6]

    rollouts = pd.concat(pd.read_parquet(path) for path in sorted((finished_run / "rollouts").iterdir()))
    assert len(rollouts) == 6 * 16
    row = rollouts.iloc[0]
    assert len(row["token_ids"]) == len(row["logps"])
    known = rollouts.dropna(subset=["answer_confidence"])
    np.testing.assert_allclose(known["advantage"], known["grpo_advantage"] + known["correction"], atol=1e-6)
    rewarded = rollouts.groupby(["step", "group"])["reward"].transform("sum") > 0
    alpha = recipe["methods"]["progrpo"]["alpha"]
    expected = np.where(rewarded, alpha * (rollouts["prompt_confidence"] - rollouts["answer_confidence"]), 0.0)
    np.testing.assert_allclose(rollouts["correction"], expected, atol=1e-6)
    assert ((rollouts["reward"] == 1) == rollouts["canonical"].notna()).all()

    final = json.loads((finished_run / "evaluations" / "final.json").read_text())
    samples = pd.read_parquet(finished_run / "evaluations" / "final-samples")
    assert len(final["problems"]) == 8
    assert len(samples) == 8 * 8
    correct = (samples["status"] == "correct").groupby(samples["problem_id"]).sum()
    assert {p["problem_id"]: p["correct"] for p in final["problems"]} == correct.to_dict()
    assert (finished_run / "report.html").stat().st_size > 10_000
    assert sorted(p.name for p in (finished_run / "checkpoints").glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-6",
    ]


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_says_how_to_resume_and_ends_on_the_same_curve(
    cli: Any, finished_run: Path, signal_number: signal.Signals
) -> None:
    run = cli.folder / "run"
    process = cli.start("train", "countdown_cpu", *cli.tiny, "--out", "run")
    wait_for(lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) >= 1)
    process.send_signal(signal_number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal_number, err
    assert "Continue with: progrpo train --resume run" in out
    stopped_at = len(metrics(run))
    assert 1 <= stopped_at < 6
    assert (run / "checkpoints" / f"checkpoint-{stopped_at}" / "model.safetensors").exists()

    cli("train", "--resume", "run")
    # The checkpoint at the stop is one more than the undisturbed run has; nothing else differs.
    assert_same_run(run, finished_run)


def test_a_killed_run_loses_no_more_than_the_steps_since_its_checkpoint(cli: Any, finished_run: Path) -> None:
    run = cli.folder / "run"
    for checkpoint in (2, 4):
        arguments = ["--resume", "run"] if checkpoint > 2 else ["countdown_cpu", *cli.tiny, "--out", "run"]
        cli.kill_as_soon_as((run / "checkpoints" / f"checkpoint-{checkpoint}").exists, "train", *arguments)
        assert (run / "checkpoints" / f"checkpoint-{checkpoint}" / "trainer_state.json").exists()
        for line in (run / "metrics.jsonl").read_text().splitlines():
            json.loads(line)
    cli("train", "--resume", "run")
    assert_same_run(run, finished_run)
    assert not list(run.rglob(".*.tmp"))


def test_a_finished_run_is_not_trained_again(cli: Any, finished_run: Path) -> None:
    before = (finished_run / "metrics.jsonl").read_text()
    assert "is finished" in cli("train", "--resume", str(finished_run)).out
    assert (finished_run / "metrics.jsonl").read_text() == before


def test_a_run_that_was_killed_before_its_report_gets_it(cli: Any, finished_run: Path) -> None:
    run = cli.folder / "run"
    shutil.copytree(finished_run, run)
    (run / "report.html").rename(run / ".report.html.0-1.tmp")
    assert "is finished" in cli("train", "--resume", "run").out
    assert (run / "report.html").stat().st_size > 10_000
    assert not list(run.rglob(".*.tmp"))


def test_evaluate_a_run_and_report_it(cli: Any, finished_run: Path) -> None:
    done = cli("evaluate", str(finished_run), "evaluation.samples=4", "--out", "four")
    assert "8 problems, 4 samples each" in done.out
    settings = json.loads((cli.folder / "four" / "countdown.json").read_text())["settings"]
    assert (settings["samples"], settings["model"]) == (4, "run")
    page = cli("report", str(finished_run), "--out", "page.html").out.strip().split("\n")[-1]
    assert (cli.folder / page).read_text().startswith("<!doctype html>")


def test_compare_trains_every_method_and_writes_one_page(cli: Any) -> None:
    """With num_iterations = 2 every second step learns from an earlier step's responses, and logs no reward."""
    arguments = ["compare", "countdown_cpu", *cli.tiny, "training.steps=2", "trl.num_iterations=2", "--out", "c"]
    arguments += ["--methods", "grpo,progrpo"]
    page = Path(cli(*arguments).out.strip().split("\n")[-1])
    assert page == Path("c/report.html")
    assert (cli.folder / page).exists()
    runs = sorted(path.parent for path in cli.folder.glob("c/*/metrics.jsonl"))
    assert [run.name for run in runs] == ["countdown_cpu-grpo-seed0", "countdown_cpu-progrpo-seed0"]
    assert [["reward" in line for line in metrics(run)] for run in runs] == [[True, False]] * 2
    first = [metrics(run)[0] for run in runs]
    assert first[0]["reward"] == first[1]["reward"], "both start from the same model on the same prompts"
    assert first[0]["correction/min"] == 0.0 > first[1]["correction/min"]
    again = time.monotonic()
    cli(*arguments)  # finished runs are not run again
    assert time.monotonic() - again < 30
    assert "holds a run with other settings" in cli(*arguments, "training.learning_rate=1.0", code=2).err


def test_a_failing_run_stops_no_other(cli: Any, cli_server: Any) -> None:
    """One run can't begin, one fails in its process; the third is trained and shown, and the command says so."""
    (cli.folder / "c").mkdir()
    (cli.folder / "c" / "countdown_cpu-grpo-seed0").touch()
    arguments = ["compare", "countdown_cpu", *cli.tiny, "training.steps=2", "evaluation.every=0", "--seeds", "0"]
    arguments += ["--methods", "grpo,gspo,progrpo", "methods.gspo.epsilon=high", "--jobs", "1", "--out", "c"]
    done = cli(*arguments, code=1)
    assert "run 'c/countdown_cpu-grpo-seed0' failed: " in done.err
    assert "run 'c/countdown_cpu-gspo-seed0' failed: progrpo: methods.gspo.epsilon should be a valid number" in done.err
    last = done.err.strip().split("\n")[-1]
    assert last.startswith("progrpo: 2 of 3 runs failed (c/countdown_cpu-grpo-seed0, c/countdown_cpu-gspo-seed0), and")
    assert "Traceback" not in done.err
    assert "ProGRPO" in (cli.folder / "c" / "report.html").read_text()
    assert (cli.folder / "c" / "countdown_cpu-progrpo-seed0" / "evaluations" / "final.json").exists()

    (cli.folder / "c" / "countdown_cpu-grpo-seed0").unlink()  # repaired: the same command does the missing part
    again = cli(*arguments, code=1)
    assert "1 of 3 runs failed" in again.err
    assert (cli.folder / "c" / "countdown_cpu-grpo-seed0" / "evaluations" / "final.json").exists()


def test_a_comparison_without_a_finished_run_has_no_page(cli: Any) -> None:
    done = cli("compare", "countdown_cpu", *cli.tiny, "model.path=/nowhere", "--out", "c", code=1)
    assert "failed: progrpo: model '/nowhere' can't be loaded" in done.err
    assert "2 of 2 runs failed" in done.err
    assert "there is nothing to show" in done.err
    assert not (cli.folder / "c" / "report.html").exists()


def test_the_page_of_several_runs_replaces_no_other_page(cli: Any, finished_run: Path) -> None:
    """It does not replace the page of a run or of the comparison. Folders that are not runs are named and left out."""
    for name in ("a", "b"):
        shutil.copytree(finished_run, cli.folder / "runs" / name)
        (cli.folder / "runs" / name / "report.html").write_text(f"page of {name}")
    (cli.folder / "runs" / "report.html").write_text("page of progrpo compare")
    shown = sorted(str(path.relative_to(cli.folder)) for path in (cli.folder / "runs").iterdir())
    assert shown == ["runs/a", "runs/b", "runs/report.html"]
    for arguments in (shown, ["runs"], ["runs/a", "runs/b", "runs/a"]):
        done = cli("report", *arguments)
        assert done.out.strip().endswith("runs/comparison.html")
        left_out = "left out, because they are neither runs nor evaluations: 'runs/report.html'"
        assert (left_out in done.err) == (arguments == shown)
    for name in ("a", "b"):
        assert (cli.folder / "runs" / name / "report.html").read_text() == f"page of {name}"
    assert (cli.folder / "runs" / "report.html").read_text() == "page of progrpo compare"
    page = (cli.folder / "runs" / "comparison.html").read_text()
    assert "2 runs of ProGRPO" in page, "the one that was named twice is there once"

    shutil.copytree(finished_run, cli.folder / "elsewhere" / "c")
    assert cli("report", "runs/a", "elsewhere/c").out.strip().split("\n")[-1] == "comparison.html"


def test_doctor_names_versions_and_what_is_missing(cli: Any) -> None:
    shown = cli("doctor").out
    assert "torch" in shown
    assert "train, compare, evaluate: ready" in shown
    assert f"evaluation with vLLM: {'needs vllm' if find_spec('vllm') is None else 'ready'}" in shown


def test_evaluations_go_where_the_training_metrics_go(cli: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cli("train", "countdown_cpu", *cli.tiny, 'trl.report_to="tensorboard"', "--out", "run")
    [log] = (cli.folder / "run" / "checkpoints" / "runs").iterdir()
    events = EventAccumulator(str(log))
    events.Reload()
    assert len(events.Scalars("train/reward")) == 6
    output = {event.step: event.value for event in events.Scalars("eval/pass@1")}
    evaluations = cli.folder / "run" / "evaluations"
    written = {0: "step-000000", 3: "step-000003", 6: "final"}
    for step, name in written.items():
        summary = json.loads((evaluations / f"{name}.json").read_text())["summary"]
        assert output.pop(step) == pytest.approx(summary["pass@1"])
    assert output == {}


def test_a_failed_comparison_run_quotes_the_log_of_its_last_attempt(tmp_path: Path) -> None:
    from progrpo.cli.compare import _Run
    from progrpo.recipes.schema import load_recipe
    from progrpo.runs.folder import RunFolder

    run = _Run(load_recipe("countdown_cpu"), RunFolder(tmp_path))
    run.log.write_text("progrpo: the disk is full\n")
    run.earlier_log = run.log.stat().st_size
    assert run.failure(-9) == f"it was ended by SIGKILL, as the system does when memory runs out (its log is {run.log})"
    assert run.failure(3) == f"exit code 3 (the whole log is {run.log})"
    with run.log.open("a") as log:
        log.write("one\nprogrpo: another reason\n")
    assert run.failure(1) == f"progrpo: another reason (the whole log is {run.log})"


def test_one_seed_written_in_two_ways_is_refused(cli: Any) -> None:
    done = cli("compare", "countdown_cpu", *cli.tiny, "--methods", "grpo", "--seeds", "0,+0", code=2)
    assert done.err == "progrpo: --seeds '0,+0' names a seed twice; give each once.\n"
