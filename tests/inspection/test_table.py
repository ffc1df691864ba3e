"""The table of responses matches plain loops over the same rows."""

import math
import random
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tests.inspection.rollouts import NAMED, random_rows, write_jsonl, write_parquet

from progrpo.common.errors import ConfigError
from progrpo.inspection import Options, inspect
from progrpo.inspection.score import PADDED_CELLS, padded

OPTIONS = Options(columns=NAMED, rewards="r")


def confidence(logps: list[float], fraction: float) -> float:
    lowest = sorted(logps)[: max(1, math.ceil(round(fraction * len(logps), 9)))]
    return math.exp(sum(lowest) / len(lowest))


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_the_table_matches_plain_loops(write, tmp_path):
    rows = random_rows(300)
    table = inspect([write(tmp_path / "rollouts", rows)], OPTIONS).table
    assert table.steps_B.tolist() == [row["step"] for row in rows]
    keys = [(row["step"], row["q"]) for row in rows]
    order = list(dict.fromkeys(keys))
    assert table.groups_B.tolist() == [order.index(key) for key in keys]
    np.testing.assert_array_equal(table.rewards_B, [math.nan if r["r"] is None else r["r"] for r in rows])
    assert table.lengths_B.tolist() == [len(row["logps"]) for row in rows]
    for fraction in table.fractions:
        expected = [confidence(row["logps"], fraction) for row in rows]
        np.testing.assert_allclose(table.c_o_B(fraction), expected, rtol=1e-5)
    np.testing.assert_allclose(table.c_q_B, [confidence(row["q_logps"], 1.0) for row in rows], rtol=1e-5)
    np.testing.assert_allclose(table.entropy_B, [-np.mean(row["logps"]) for row in rows], rtol=1e-5)
    answers = [row["answer"] or row["o"] for row in rows]
    for hashes, texts in ((table.answers_B, answers), (table.texts_B, [row["o"] for row in rows])):
        by_text = defaultdict(set)
        for value, text in zip(hashes.tolist(), texts, strict=True):
            by_text[text].add(value)
        assert all(len(values) == 1 for values in by_text.values())
        assert len(set().union(*by_text.values())) == len(by_text)


def test_the_order_of_rows_and_files_does_not_matter(tmp_path):
    rows = random_rows(300)
    whole = inspect([write_jsonl(tmp_path / "a.jsonl", rows)], OPTIONS)
    random.Random(0).shuffle(rows)
    (tmp_path / "parts").mkdir()
    for i in range(3):
        write_jsonl(tmp_path / "parts" / f"{i}.jsonl", rows[i::3])
    parts = inspect([tmp_path / "parts"], OPTIONS)
    assert parts.collapse.overall == pytest.approx(whole.collapse.overall)
    assert vars(parts.what_if.effect) == pytest.approx(vars(whole.what_if.effect))


def test_padded_pieces_hold_every_row_once_and_stay_small():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 40, 500)
    lengths[7] = 3000
    lists = [rng.normal(size=length).astype(np.float32) for length in lengths]
    lists[5][0] = np.nan
    seen = {}
    for rows, values_BT, mask_BT in padded(lists, 1000):
        assert values_BT.numel() <= 1000 or len(rows) == 1
        for row, values, mask in zip(rows, values_BT, mask_BT, strict=True):
            seen[int(row)] = values[mask].numpy()
    assert sorted(seen) == list(range(500))
    for row, expected in enumerate(lists):
        np.testing.assert_array_equal(seen[row], expected[np.isfinite(expected)])
    assert PADDED_CELLS * 4 < 10e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": "good"}, "row 2: the reward, column 'r', must be a finite number of at most 1e\\+100, got 'good'"),
        ({"r": float("inf")}, "row 2: the reward, column 'r', must be a finite number of at most 1e\\+100, got inf"),
        ({"r": 1e200}, r"row 2: the reward, column 'r', must be a finite number of at most 1e\+100, got 1e\+200"),
        ({"r": 10**400}, r"row 2: the reward, column 'r', must be a finite number of at most 1e\+100, got 1000"),
        (
            {"r": "1" + "0" * 400},
            r"row 2: the reward, column 'r', must be a finite number of at most 1e\+100, got '1000",
        ),
        ({"q_c": 10**400}, r"row 2: c\(q\), column 'q_c', must be a finite number of at most 1e\+100, got 1000"),
        ({"step": 10**400}, "must be a whole number, got 1000"),
        ({"logps": [-(10**400)]}, "column 'logps' must hold a list of numbers for each response"),
        ({"step": "last"}, "row 2: the step, column 'step', must be a whole number, got 'last'"),
        ({"step": 1.5}, "must be a whole number, got 1.5"),
        ({"step": None}, "must be a whole number, got None"),
        ({"q": None}, "row 2: column 'q' is null, so the response belongs to no group"),
        ({"logps": [0.5, 0.9]}, "column 'logps' does not hold log-probs: logps_BT must hold finite log-prob"),
        ({"q_logps": [2.0]}, "column 'q_logps' does not hold log-probs"),
    ],
)
def test_impossible_values_are_refused(change, message, tmp_path):
    rows = [row | {"q_c": 0.5} for row in random_rows(3)]
    rows[1] |= change
    options = replace(OPTIONS, columns=NAMED | ({"prompt_confidence": "q_c"} if "q_c" in change else {}))
    with pytest.raises(ConfigError, match=message):
        inspect([write_jsonl(tmp_path / "a.jsonl", rows)], options)


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ("r:1e300", r"--reward 'r:1e300': the weight after the colon must be a finite number of at most 1e\+100"),
        ("r:inf", "--reward 'r:inf': the weight after the colon must be a finite number"),
        ("r:-inf", "--reward 'r:-inf': the weight after the colon must be a finite number"),
        ("r:nan", "--reward 'r:nan': the weight after the colon must be a finite number"),
        ("r:x", "--reward 'r:x': the weight after the colon must be a finite number"),
        (
            "r:1e99",
            r"row 2: the reward, the weighted sum of r, must be at most 1e\+100, got 1e\+101; lower the weights",
        ),
        ("r:1e99,s", r"the weighted sum of r, s, must be at most 1e\+100"),
    ],
)
def test_impossible_weights_are_refused(rewards, message, tmp_path):
    rows = [row | {"r": 1.0, "s": 1.0} for row in random_rows(3)]
    rows[1]["r"] = 100.0
    with pytest.raises(ConfigError, match=message):
        inspect([write_jsonl(tmp_path / "a.jsonl", rows)], Options(columns=NAMED, rewards=rewards))


def test_a_file_without_rewards_is_refused(tmp_path):
    rows = [row | {"r": None} for row in random_rows(3)]
    with pytest.raises(ConfigError, match="no response has a reward: all of column 'r' is null or NaN"):
        inspect([write_parquet(tmp_path / "a.parquet", rows)], OPTIONS)


def test_a_file_without_rows_is_refused(tmp_path):
    pd.DataFrame(random_rows(3)).head(0).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="holds no responses: it has columns, but no row"):
        inspect([tmp_path / "a.parquet"], OPTIONS)


def test_entropy_may_be_a_mean_or_a_list(tmp_path):
    rows = [row | {"h": [0.5, 1.5], "mean_h": 1.0} for row in random_rows(20)]
    path = write_parquet(tmp_path / "a.parquet", rows)
    for column in ("h", "mean_h"):
        table = inspect([path], Options(columns=NAMED | {"entropy": column}, rewards="r")).table
        assert table.entropy_B.tolist() == [1.0] * 20


@pytest.mark.parametrize(
    ("written", "reward"),
    [
        *(("0.5", 0.5), ("1", 1.0), (" -1e-2 ", -0.01), ("true", 1.0), ("False", 0.0), (True, 1.0), ("correct", 1.0)),
        *((unknown, math.nan) for unknown in ("", "nan", "None", "error")),
    ],
)
def test_numbers_may_be_written_as_text(written, reward, tmp_path):
    rows = [
        {"q": "1 + 1?", "o": "2", "r": written, "step": "3", "logps": ["-0.5", "-1"], "h": "0.25"},
        {"q": "1 + 1?", "o": "2", "r": "0", "step": "4.0", "logps": [-0.5, -1.0], "h": None},
    ]
    columns = {"prompt": "q", "response": "o", "step": "step", "logps": "logps", "entropy": "h"}
    table = inspect([write_jsonl(tmp_path / "a.jsonl", rows)], Options(columns=columns, rewards="r")).table
    np.testing.assert_array_equal(table.rewards_B, [reward, 0.0])
    assert table.steps_B.tolist() == [3, 4]
    assert table.c_o_B(1.0)[0] == table.c_o_B(1.0)[1] == pytest.approx(math.exp(-0.75))
    np.testing.assert_array_equal(table.entropy_B, [0.25, math.nan])
