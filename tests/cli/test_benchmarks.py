"""``progrpo benchmarks``"""

import json
from typing import Any

from progrpo.evaluation.benchmarks import BENCHMARKS


def test_all_benchmarks_are_listed(cli: Any) -> None:
    lines = cli("benchmarks").out.split("\n")
    for name, one in BENCHMARKS.items():
        line = next(line for line in lines if line.startswith(f"{name} "))
        assert f" {one.problems:,} " in line
        assert one.metrics[0] in line


def test_a_benchmark_is_shown_with_its_first_problem(cli: Any) -> None:
    rows = [{"problem": "What is $1 + 1$?", "answer": 2, "id": 0}, {"problem": "And $2 + 2$?", "answer": "4", "id": 1}]
    (cli.folder / "aime.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    without = cli("benchmarks", "aime24").out
    assert without.startswith("aime24: American Invitational Mathematics Examination 2024")
    assert "HuggingFaceH4/aime_2024, train" in without
    assert "avg@32, pass@32, maj@32" in without
    shown = cli("benchmarks", "aime24", "--data", "aime.jsonl").out
    assert "2 problems; 0 rows repeat a problem; 0 rows can't be used" in shown
    assert "30 problems are published and these rows hold 2: they are a part" in shown
    assert "What is $1 + 1$?" in shown
    assert shown.endswith("--- gold\n2\n")
    assert "2 + 2" not in shown


def test_a_missing_benchmark_or_file_is_one_sentence(cli: Any) -> None:
    unknown = cli("benchmarks", "amie24", code=2)
    assert unknown.err.startswith("progrpo: there is no benchmark 'amie24'; did you mean 'aime24'?")
    missing = cli("benchmarks", "aime24", "--data", "no.jsonl", code=2)
    assert "data file 'no.jsonl' does not exist" in missing.err
    hub = cli("benchmarks", "aime24", "--data", "hub", code=2)
    assert hub.err.count("\n") == 1
    assert "dataset 'HuggingFaceH4/aime_2024' is neither" in hub.err
    assert hub.err.endswith("; give a local file with its rows instead: --data FILE.\n")
    assert "Traceback" not in unknown.err + missing.err + hub.err


def test_help_has_examples(cli: Any) -> None:
    assert "progrpo benchmarks aime24 --data aime24.jsonl" in cli("benchmarks", "--help").out
