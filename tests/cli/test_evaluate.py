"""``progrpo evaluate``, as users run it."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet
import pytest
from tests.sampling import http_server as server_side
from tests.sampling.http_server import Server
from tests.tiny import aime_rows, deepcoder_rows, write_rows
from tests.verify.shared_data import shared_file

from progrpo.sampling import http
from progrpo.sampling.http import HttpBackend

HELD_OUT = ("countdown", "task.heldout_size=40", "task.numbers=3", "--samples", "24")


def results(out: Path, name: str = "countdown") -> dict[str, Any]:
    return json.loads((out / f"{name}.json").read_text())


def test_held_out_problems_of_a_recipe(cli: Any) -> None:
    output = cli("evaluate", "countdown", "task.heldout_size=6", "--samples", "8", "--out", "e").out
    result = results(cli.folder / "e")
    assert result["settings"]["model"] == "countdown"
    assert [problem["samples"] for problem in result["problems"]] == [8] * 6
    assert "over sampling only" in output
    assert re.search(rf"^pass@1 +{result['summary']['pass@1']:.3f} ", output, re.MULTILINE)
    assert "distribution that each was drawn from" in " ".join(output.split())


def test_a_killed_evaluation_goes_on_to_the_same_results(cli: Any) -> None:
    cli("evaluate", *HELD_OUT, "--out", "whole")
    parts = cli.folder / "killed" / "countdown-samples"
    arguments = ("evaluate", *HELD_OUT, "--batch", "2", "--out", "killed")
    cli.kill_as_soon_as(lambda: list(parts.glob("part-*")), *arguments)
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
    result = results(cli.folder / "e", "aime24")
    assert result["settings"]["name"] == "aime24"
    assert result["summary"]["maj@2"] == 0
    assert [problem["no_answer"] for problem in result["problems"]] == [2, 2, 2]
    assert result["summary"]["truncated"] > 0.5


def test_failed_verdicts_concern_only_their_own_problems(cli: Any) -> None:
    """A lost verifier leaves errors in the store: on one sample of one problem, and on all samples of another."""
    arguments = ("evaluate", "countdown", "task.heldout_size=5", "task.numbers=3", "--samples", "4", "--out", "e")
    whole = cli(*arguments).out
    assert "5 problems, 4 samples each" in whole
    [part] = (cli.folder / "e" / "countdown-samples").glob("part-*")
    samples = pd.read_parquet(part)
    first, second = samples["problem_id"].unique()[:2]
    failed = (samples["problem_id"] == first) | ((samples["problem_id"] == second) & (samples["index"] == 3))
    samples.loc[failed, ["status", "reason", "canonical"]] = ["error", "the worker is lost", None]
    table = pyarrow.parquet.read_table(part)
    pyarrow.parquet.write_table(pyarrow.Table.from_pandas(samples, schema=table.schema, preserve_index=False), part)

    output = cli(*arguments).out
    assert "4 problems, up to 4 samples each" in output
    assert re.search(r"^pass@2 .* 4 *$", output, re.MULTILINE)
    assert re.search(r"^pass@4 .* 3 *$", output, re.MULTILINE)
    assert re.search(r"^avg@4 .* 4 *$", output, re.MULTILINE)
    assert "measures at k are over 3 of 4 problems from k = 4." in " ".join(output.split())
    assert f"These problems have no judged sample and are in no mean: {first}" in " ".join(output.split())
    result = results(cli.folder / "e")
    assert result["summary"]["problems with 4 samples"] == 3
    assert result["intervals"]["pass@4"]["problems"] == 3
    of_others = [p["correct"] > 0 for p in result["problems"] if p["samples"] == 4]
    assert result["summary"]["pass@4"] == pytest.approx(sum(of_others) / 3)
    assert "3 of 4 problems" in (cli.folder / "e" / "report.html").read_text(encoding="utf-8")


def test_a_server_that_ignores_temperature_is_reported_without_entropy(cli: Any) -> None:
    pytest.importorskip("openai")
    server = Server()
    server.always = server_side.ignore_sampling
    arguments = ("task.heldout_size=3", "task.numbers=3", "--samples", "4", "--out", "e")
    try:
        output = cli("evaluate", "tiny", "--backend", "http", "--base-url", server.url, *arguments).out
    finally:
        server.close()
    warning = (
        "all 4 samples of 3 of 3 prompts are equal at temperature 1: does the server ignore the temperature, or "
        "has the policy collapsed?"
    )
    assert f"Warning: {warning}" in " ".join(output.split())
    result = results(cli.folder / "e")
    assert result["settings"]["warnings"] == [warning]
    assert [problem["tokens"] for problem in result["problems"]] == [20, 20, 20]
    assert "entropy" not in output.replace("answer_entropy", "")
    assert "entropy" not in result["summary"]
    page = (cli.folder / "e" / "report.html").read_text(encoding="utf-8")
    assert warning in page


def test_a_wrong_number_of_rows_is_reported_before_sampling(cli: Any) -> None:
    """AIME's rows have MATH-500's columns: only their number shows the mistake."""
    file = shared_file("aime24.jsonl")
    options = ("--samples", "1", "--max-new-tokens", "2", "--template", "{problem}", "--out", "e")
    said = cli("evaluate", "countdown", "--benchmarks", "math500", "--data", f"math500={file}", *options).err
    assert "progrpo: math500: 500 problems are published and these rows hold 30" in said
    said = cli(
        "evaluate", "countdown", "--benchmarks", "math500", "--data", f"math500={file}", *options, "--limit", "30"
    )
    assert "are published" not in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("countdown", "--benchmarks", "aime"), "there is no benchmark 'aime'; did you mean 'aime2"),
        (("countdown", "--benchmarks", "aime24", "--data", "amc23=x.jsonl"), "--data names 'amc23', which is not"),
        (("countdown", "--benchmarks", "aime24", "--data", "x"), "--data must be of the form NAME=FILE"),
        (("countdown", "--benchmarks", "aime24", "--data", "aime24=x.jsonl"), "data file 'x.jsonl' does not exist"),
        (("countdown", "--benchmarks", "aime24", "task.numbers=3"), "a benchmark has no recipe"),
        (("countdown", "--data", "aime24=x.jsonl"), "name the benchmark with --benchmarks"),
        (("countdown", "--engine", "max_model_len=9"), "--engine max_model_len=9 is for --backend vllm, and the"),
        (("countdown", "--codeforces", "folder"), "add it to --benchmarks"),
        (("countdown", "--dtype", "float33"), "float33"),
        (("countdown", "--temperature", "-1"), "temperature must be a finite number from 0, got -1.0"),
        (
            ("countdown", "--temperature", "0", "--samples", "4"),
            "gives the same response each time: leave out --samples 4",
        ),
        (("countdown", "--temperature", "0", "--top-p", "0.5"), "top_p must be 1 at temperature 0"),
        (("countdown", "--limit", "3"), "--limit is for benchmarks: name them with --benchmarks"),
        (("countdown", "--template", "base"), "--template is for benchmarks: name them with --benchmarks"),
        (
            ("countdown", "--base-url", "http://x"),
            "--base-url http://x is for --backend http, and the backend is trans",
        ),
        (("countdown", "--concurrency", "3"), "--concurrency 3 is for --backend http, and the backend is transformers"),
        (("countdown", "--patience", "3"), "--patience 3.0 is for --backend http, and the backend is transformers"),
        (
            ("x", "--backend", "http", "--batch", "3"),
            "--batch 3 is for --backend transformers, and the backend is http",
        ),
        (("x", "--backend", "http", "--dtype", "auto"), "--dtype auto is for --backend transformers or vllm, and the"),
        (("countdown", "--top-p", "1.5"), "top_p must be above 0 and at most 1, got 1.5"),
        (("nowhere", "--samples", "2"), "model 'nowhere' can't be loaded"),
        (("x", "--backend", "http", "--base-url", "localhost"), "base_url must start with http"),
    ],
)
def test_bad_input_gets_a_sentence(cli: Any, arguments: tuple[str, ...], message: str) -> None:
    failed = cli("evaluate", *arguments, code=2)
    assert message in failed.err
    assert "Traceback" not in failed.err


def test_another_way_of_sampling_is_refused_and_nothing_is_lost(cli: Any) -> None:
    arguments = ("evaluate", "countdown", "task.heldout_size=4", "--samples", "4", "--out", "e")
    cli(*arguments)
    before = results(cli.folder / "e")
    failed = cli(*arguments, "--temperature", "0.5", code=2)
    assert "holds samples of another evaluation (temperature 1.0, not 0.5); choose another --out" in failed.err
    assert results(cli.folder / "e") == before


def test_greedy_decoding_takes_one_response_a_problem(cli: Any) -> None:
    arguments = ("evaluate", "countdown", "task.numbers=3", "task.heldout_size=6", "--temperature", "0")
    output = cli(*arguments, "--out", "e").out
    assert "6 problems, 1 sample each, greedy (temperature 0)" in output
    assert "of the entropy of the model's distribution at temperature 1" in " ".join(output.split())
    result = results(cli.folder / "e")
    assert (result["settings"]["temperature"], result["settings"]["samples"]) == (0.0, 1)
    assert result["settings"]["entropy"] == "greedy"
    assert result["summary"]["entropy"] > 0
    cli(*arguments, "--seed", "7", "--samples", "1", "--out", "other")
    texts = [pd.read_parquet(cli.folder / name / "countdown-samples")["text"].tolist() for name in ("e", "other")]
    assert texts[0] == texts[1], "no seed makes a difference"


class TestSeveralBenchmarks:
    """The failure of one benchmark is reported and does not stop the others."""

    def arguments(self, folder: Path) -> list[str]:
        code = write_rows(folder / "codeforces.jsonl", deepcoder_rows(1))
        rows = write_rows(folder / "aime.jsonl", aime_rows(2))
        how = ["--samples", "2", "--max-new-tokens", "4", "--template", "{problem} {instruction}", "--out", "e"]
        data = ["--data", f"codeforces={code}", "--data", f"aime24={rows}"]
        return ["evaluate", "countdown", "--benchmarks", "codeforces,aime24", *data, *how]

    def test_standings_that_cannot_be_downloaded(self, forked: Any, tmp_path: Path) -> None:
        """A closed port stands for the API that can't be reached."""
        (tmp_path / "standings").mkdir()
        (tmp_path / "standings" / "problems.json").write_text('["1971A"]')
        closed = "import progrpo.evaluation.standings as it; it.download_standings.__kwdefaults__['api'] = "
        arguments = [*self.arguments(tmp_path), "--codeforces", str(tmp_path / "standings")]
        done = forked(*arguments, code=1, folder=tmp_path, patch=f"{closed}'http://127.0.0.1:9'")
        lines = [line for line in done.err.splitlines() if line.startswith("progrpo: ")]
        said = [line for line in lines if "problems are published" not in line]
        assert said[0].startswith("progrpo: codeforces: http://127.0.0.1:9/contest.standings?contestId=1971")
        assert "can't be downloaded" in said[0]
        assert said[-1].startswith(
            "progrpo: 1 of 2 benchmarks could not be finished (codeforces; the reasons are above)"
        )
        assert len(said) == 2
        assert results(tmp_path / "e", "aime24")["settings"]["name"] == "aime24"
        assert results(tmp_path / "e", "codeforces")["summary"]["pass@1"] == 0, "only the rating is missing"

    def test_a_server_that_is_away_is_not_asked_for_the_others(self, forked: Any, tmp_path: Path) -> None:
        pytest.importorskip("openai")
        arguments = [*self.arguments(tmp_path), "--backend", "http", "--base-url", "http://127.0.0.1:9"]
        done = forked(*arguments, "--retries", "0", code=2, folder=tmp_path)
        assert done.err.count("gave no complete answer when asked once") == 1


def test_the_command_line_has_every_option_that_a_server_error_advises(cli: Any) -> None:
    """Arguments of HttpBackend that a message names are options of the command, or environment variables."""
    pytest.importorskip("openai")
    options = cli("evaluate", "--help").out
    arguments = ("evaluate", "x", "task.heldout_size=1", "--backend", "http", "--base-url", "http://127.0.0.1:9")
    output = cli(*arguments, "--retries", "1", "--timeout", "5", "--out", "e", code=2).err
    assert "asked up to 2 times" in output
    for name in inspect.signature(HttpBackend).parameters:
        if re.search(rf"\b{name}\b", output) and name != "model":
            assert f"--{name.replace('_', '-')}" in options, name
    assert "OPENAI_API_KEY" in http.ADVICE[401]
