"""The page is escaped, self-contained and bounded in size, and works in a real browser."""

import json
import re
import shutil
import time

import numpy as np
import pytest
from tests.inspection.rollouts import NAMED, random_rows, write_jsonl, write_verl
from tests.pages.browser import open_page, severe, wait_for, without_plotly
from tests.pages.runs import HOSTILE

from progrpo.inspection import Options, inspect
from progrpo.pages.inspection import MOST_POINTS, SCATTERED, assemble, thinned, write_page

OPTIONS = Options(columns=NAMED, rewards="r")


def reader_of(page: str):
    return json.loads(re.search(r'<script type="application/json" id="reader-data">(.*?)</script>', page, re.S)[1])


def test_texts_cannot_break_out_of_the_page(tmp_path):
    rows = [row | {"o": HOSTILE, "q": HOSTILE} for row in random_rows(20)]
    path = write_jsonl(tmp_path / "<b>.jsonl", rows)
    page = without_plotly(
        write_page(inspect([path], OPTIONS), tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    )
    assert HOSTILE not in page
    assert "<b>.jsonl" not in page
    groups = [group for step in reader_of(page)[0]["steps"] for group in step["groups"]]
    assert {group["prompt"] for group in groups} == {HOSTILE}
    assert "".join(token[0] for token in groups[0]["responses"][0]["tokens"]) == HOSTILE


def test_the_reader_calls_right_what_the_table_calls_right(tmp_path):
    options = Options(columns=NAMED, rewards="r", correct_above=0.75)
    inspection = inspect([write_jsonl(tmp_path / "a.jsonl", random_rows(60))], options)
    groups = [group for step in assemble(inspection)["reader"][0]["steps"] for group in step["groups"]]
    rewards = {(r["verdict"], r["numbers"]["reward"]) for group in groups for r in group["responses"]}
    assert rewards - {("not judged", None)} == {("right", 1.0), ("wrong", 0.5), ("wrong", 0.0)}


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path):
    rows = [row | {"o": "cut off: \ud83d", "q": "\udc00"} for row in random_rows(20)]
    page = write_page(inspect([write_jsonl(tmp_path / "a.jsonl", rows)], OPTIONS), tmp_path / "page.html")
    assert "cut off: ?" in json.dumps(reader_of(page.read_text(encoding="utf-8")))


def test_the_page_loads_nothing(tmp_path):
    inspection = inspect([write_jsonl(tmp_path / "a.jsonl", random_rows(40))], OPTIONS)
    page = without_plotly(write_page(inspection, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)\s*=\s*(?![\"']?(?:#|data:))", page)
    assert not re.findall(r"@import|url\(|https?://", page)


def test_without_log_probs_the_page_shows_the_rest_and_says_what_is_missing(tmp_path):
    inspection = inspect([write_verl(tmp_path / "rollouts", range(1, 4))], Options())
    view = assemble(inspection)
    drawn = [panel.id for panel in view["over_training"]]
    assert drawn == ["reward", "groups", "pass-at-k", "distinct", "repetition", "length"]
    assert view["what_if"] == view["effects"] == []
    page = without_plotly(write_page(inspection, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "There are no log-probs of responses" in page
    assert "NaN" not in page
    tokens = reader_of(page)[0]["steps"][0]["groups"][0]["responses"][0]["tokens"]
    assert tokens[0] == ["The ", None, False]


def test_the_size_of_the_page_is_bounded(tmp_path):
    rows = random_rows(6000, steps=700, groups=2)
    figures = assemble(inspect([write_jsonl(tmp_path / "a.jsonl", rows)], OPTIONS))["figures"]
    assert max(len(trace["x"]) for trace in figures["reward"]["data"]) <= MOST_POINTS
    assert sum(len(trace["x"]) for trace in figures["scatter"]["data"]) == SCATTERED


def test_thinned_curves_keep_their_mean_and_gaps():
    x, y = np.arange(1000.0), np.random.default_rng(0).normal(size=1000)
    xs, ys = thinned(x, y)
    assert len(xs) == 250
    assert np.mean(ys) == pytest.approx(y.mean(), abs=1e-4)
    y[:4] = np.nan
    assert np.isnan(thinned(x, y)[1][0])
    assert thinned(x, y)[1][1] == pytest.approx(y[4:8].mean(), abs=1e-4)


@pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no chromium on PATH")
def test_in_a_browser(browser, tmp_path):
    inspection = inspect([write_jsonl(tmp_path / "run.jsonl", random_rows(600))], OPTIONS)
    js = open_page(browser, write_page(inspection, tmp_path / "page.html"))
    charts = js("return document.querySelectorAll('[data-figure]').length")
    assert charts == 16
    wait_for(lambda: js("return document.querySelectorAll('[data-figure] .main-svg').length") >= charts)

    pressed = "return [...document.querySelectorAll('#reader button[aria-pressed=true]')].map(b => b.textContent)"
    assert js(pressed) == ["5", "1"]
    for key, index in (("place", 0), ("group", 2)):
        browser.find_element("css selector", f'button[data-key="{key}"][data-index="{index}"]').click()
    assert js(pressed) == ["1", "3"]
    assert js("return document.querySelector('#reader [role=status]').textContent").startswith("Rollouts, step 1: ")

    line = "return document.getElementById('chart-reward').data.at(-1).line.color"
    before = js(line)
    browser.find_element("id", "theme").click()
    wait_for(lambda: js(line) != before)

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    )
    wait_for(lambda: js("return document.querySelector('#chart-reward .main-svg').clientWidth") <= 360)
    time.sleep(0.2)
    assert js("return document.documentElement.scrollWidth") <= 361
    assert js("return performance.getEntriesByType('resource').length") == 0
    assert severe(browser) == []
