"""``progrpo inspect`` as users run it: a run's own numbers, one sentence for what can't be read, bounded memory."""

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from progrpo.inspection import Options, inspect

ROWS = 100_000
PEAK_BYTES = 560e6
"""torch and pandas alone take 350 MB; held in memory, the texts below would add 225 MB, their objects more."""
PEAK_OF = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""An intermediate process: a child's peak starts at its parent's memory, and the tests use much memory."""


def metrics_of(run: Path) -> dict[int, dict[str, Any]]:
    return {record["step"]: record for record in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())}


def check_against(run: Path, inspected: Any, steps: list[int]) -> None:
    """The measures equal the numbers that the run recorded during training."""
    metrics = metrics_of(run)
    assert inspected.collapse.steps.tolist() == steps
    for name, recorded in {
        "reward": "reward",
        "groups/all_right": "groups/all_right",
        "groups/mixed": "groups/mixed",
        "groups/all_wrong": "groups/all_wrong",
        "distinct_solutions": "distinct_solutions",
        "length": "completions/mean_length",
        "confidence/answer": "confidence/answer/mean",
        "confidence/prompt": "confidence/prompt/mean",
    }.items():
        expected = [metrics[step][recorded] for step in steps]
        np.testing.assert_allclose(inspected.collapse.by_step[name], expected, rtol=1e-4, err_msg=name)
    what_if = inspected.what_if
    for step in steps:
        of_step = inspected.table.steps_B[what_if.rows_B] == step
        correction = (what_if.progrpo_B - what_if.grpo_B)[of_step]
        # These include groups without a right response, in which nothing is corrected.
        assert correction.mean() == pytest.approx(metrics[step]["correction/mean"], rel=1e-3)


def test_the_measures_match_the_runs_own_numbers(cli: Any, finished_run: Path) -> None:
    steps = sorted({int(path.name.split("-")[1]) for path in (finished_run / "rollouts").glob("*.parquet")})
    inspected = inspect([finished_run], Options())
    check_against(finished_run, inspected, steps)
    # An estimate from 200 tokens per step; the run computed the entropy over the whole vocabulary.
    entropies = [metrics_of(finished_run)[step]["entropy"] for step in steps]
    assert np.mean(inspected.collapse.by_step["entropy"]) == pytest.approx(np.mean(entropies), rel=0.25)

    done = cli("inspect", str(finished_run), "--out", "page.html", "--corrections", "new/corrections.parquet")
    assert "rollouts of a progrpo run" in done.out
    assert done.out.strip().endswith("page.html")
    assert (cli.folder / "page.html").exists()
    table = pd.read_parquet(cli.folder / "new" / "corrections.parquet")
    rollouts = pd.concat(map(pd.read_parquet, sorted((finished_run / "rollouts").glob("*.parquet"))))
    assert table["row"].tolist() == list(range(len(rollouts)))
    for name in ("reward", "prompt_confidence", "answer_confidence", "grpo_advantage", "correction", "advantage"):
        np.testing.assert_allclose(table[name], rollouts[name], atol=1e-5, err_msg=name)


def test_the_models_log_probs_match_the_runs(cli: Any, finished_run: Path) -> None:
    """Only in the first step, because its rollouts come from the shipped model before any update."""
    rollouts = pd.read_parquet(finished_run / "rollouts" / "step-000001-rank0.parquet")
    bare = rollouts[["step", "prompt", "text", "reward", "token_ids"]]
    bare.to_json(cli.folder / "bare.jsonl", orient="records", lines=True)
    columns = ("--prompt", "prompt", "--response", "text", "--reward", "reward", "--token-ids", "token_ids")
    done = cli(
        "inspect", "bare.jsonl", *columns, "--step", "step", "--model", "countdown", "--corrections", "c.parquet"
    )
    assert "computed for 16 responses in 4 of 4 groups" in done.out.replace("\n", " ")
    table = pd.read_parquet(cli.folder / "c.parquet")
    for name in ("prompt_confidence", "answer_confidence", "grpo_advantage"):
        np.testing.assert_allclose(table[name], rollouts[name], atol=1e-4, err_msg=name)
    assert r"\u003ceos\u003e" in (cli.folder / "inspect.html").read_text()


def write_bad(folder: Path) -> None:
    """Files that can't be used, and one that can."""
    good = {"step": 1, "input": "1 + 1?", "output": "2", "gts": "2", "score": 1.0}
    (folder / "good.jsonl").write_text(json.dumps(good) + "\n")
    (folder / "empty.jsonl").write_text("")
    (folder / "binary.parquet").write_bytes(bytes(range(256)) * 40)
    (folder / "notes.txt").write_text("prompt, completion\n")
    (folder / "array.json").write_text(json.dumps([good]))
    (folder / "broken.jsonl").write_text("{nonsense\n" + json.dumps(good) + "\n")
    (folder / "unjudged.jsonl").write_text(json.dumps(good | {"score": None}) + "\n")
    (folder / "other.jsonl").write_text(json.dumps({"question": "1 + 1?", "text": "2"}) + "\n")
    (folder / "cut.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(good)[:20])
    (folder / "nothing").mkdir()
    (folder / "nested.jsonl").write_text(json.dumps(good | {"output": {"text": "2", "score": 1.0}}) + "\n")
    (folder / "lists.jsonl").write_text(json.dumps(good | {"output": ["2", "3"], "score": [1.0]}) + "\n")
    (folder / "wide.jsonl").write_text(json.dumps(dict.fromkeys(f"metric_{i}" for i in range(30)) | good_last()) + "\n")
    (folder / "cut.parquet").write_bytes(parquet_of([good] * 2000)[:-40])
    (folder / "overwritten.parquet").write_bytes(overwritten(parquet_of([good] * 2000)))


def good_last() -> dict[str, Any]:
    return {"question": "1 + 1?", "the_response": "2"}


def parquet_of(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pd.DataFrame(rows).to_parquet(file, index=False, compression="zstd")
    return file.getvalue()


def overwritten(content: bytes) -> bytes:
    """The footer is intact, but the data before it is not."""
    return content[:4] + b"\x00" * 60 + content[64:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "'nowhere' does not exist; give a parquet, JSON-lines or CSV file of rollouts, or a f"),
        (["empty.jsonl"], "'empty.jsonl' is empty"),
        (["binary.parquet"], "'binary.parquet' is neither parquet nor JSON lines"),
        (["notes.txt"], "'notes.txt' is neither parquet nor JSON lines"),
        (["array.json"], "(a JSON array: jq -c '.[]' turns it into lines)"),
        (["broken.jsonl"], "line 1 of 'broken.jsonl' is not a JSON object"),
        (["unjudged.jsonl"], "no response has a reward: all of column 'score' is null or NaN"),
        (["other.jsonl"], "its columns are 'question', 'text': name the missing ones with --prompt COL --response COL"),
        (["nothing"], "folder 'nothing' holds no rollouts"),
        (["nested.jsonl"], "column 'output' holds dicts, which are not read as text"),
        (["lists.jsonl"], "row 1: column 'score' holds 1 entries, but column 'output' holds 2 responses"),
        (["wide.jsonl"], "'metric_29', 'question', 'the_response': name the missing ones"),
        (["wide.jsonl", "--response", "response"], "is not a column of the file (did you mean 'the_response'?)"),
        (["cut.parquet"], "'cut.parquet' is a damaged parquet file"),
        (["overwritten.parquet"], "'overwritten.parquet' is a damaged parquet file"),
        (["good.jsonl", "--correct-above", "nan"], "--correct-above must be a number in (-inf, inf), got nan"),
        (["good.jsonl", "--correct-reward", "scores"], "--correct-reward 'scores' is not a column of the file"),
        (["good.jsonl", "--corrections", "nothing"], "--corrections 'nothing' is a folder; give the name of a parquet"),
        (["good.jsonl", "--out", "good.jsonl/page.html"], "the folder 'good.jsonl' can't be written (File exists)"),
        (["good.jsonl", "--logps", "logp"], "--logps 'logp' is not a column of the file"),
        (["good.jsonl", "--alpha", "-1"], "--alpha must be a number in [0.0, inf), got -1.0"),
        (["good.jsonl", "--low-prob-fraction", "0"], "--low-prob-fraction must be a number in (0.0, 1.0], got 0.0"),
        (["good.jsonl", "--center", "mean"], "--center must be one of 'prompt', 'group', 'correct', got 'mean'"),
        (["good.jsonl", "--model", "/nowhere"], "model '/nowhere' can't be loaded"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_sentence_and_exit_code_2(cli: Any, arguments: list[str], message: str) -> None:
    write_bad(cli.folder)
    done = cli("inspect", *arguments, code=2)
    assert message in done.err
    assert "Traceback" not in done.err + done.out
    assert done.err.strip().count("\n") == 0
    assert not list(cli.folder.glob("*.html"))


def test_a_line_that_was_cut_off(cli: Any) -> None:
    write_bad(cli.folder)
    done = cli("inspect", "cut.jsonl")
    assert "The last line of cut.jsonl was cut off: it is left out." in done.out
    assert "1 response in 1 group" in done.out


def test_a_folder_for_the_page(cli: Any) -> None:
    write_bad(cli.folder)
    done = cli("inspect", "good.jsonl", "--out", "nothing")
    assert done.out.strip().endswith("nothing/inspect.html")
    assert (cli.folder / "nothing" / "inspect.html").exists()


def test_one_row_a_prompt_with_a_threshold(cli: Any) -> None:
    """The file is packed, has lists, and has the step in its name; the numbers and the assumptions are printed."""
    rows = [{"prompt": f"p{i}", "responses": ["a", "b", "c", "d"], "scores": [0.1, 0.2, 0.9, 1.0]} for i in range(12)]
    with gzip.open(cli.folder / "step_3.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    shown = " ".join(cli("inspect", "step_3.jsonl.gz", "--correct-above", "0.5").out.split())
    assert "48 responses in 12 groups, 1 step; one row a prompt" in shown
    assert "pass@1 50.0 % pass@2 83.3 % pass@4 100.0 %" in shown
    assert "Whether the policy collapses over training can't be said: all responses are of one step." in shown
    assert "Rewards are graded: 4 values from 0.1 to 1. A response is right if its reward is above 0.5" in shown
    assert "teach GRPO nothing" not in shown


def test_help_shows_examples(cli: Any) -> None:
    shown = cli("inspect", "--help").out
    assert "Examples" in shown
    assert "progrpo inspect" in shown


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_many_rows_in_bounded_memory(cli: Any, kind: str) -> None:
    """benchmarks/inspect_rollouts.py is the same with a million rows."""
    rng = np.random.default_rng(0)  # text that compresses well would not fill the memory
    table = pd.DataFrame({"n": np.arange(ROWS)})
    table["input"] = "problem " + (table["n"] // 16).astype(str)
    table["output"] = [rng.bytes(1000).hex(" ", 4) for _ in range(ROWS)]
    table["score"], table["step"] = table["n"] % 3 == 0, table["n"] // 1600
    path = cli.folder / f"many.{kind}"
    if kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    elif kind == "csv":
        table.to_csv(path, index=False)
    else:  # one row group, as pandas writes it
        table.to_parquet(path, index=False, row_group_size=ROWS)
    command = [sys.executable, "-m", "progrpo", "inspect", str(path), "--out", str(cli.folder / "page.html")]
    process = subprocess.run(
        [sys.executable, "-c", PEAK_OF, *command], cwd=cli.folder, env=cli.environment, capture_output=True, check=True
    )
    *shown, peak = process.stdout.decode().splitlines()
    assert "100,000 responses in 6,250 groups, 63 steps" in " ".join(" ".join(shown).split())
    assert int(peak) * (1 if sys.platform == "darwin" else 1024) < PEAK_BYTES
    assert (cli.folder / "page.html").stat().st_size < 8e6


def test_responses_of_other_trainers_are_judged_again(cli: Any) -> None:
    """verl's dump of a run whose chat template ended in ``<think>``; its reward accepted unfinished responses."""
    responses = [r"Maybe \boxed{5}? Wait, that can't be right", "2 and 3.</think> The answer is 5."]
    rows = [
        {"input": "user\n2 + 3?\nassistant\n<think>\n", "output": text, "gts": "5", "score": score, "step": 1}
        for text, score in zip(responses, (1.0, 0.0), strict=True)
    ]
    (cli.folder / "1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for options, rewards in (
        ((), [1.0, 0.0]),
        (("--verify", "math", "--gold", "gts"), [0.0, 0.0]),
        (("--verify", "math_any", "--gold", "gts"), [0.0, 1.0]),
    ):
        cli("inspect", "1.jsonl", *options, "--corrections", "out.parquet")
        assert pd.read_parquet(cli.folder / "out.parquet")["reward"].tolist() == rewards
    assert "--verify NAME and --gold COL go together" in cli("inspect", "1.jsonl", "--verify", "math", code=2).err
