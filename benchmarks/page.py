"""A report of 10,000 responses: how large the page is, how soon it can be used, and how long a reader waits.

The script writes two runs with 100 held-out problems, each with 50 samples of 200 random tokens, with random log-probs
and verdicts, and opens the page in headless Chromium. Options such as ``--problems`` change the size. It needs chromium
and chromedriver on PATH, and selenium. It prints JSON.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import record

from progrpo.common.files import write_json
from progrpo.evaluation.results import Evaluation, ProblemResult
from progrpo.evaluation.store import SampleStore
from progrpo.pages import write_page
from progrpo.recipes.schema import Recipe
from progrpo.runs.folder import RunFolder
from progrpo.sampling import Sample
from progrpo.verify import Verdict

VOCABULARY = 20  # token ids of the shipped tokenizer, so that tokens have texts


def write_run(path: Path, method: str, problems: int, samples: int, tokens: int) -> RunFolder:
    """A finished run without training: a recipe and a final evaluation with its samples."""
    rng = np.random.default_rng(len(method))
    folder = RunFolder(path)
    folder.start(Recipe.model_validate({"name": "large", "method": method}), {})
    store = SampleStore(folder.evaluations / "final-samples", {"model": method})
    results = []
    for i in range(problems):
        problem = {"problem_id": f"problem-{i:05d}", "prompt": f"{i} 7 3 12 : {i + 5} ;"}
        right = rng.random(samples) < rng.random()
        drawn, verdicts = [], []
        for is_right in right:
            logps = np.minimum(0, np.log(rng.beta(4, 0.6, tokens)))
            ids = [int(token) for token in rng.integers(3, VOCABULARY, tokens)]
            drawn.append(Sample(" ".join(map(str, ids)), ids, logps.tolist(), (-logps).tolist()))
            canonical = f"({rng.integers(0, 4)})" if is_right else None
            verdicts.append(Verdict("correct" if is_right else "incorrect", "" if is_right else "no", canonical))
        store.append(problem, 0, drawn, verdicts)
        distinct = len({v.canonical for v in verdicts if v.correct})
        results.append(ProblemResult(problem["problem_id"], samples, int(right.sum()), 0, distinct, 6, 0.3, 100))
    store.flush()
    write_json(folder.evaluations / "final.json", Evaluation({"samples": samples}, results).to_json())
    return folder


def open_chromium(profile: Path) -> Any:
    """A new headless Chromium."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        sys.exit("the benchmark of the page needs chromium and chromedriver on PATH.")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-background-networking",
        "window-size=1280,900",
    ):
        options.add_argument(f"--{switch}")
    options.add_argument(f"--user-data-dir={profile}")
    return webdriver.Chrome(options=options, service=Service(driver))


# The time from the act to the frame after the next, when the browser has painted the change.
TIMED = """
const done = arguments[arguments.length - 1], act = new Function(arguments[0]), start = performance.now();
act();
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
"""
ACTS = {
    "a letter in the search": "const e = document.querySelector('[data-part=search]'); e.value += '1'; "
    "e.dispatchEvent(new Event('input'));",
    "sort": "document.querySelector('[data-sort=a-correct]').click();",
    "filter": "document.querySelectorAll('[data-key=filter]')[3].click();",
    "next rows": "document.querySelector('#problems [data-part=after]').click();",
}
BACK = """
const search = document.querySelector('[data-part=search]');
search.value = '';
search.dispatchEvent(new Event('input'));
document.querySelectorAll('[data-key=filter]')[0].click();
"""
OPEN_PROBLEM = """
const done = arguments[arguments.length - 1], box = document.getElementById('responses'), start = performance.now();
new MutationObserver(() => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start))))
  .observe(box, {attributes: true, attributeFilter: ['data-shown']});
box.querySelector('[data-part=after]').click();
"""
WATCH = """
window.longest = 0;
const see = list => { for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration); };
new PerformanceObserver(see).observe({type: 'longtask', buffered: true});
"""


def measure(page: Path, profile: Path) -> dict[str, float]:
    """The measured seconds and milliseconds by name."""
    with contextlib.closing(_Quit(open_chromium(profile))) as opened:
        browser = opened.browser
        # Also measure the CPU time of the page's thread, which other work on the machine does not lengthen.
        browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        start = time.perf_counter()
        browser.get(page.as_uri())
        while browser.execute_script("return document.documentElement.dataset.ready") != "true":
            time.sleep(0.01)
        figures = {"page MB": page.stat().st_size / 1e6, "seconds until usable": time.perf_counter() - start}
        figures["of those, seconds of computing"] = _computed(browser)
        waiting = "return [...document.querySelectorAll('[data-figure]')].some(d => !d.querySelector('.main-svg'))"
        while browser.execute_script(waiting):
            time.sleep(0.05)
        figures["seconds until every figure is drawn"] = time.perf_counter() - start
        figures["longest task while opening, ms"] = browser.execute_script("return window.longest")
        for name, act in ACTS.items():
            figures[f"{name}, ms"] = max(browser.execute_async_script(TIMED, act) for _ in range(3))
            browser.execute_script(BACK)
        figures["next problem in the reader, ms"] = max(browser.execute_async_script(OPEN_PROBLEM) for _ in range(3))
    return figures


def _computed(browser: Any) -> float:
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


class _Quit:
    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def close(self) -> None:
        self.browser.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("problems", 100), ("samples", 50), ("tokens", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        runs = [write_run(folder / method, method, **sizes) for method in ("grpo", "progrpo")]
        start = time.perf_counter()
        page = write_page(runs, folder / "report.html")
        written = {
            "responses": 2 * sizes["problems"] * sizes["samples"],
            "seconds to write": time.perf_counter() - start,
        }
        figures = written | measure(page, folder / "profile")
    record("page", sizes | {name: round(value, 3) for name, value in figures.items()})


if __name__ == "__main__":
    main()
