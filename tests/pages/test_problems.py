"""The table's columns, and the responses that go into the page."""

import base64
import gzip
import json
import math

import numpy as np
import pandas as pd
import pytest

from progrpo.evaluation.store import SampleStore
from progrpo.pages.collect import Group, Samples, collect
from progrpo.pages.problems import chunks, prompts_by_problem, read_responses, samples_in_page, table
from progrpo.pages.responses import MOST_TOKENS
from progrpo.sampling import Sample
from progrpo.verify import Verdict


def unpacked(chunk):
    return json.loads(gzip.decompress(base64.b64decode(chunk)))


def keep(folder, samples, statuses, problem="p"):
    store = SampleStore(folder, {})
    verdicts = [Verdict(status, "why", "same" if status == "correct" else None) for status in statuses]
    store.append({"problem_id": problem, "prompt": "?"}, 0, samples, verdicts)
    store.flush()
    return Group(name="grpo", title="GRPO", finals=[], samples=[Samples("seed 0", folder, None, "")])


def test_tokens_come_back_with_their_probability_and_t_low(tmp_path):
    rng = np.random.default_rng(0)
    logps = np.log(rng.random((4, 37)))
    samples = [Sample(f"text {i}", rng.integers(0, 9, 37).tolist(), row.tolist()) for i, row in enumerate(logps)]
    group = keep(tmp_path, samples, ["correct", "incorrect", "error", "correct"])
    (chunk,), words = chunks({"p": "?"}, [group], None)
    (entries,) = unpacked(chunk)
    assert [item["verdict"] for item in entries] == ["right", "wrong", "not judged", "right"]
    assert [item["solution"] for item in entries] == [1, None, None, 1]
    for item, sample, row in zip(entries, samples, logps, strict=True):
        # Without a tokenizer a token is its number.
        assert [words[place] for place in item["words"]] == [f"#{token}" for token in sample.token_ids]
        kept = [math.exp(-(code >> 1) / 100) for code in item["codes"]]
        assert kept == pytest.approx(np.exp(row), rel=0.00502)
        lowest = set(np.argsort(row)[: math.ceil(0.2 * 37)])
        assert {i for i, code in enumerate(item["codes"]) if code & 1} == lowest


def test_equal_responses_are_counted_and_long_ones_keep_both_ends(tmp_path):
    long = list(range(1000))
    samples = [Sample("a", [1, 2], [-1.0, -2.0])] * 3 + [Sample("b", long, [-0.1] * 1000, truncated=True)]
    group = keep(tmp_path, samples, ["incorrect"] * 4)
    (chunk,), words = chunks({"p": "?"}, [group], None)
    short, cut = unpacked(chunk)[0]
    assert (short["times"], cut["times"], cut["truncated"], cut["hidden"]) == (3, 1, True, 400)
    half = MOST_TOKENS // 2
    assert [words[place] for place in cut["words"]] == [f"#{token}" for token in long[:half] + long[-half:]]


def test_without_tokens_from_the_server_the_text_stays(tmp_path):
    group = keep(tmp_path, [Sample("the answer", [], [])], ["correct"])
    (chunk,), _ = chunks({"p": "?"}, [group], None)
    ((item,),) = unpacked(chunk)
    assert item["text"] == "the answer"
    assert "words" not in item
    assert item["numbers"]["answer_confidence"] is None


def test_the_page_holds_as_many_first_samples_of_every_problem_as_fit():
    counted = [(p, i, tokens) for p, tokens in (("a", 100), ("b", 300)) for i in range(10)]
    responses = pd.DataFrame(counted, columns=["problem_id", "index", "tokens"])
    assert samples_in_page(responses, 4000) is None
    assert samples_in_page(responses, 3999) == 9
    assert samples_in_page(responses, 1600) == 4
    assert samples_in_page(responses, 10) == 1


def test_first_leaves_out_later_samples(tmp_path):
    samples = [Sample(str(i), [i], [-0.5]) for i in range(6)]
    (chunk,), words = chunks({"p": "?"}, [keep(tmp_path, samples, ["correct"] * 6)], 2)
    assert len(unpacked(chunk)[0]) == 2
    assert words == ["#0", "#1"]


def test_the_columns_are_sums_and_means_over_seeds(make_run):
    methods = collect(
        [
            make_run("grpo", seed, correct=[8, 2, 0, 0, 3, s], distinct=[2, 1, 0, 0, 3, 1])
            for seed, s in ((0, 4), (1, 1))
        ]
    )
    responses = read_responses(methods)
    shown = table(prompts_by_problem(methods, responses), methods, responses)
    assert shown["ids"] == [f"p{i}" for i in range(6)]
    (group,) = shown["groups"]
    assert group["correct"] == [16, 4, 0, 0, 6, 5]
    assert group["samples"] == [16] * 6
    assert group["distinct"] == [2, 1, 0, 0, 3, 1]
    right = responses[(responses["problem_id"] == "p1") & (responses["status"] == "correct")]
    assert group["right"][1] == pytest.approx(right["answer_confidence"].mean())
    assert group["right"][2] is None
    assert group["wrong"][0] is None
