"""The table of problems and the reader of responses, used in a real browser."""

import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.pages.browser import downloaded, open_page, severe, wait_for
from tests.pages.runs import HOSTILE

from progrpo.pages import write_page

GRPO, PRO = [8, 2, 0, 0, 3, 4], [8, 0, 5, 0, 4, 4]


@pytest.fixture
def page(make_run, tmp_path: Path) -> Path:
    runs = [make_run("grpo", correct=GRPO, text=HOSTILE), make_run("progrpo", correct=PRO, text=HOSTILE)]
    return write_page(runs, tmp_path / "r.html")


ROWS = "return [...document.querySelectorAll('#problems .problem')].map(b => Number(b.dataset.problem))"
COUNT = "return document.querySelector('#problems [data-part=count]').textContent"
FILTERS = "return [...document.querySelectorAll('[data-key=filter]')].map(b => b.textContent)"
PROMPT = "return document.querySelector('#responses .prompt').textContent"


def test_every_filter_shows_its_problems_and_says_how_many(browser, page):
    js = open_page(browser, page)
    expected = {
        "All (6)": [0, 1, 2, 3, 4, 5],
        "By GRPO only (1)": [1],
        "By ProGRPO only (1)": [2],
        "By both (3)": [0, 4, 5],
        "By neither (1)": [3],
        "More often by GRPO (1)": [1],
        "More often by ProGRPO (2)": [2, 4],
    }
    assert js(FILTERS) == list(expected)
    for index, rows in enumerate(expected.values()):
        browser.find_element("css selector", f'[data-key=filter][data-index="{index}"]').click()
        assert js(ROWS) == rows
        assert js(COUNT) == ("All 6 problems." if len(rows) == 6 else f"{len(rows)} of 6 problems.")
        assert js("return document.activeElement.dataset.index") == str(index)
    search = browser.find_element("css selector", "#problems input[type=search]")
    browser.find_element("css selector", '[data-key=filter][data-index="0"]').click()
    search.send_keys("4 3 3")
    assert js(ROWS) == [2]
    search.send_keys("nowhere")
    assert js(ROWS) == []
    assert js("return document.querySelector('#problems [data-part=page]').textContent") == "No problem fits."


def test_every_column_sorts_both_ways_and_says_so(browser, page):
    js = open_page(browser, page)
    keys = js("return [...document.querySelectorAll('#problems .sort')].map(b => b.dataset.sort)")
    assert keys == [
        "prompt",
        *(f"{m}-{c}" for m in "ab" for c in ("correct", "distinct", "right", "wrong")),
        "difference",
    ]
    data = json.loads(js("return document.getElementById('boards').textContent"))[0]
    assert [group["title"] for group in data["groups"]] == ["GRPO", "ProGRPO"]
    for key in keys:
        ways = []
        for _ in range(2):
            browser.find_element("css selector", f'[data-sort="{key}"]').click()
            pressed = js("const b = document.activeElement; return [b.dataset.sort, b.closest('th').ariaSort]")
            ways.append(pressed[1])
            values = [sort_value(data, key, row) for row in js(ROWS)]
            known = [value for value in values if value is not None]
            assert known == sorted(known, reverse=pressed[1] == "descending"), key
            assert values[len(known) :] == [None] * (len(values) - len(known))
            assert pressed[0] == key
        assert sorted(ways) == ["ascending", "descending"]
    assert js("return document.querySelectorAll('#problems th[aria-sort]:not([aria-sort=none])').length") == 1


def sort_value(data, key, row):
    """The value in a row by which a column sorts, computed independently of the page."""
    grpo, pro = data["groups"]
    if key == "prompt":
        return data["prompts"][row]
    if key == "difference":
        return pro["correct"][row] / 8 - grpo["correct"][row] / 8
    letter, column = key.split("-")
    return (grpo if letter == "a" else pro)[column][row]


def test_the_keyboard_works_the_reader(browser, page):
    js = open_page(browser, page)
    keys = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: '%s', bubbles: true}))"
    browser.find_element("css selector", '[data-problem="4"]').send_keys("\n")
    wait_for(lambda: js(PROMPT).startswith("4 5 3"))
    assert js("return document.activeElement.dataset.part") == "prompt"
    assert js(
        "return [...document.querySelectorAll('#responses .column')].map(column => "
        "column.querySelector('h3').textContent + ': ' + column.querySelector('.caption').textContent)"
    ) == ["●GRPO: 3 of 8 right, 2 different solutions", "■ProGRPO: 4 of 8 right, 2 different solutions"]
    # r, w: right and wrong only; every verdict is a word, not a colour.
    verdicts = (
        "return [...new Set([...document.querySelectorAll('#responses .verdict')].map(v => v.firstChild.textContent))]"
    )
    js(keys % "r")
    assert js(verdicts) == ["✓ right"]
    js(keys % "w")
    assert js(verdicts) == ["✗ wrong"]
    js(keys % "d")
    assert js("return document.querySelectorAll('#responses .verdict').length") > 0
    assert all(
        "sampled" in words or "solution" in words
        for words in js("return [...document.querySelectorAll('#responses .verdict')].map(v => v.textContent)")
    )
    js(keys % "a")
    assert js(verdicts) == ["✓ right", "✗ wrong"]
    # n, p: along the table as it is filtered and sorted; they stop at its ends.
    browser.find_element("css selector", '[data-key=filter][data-index="3"]').click()
    js("document.querySelector('#responses .prompt').focus()")
    for key, start in (("n", "4 6 3"), ("n", "4 6 3"), ("p", "4 5 3"), ("p", "4 1 3"), ("p", "4 1 3")):
        js(keys % key)
        wait_for(lambda start=start: js(PROMPT).startswith(start))
    place = js("return document.querySelector('#responses [data-part=place]').textContent")
    assert place == "1 of the 3 problems of the table: p0"
    # The same letter in the search field is a letter.
    search = browser.find_element("css selector", "#problems input[type=search]")
    search.send_keys("n")
    assert search.get_attribute("value") == "n"


def test_tokens_carry_their_probability_and_t_low(browser, page):
    js = open_page(browser, page)
    first = browser.find_element("css selector", "#responses .tok")
    first.send_keys("\ue014")
    # Sample 0's second token was drawn with 0.65: the least likely of five.
    tokens = "[...document.querySelector('#responses .tokens').querySelectorAll('.tok')]"
    shades = js(f"return {tokens}.map(t => Number(t.style.getPropertyValue('--p')))")
    assert shades == pytest.approx([0.9, 0.65, 0.8, 0.7, 0.99], rel=0.006)
    assert js(f"return {tokens}.map(t => t.classList.contains('low'))") == [False, True, False, False, False]
    assert js("return document.getElementById('tip').textContent") == "p = 0.65, one of the least likely"
    assert js(f"return document.activeElement === {tokens}[1]")


def test_one_of_each_solution(browser, page):
    js = open_page(browser, page)
    browser.find_element("css selector", "#responses [data-part=single]").click()
    solutions = js(
        "return [...document.querySelectorAll('#responses .column')].map(c => "
        "[...c.querySelectorAll('.verdict.right')].map(v => v.textContent.match(/solution (\\d+)/)[1]))"
    )
    assert [sorted(numbers) for numbers in solutions] == [["1", "2"], ["1", "2"]]


def test_figures_and_tables_are_files(browser, page, tmp_path):
    js = open_page(browser, page)
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "downloads")}
    )
    folder = tmp_path / "downloads"
    folder.mkdir(exist_ok=True)
    buttons = js("return [...document.querySelectorAll('[data-svg]')].map(b => b.dataset.svg)")
    assert len(buttons) == js("return document.querySelectorAll('[data-figure]').length")
    for name in ("pass-at-k", "confidence-spread"):
        wait_for(lambda name=name: js(f"return !!document.querySelector('#chart-{name} .main-svg')"))
        js(f"document.querySelector('[data-svg={name}]').click()")
        drawing = downloaded(folder, ".svg")
        tree = ElementTree.fromstring(drawing)
        assert tree.tag.endswith("svg")
        assert "var(--" not in drawing
        words = "".join(tree.itertext())
        assert "ProGRPO" in words
        assert ("pass@k against k" in words) == (name == "pass-at-k")

    js("document.querySelector('#problems [data-part=csv]').click()")
    rows = list(csv.DictReader(io.StringIO(downloaded(folder, ".csv"), newline="")))
    assert [row["problem_id"] for row in rows] == [f"p{i}" for i in range(6)]
    assert [int(row["GRPO: right"]) for row in rows] == GRPO
    assert [int(row["ProGRPO: right"]) for row in rows] == PRO
    assert rows[1]["prompt"] == f"4 2 3 : 12 ; {HOSTILE}"  # with its quotes and commas
    assert rows[3]["GRPO: mean c(o|q) right"] == ""

    js("document.querySelector('[data-csv=results]').click()")
    results = list(csv.DictReader(io.StringIO(downloaded(folder, ".csv"), newline="")))
    assert [row["title"] for row in results] == ["Base model, before training", "GRPO", "ProGRPO"]
    assert float(results[1]["pass@1"]) == pytest.approx(sum(GRPO) / 48, abs=1e-15)
    assert severe(browser) == []


def test_hostile_texts_stay_texts_and_nothing_is_loaded(browser, page):
    js = open_page(browser, page)
    browser.find_element("css selector", '[data-problem="1"]').click()
    wait_for(lambda: js(PROMPT) == f"4 2 3 : 12 ; {HOSTILE}")
    assert browser.title == "GRPO and ProGRPO on countdown"
    assert js("return document.querySelectorAll('img, #problems script, #responses script').length") == 0
    assert js("return performance.getEntriesByType('resource').length") == 0
    assert severe(browser) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_text_is_too_faint(browser, page, theme):
    """WCAG AA: 4.5 to 1 for text, 3 to 1 for lines of plots and the edges of controls, in both themes."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    )
    js = open_page(browser, page)
    names = js(
        "return [...new Set([...document.querySelector('style').sheet.cssRules].filter(r => r.style)"
        ".flatMap(r => [...r.style]).filter(n => n.startsWith('--m-')))]"
    )
    assert len(names) == 9
    value = "return getComputedStyle(document.documentElement).getPropertyValue('{}').trim()"
    for ground in ("--paper", "--panel"):
        behind = luminance(js(value.format(ground)))
        for name in ("--ink", "--soft", "--right", "--wrong"):
            assert contrast(luminance(js(value.format(name))), behind) >= 4.5, (name, ground)
    paper = luminance(js(value.format("--paper")))
    for name in [*names, "--control", "--outline"]:
        assert contrast(luminance(js(value.format(name))), paper) >= 3, name
    # The darkest shade of a token, under the page's own text.
    red, green, blue = (int(part) for part in js(value.format("--token")).split())
    shade, under = float(js(value.format("--shade"))), js(value.format("--paper"))
    mixed = [
        shade * top + (1 - shade) * int(under[i : i + 2], 16)
        for top, i in zip((red, green, blue), (1, 3, 5), strict=True)
    ]
    assert contrast(luminance(js(value.format("--ink"))), relative(mixed)) >= 4.5


def luminance(colour: str) -> float:
    return relative([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def relative(channels: list[float]) -> float:
    linear = [c / 12.92 if (c := v / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for v in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


def test_a_phone_stacks_the_methods_and_scrolls_only_down(browser, page):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    )
    js = open_page(browser, page)
    assert js("return document.documentElement.scrollWidth") <= 361
    lefts = (
        "return new Set([...document.querySelectorAll('#responses .column')]"
        ".map(column => Math.round(column.getBoundingClientRect().left))).size"
    )
    assert js(lefts) == 1
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 1200, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    assert js(lefts) == 2


def test_a_run_that_kept_no_samples_has_a_table_all_the_same(browser, make_run, tmp_path):
    js = open_page(browser, write_page([make_run("grpo", correct=GRPO, samples=False)], tmp_path / "r.html"))
    assert js(FILTERS) == ["All (6)", "Solved (4)", "Not solved (2)"]
    browser.find_element("css selector", '[data-key=filter][data-index="2"]').click()
    assert js(ROWS) == [2, 3]
    assert (
        js("return document.querySelector('#responses .column .caption').textContent") == "No responses are kept here."
    )
    assert severe(browser) == []
