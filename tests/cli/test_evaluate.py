"""``progrpo evaluate``, as users run it."""

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from verify.shared_data import shared_file

HELD_OUT = ("countdown", "task.heldout_size=40", "task.numbers=3", "--samples", "24")


def results(out: Path, name: str = "countdown") -> dict[str, Any]:
    return json.loads((out / f"{name}.json").read_text())


def test_held_out_problems_of_a_recipe(cli: Any) -> None:
    told = cli("evaluate", "countdown", "task.heldout_size=6", "--samples", "8", "--out", "e").out
    found = results(cli.folder / "e")
    assert found["settings"]["model"] == "countdown"
    assert [problem["samples"] for problem in found["problems"]] == [8] * 6
    assert "over sampling only" in told
    assert re.search(rf"^pass@1 +{found['summary']['pass@1']:.3f} ", told, re.MULTILINE)
    assert "distribution that each was drawn from" in " ".join(told.split())


def test_a_killed_evaluation_goes_on_and_ends_as_if_nothing_had_been(cli: Any) -> None:
    cli("evaluate", *HELD_OUT, "--out", "whole")
    process = cli.start("evaluate", *HELD_OUT, "--batch", "2", "--out", "killed")
    parts = cli.folder / "killed" / "countdown-samples"
    deadline = time.monotonic() + 120
    while not list(parts.glob("part-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = pd.read_parquet(parts)
    assert 0 < len(kept) < 40 * 24
    assert not (cli.folder / "killed" / "countdown.json").exists()

    cli("evaluate", *HELD_OUT, "--out", "killed")
    samples = pd.read_parquet(parts)
    assert len(samples) == 40 * 24
    assert not samples.duplicated(["problem_id", "index"]).any()
    both = samples.merge(pd.read_parquet(cli.folder / "whole" / "countdown-samples"), on=["problem_id", "index"])
    assert (both["text_x"] == both["text_y"]).mean() > 0.99  # rounding may turn a near-tie
    whole, resumed = (results(cli.folder / name)["summary"] for name in ("whole", "killed"))
    assert resumed == pytest.approx(whole, abs=0.01)


def test_benchmarks_from_local_files(cli: Any) -> None:
    file = shared_file("aime24.jsonl")
    template = "{problem} {instruction}"
    options = ("--limit", "3", "--samples", "2", "--max-new-tokens", "4", "--template", template, "--out", "e")
    cli("evaluate", "countdown", "--benchmarks", "aime24", "--data", f"aime24={file}", *options)
    found = results(cli.folder / "e", "aime24")
    assert found["settings"]["name"] == "aime24"
    assert found["summary"]["maj@2"] == 0
    assert [problem["no_answer"] for problem in found["problems"]] == [2, 2, 2]
    assert found["summary"]["truncated"] > 0.5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("countdown", "--benchmarks", "aime"), "there is no benchmark 'aime'; did you mean 'aime2"),
        (("countdown", "--benchmarks", "aime24", "--data", "amc23=x.jsonl"), "--data names 'amc23', which is not"),
        (("countdown", "--benchmarks", "aime24", "--data", "x"), "--data must be of the form NAME=FILE"),
        (("countdown", "--benchmarks", "aime24", "--data", "aime24=x.jsonl"), "data file 'x.jsonl' does not exist"),
        (("countdown", "--benchmarks", "aime24", "task.numbers=3"), "a benchmark has no recipe"),
        (("countdown", "--data", "aime24=x.jsonl"), "name the benchmark with --benchmarks"),
        (("countdown", "--engine", "max_model_len=9"), "is an argument of vLLM: add --backend vllm"),
        (("countdown", "--codeforces", "folder"), "add it to --benchmarks"),
        (("countdown", "--dtype", "float33"), "float33"),
        (("countdown", "--temperature", "0"), "temperature must be a number above 0, got 0.0"),
        (("countdown", "--top-p", "1.5"), "top_p must be above 0 and at most 1, got 1.5"),
        (("nowhere", "--samples", "2"), "model 'nowhere' can't be loaded"),
        (("x", "--backend", "http", "--base-url", "localhost"), "base_url must start with http"),
    ],
)
def test_bad_input_gets_a_sentence(cli: Any, arguments: tuple[str, ...], told: str) -> None:
    failed = cli("evaluate", *arguments, code=2)
    assert told in failed.err
    assert "Traceback" not in failed.err


def test_another_way_of_sampling_is_refused_and_nothing_is_lost(cli: Any) -> None:
    arguments = ("evaluate", "countdown", "task.heldout_size=4", "--samples", "4", "--out", "e")
    cli(*arguments)
    before = results(cli.folder / "e")
    failed = cli(*arguments, "--temperature", "0.5", code=2)
    assert "holds samples of another evaluation (temperature 1.0, not 0.5); choose another --out" in failed.err
    assert results(cli.folder / "e") == before
