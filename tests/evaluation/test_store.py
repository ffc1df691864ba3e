from pathlib import Path

import pandas as pd
import pytest

from progrpo.common.errors import ConfigError
from progrpo.evaluation.store import TOKEN_COLUMNS, Judged, SampleStore, read_samples
from progrpo.sampling import Sample
from progrpo.verify import Verdict

KEY = {"model": "m", "seed": 0}
PROBLEM = {"problem_id": "p", "prompt": "1 + 1?"}
RIGHT = Sample("2", [1, 2], [-0.25, -0.5], [0.5, 1.0])
WRONG = Sample("3\u2028\ud7ff", [1], [-2.0], None, truncated=True)
VERDICTS = [Verdict("correct", canonical="2"), Verdict("incorrect", "is 3")]


def test_appended_samples_are_there_for_the_next_process(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", KEY)
    store.append(PROBLEM, 0, [RIGHT, WRONG], VERDICTS)
    store.flush()
    again = SampleStore(tmp_path / "s", KEY)
    assert again.judged([PROBLEM]) == {"p": [Judged.of(RIGHT, VERDICTS[0]), Judged.of(WRONG, VERDICTS[1])]}
    again.append(PROBLEM, 2, [RIGHT], VERDICTS[:1])
    again.flush()
    assert len(SampleStore(tmp_path / "s", KEY).judged([PROBLEM])["p"]) == 3


def test_the_columns_hold_samples_verdicts_and_tokens(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", KEY)
    store.append(PROBLEM, 0, [RIGHT, WRONG], VERDICTS)
    store.flush()
    row, other = read_samples(tmp_path / "s").to_dict("records")
    assert (row["problem_id"], row["index"], row["prompt"], row["text"]) == ("p", 0, "1 + 1?", "2")
    assert (row["status"], row["canonical"], row["tokens"], row["truncated"]) == ("correct", "2", 2, False)
    assert (row["entropy"], row["surprisal"]) == (0.75, 0.375)
    # Of the two tokens, the one with log-prob -0.5 is in T_low.
    assert row["answer_confidence"] == pytest.approx(2.718281828459045**-0.5)
    assert (other["text"], other["reason"], other["truncated"]) == (WRONG.text, "is 3", True)
    tokens = read_samples(tmp_path / "s", TOKEN_COLUMNS)
    assert [list(ids) for ids in tokens["token_ids"]] == [[1, 2], [1]]
    assert list(tokens["logps"][0]) == [-0.25, -0.5]
    assert tokens["entropies"][1] is None
    # pandas reads the folder as one dataset.
    assert len(pd.read_parquet(tmp_path / "s")) == 2


def test_a_sample_that_two_processes_wrote_counts_once(tmp_path: Path) -> None:
    stores = [SampleStore(tmp_path / "s", KEY) for _ in range(2)]
    for store, sample in zip(stores, (RIGHT, WRONG), strict=True):
        store.append(PROBLEM, 0, [sample], VERDICTS[:1])
        store.flush()
    assert [judged.text for judged in stores[0].judged([PROBLEM])["p"]] == ["2"]
    assert read_samples(tmp_path / "s")["text"].tolist() == ["2"]


def test_samples_after_a_gap_wait_for_what_is_missing(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", KEY)
    store.append(PROBLEM, 0, [RIGHT], VERDICTS[:1])
    store.append(PROBLEM, 2, [RIGHT], VERDICTS[:1])
    store.flush()
    assert len(store.judged([PROBLEM])["p"]) == 1


def test_a_half_written_part_is_ignored(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", KEY)
    store.append(PROBLEM, 0, [RIGHT], VERDICTS[:1])
    store.flush()
    (tmp_path / "s" / ".part-000001.parquet.77.tmp").write_bytes(b"PAR1 half of it")
    assert len(read_samples(tmp_path / "s")) == 1


def test_another_prompt_is_refused(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", KEY)
    store.append(PROBLEM, 0, [RIGHT], VERDICTS[:1])
    store.flush()
    assert store.judged([{"problem_id": "other", "prompt": "x"}]) == {}
    with pytest.raises(ConfigError, match=r"holds samples of another prompt for problem 'p'; choose another --out"):
        store.judged([{"problem_id": "p", "prompt": "2 + 2?"}])


def test_two_writers_at_the_same_time_do_not_replace_each_other(tmp_path: Path) -> None:
    stores = [SampleStore(tmp_path / "s", KEY, writer=writer) for writer in range(2)]
    for problem, store in zip("pq", stores, strict=True):
        store.append({"problem_id": problem, "prompt": "1 + 1?"}, 0, [RIGHT], VERDICTS[:1])
    # Both look for the next number before either has written.
    numbers = [store.next_part() for store in stores]
    assert len(set(numbers)) == 2
    for store in stores:
        store.flush()
    assert sorted(read_samples(tmp_path / "s")["problem_id"]) == ["p", "q"]


def test_a_damaged_part_is_named_and_can_be_removed(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", KEY)
    for index in range(2):
        store.append(PROBLEM, index, [RIGHT], VERDICTS[:1])
        store.flush()
    part = tmp_path / "s" / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(
        ConfigError, match=r"part-000001.parquet' is damaged \(.*\); remove it, and its samples are drawn"
    ):
        store.judged([PROBLEM])
    part.unlink()
    assert len(store.judged([PROBLEM])["p"]) == 1


def test_samples_are_written_every_few_seconds_and_not_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("progrpo.evaluation.store.time.monotonic", lambda: now)
    store = SampleStore(tmp_path / "s", KEY)
    written = []
    for index, seconds in enumerate((0.0, 4.0, 5.0, 1.0)):
        now += seconds
        store.append(PROBLEM, index, [RIGHT], VERDICTS[:1])
        written.append(len(list((tmp_path / "s").glob("*.parquet"))))
    assert written == [0, 0, 1, 1]
