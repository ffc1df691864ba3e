"""The page is complete, escaped and self-contained, and works in a real browser."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.pages.browser import severe, wait_for, without_plotly
from tests.pages.runs import HOSTILE

from progrpo.common.errors import ConfigError
from progrpo.pages import write_page
from progrpo.runs.folder import RunFolder


def test_the_page_says_first_what_the_numbers_say(make_run, tmp_path):
    runs = [make_run("grpo", correct=[1] * 6), make_run("progrpo", correct=[5] * 6)]
    out = write_page(runs, tmp_path / "new" / "report.html")
    page = without_plotly(out.read_text(encoding="utf-8"))
    assert "<title>GRPO and ProGRPO on countdown</title>" in page
    assert page.index("Against GRPO, ProGRPO has a higher pass@1") < page.index("<table>") < page.index("Over training")
    assert "One run of each method" in page
    assert "What is missing" not in page


def test_responses_cannot_break_out_of_the_page(make_run, tmp_path):
    out = write_page([make_run("grpo", text=HOSTILE)], tmp_path / "r.html", title="</title><b>T</b>")
    page = without_plotly(out.read_text(encoding="utf-8"))
    assert HOSTILE not in page
    assert "<b>T</b>" not in page
    data = re.search(r'<script type="application/json" id="reader-data">(.*?)</script>', page, re.S)
    texts = {r["text"] for m in json.loads(data[1]) for s in m["steps"] for g in s["groups"] for r in g["responses"]}
    assert texts == {HOSTILE}


def test_the_page_loads_nothing(make_run, tmp_path):
    page = without_plotly(write_page([make_run()], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)\s*=\s*(?![\"']?(?:#|data:))", page)
    assert not re.findall(r"@import|url\(|https?://", page)


def test_the_page_says_what_is_missing(make_run, tmp_path):
    bare = make_run("grpo", final=False, metrics=0, evaluations=False, rollouts=False)
    page = without_plotly(write_page([bare], tmp_path / "r.html").read_text(encoding="utf-8"))
    for words in (
        "0 of 4 steps are recorded, no final evaluation yet",
        "No step has been recorded yet",
        "The curve of pass@k against k is drawn when a run is finished",
        "No rollouts were recorded",
    ):
        assert words in page


def test_bad_input_raises_an_error_with_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="at least one run folder"):
        write_page([], tmp_path / "r.html")
    with pytest.raises(ConfigError, match="is not a run folder"):
        write_page([RunFolder(tmp_path / "nothing")], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_importing_the_package_loads_no_plotting_library():
    code = "import sys, progrpo, progrpo.pages; assert 'plotly' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_in_a_browser(browser, make_run, tmp_path: Path):
    runs = [make_run(m, s, text=HOSTILE) for m in ("grpo", "progrpo") for s in (0, 1)]
    browser.get(write_page(runs, tmp_path / "r.html").as_uri())
    js = browser.execute_script
    charts = js("return document.querySelectorAll('[data-figure]').length")
    assert charts == 18
    wait_for(lambda: js("return document.querySelectorAll('[data-figure] .main-svg').length") >= charts)

    def pressed():
        return js("return [...document.querySelectorAll('#reader button[aria-pressed=true]')].map(b => b.textContent)")

    # The reader: newest step of the last method first; buttons change it, and keep the focus.
    assert pressed() == ["ProGRPO", "4", "1"]
    status = "return document.querySelector('#reader [role=status]').textContent"
    assert js(status) == "ProGRPO, seed 0, step 4: 2 of 4 right, 1 different solution."
    for key, index in (("method", 0), ("place", 0), ("group", 1)):
        browser.find_element("css selector", f'button[data-key="{key}"][data-index="{index}"]').click()
    assert pressed() == ["GRPO", "1", "2"]
    assert js(status) == "GRPO, seed 0, step 1: 4 of 4 right, 1 different solution."
    assert js("return document.activeElement.dataset.key") == "group"
    assert js("return document.querySelectorAll('#reader .tok.low').length") == 4

    # A token shows its probability when it has the focus; arrow keys move the focus.
    browser.find_element("css selector", "#reader .tok").send_keys("\ue014")
    assert js("return document.activeElement === document.querySelectorAll('#reader .tok')[1]")
    assert js("return document.getElementById('tip').textContent") == "p = 0.650, one of the least likely"

    # The theme's colours reach the plots.
    line = "return document.getElementById('chart-reward').data.at(-1).line.color"
    before, paper = js(line), js("return getComputedStyle(document.body).backgroundColor")
    browser.find_element("id", "theme").click()
    wait_for(lambda: js(line) != before)
    assert {before, js(line)} == {"#D55E00", "#F0A048"}
    assert js("return getComputedStyle(document.body).backgroundColor") != paper

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    )
    wait_for(lambda: js("return document.querySelector('#chart-reward .main-svg').clientWidth") <= 360)
    assert js("return document.documentElement.scrollWidth") <= 361

    assert js("return performance.getEntriesByType('resource').length") == 0
    assert browser.title == "GRPO and ProGRPO on countdown"
    assert severe(browser) == []
