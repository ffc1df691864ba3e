"""Helpers for tests in a real browser."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until the condition is true, and return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the page did not get there in time"
        time.sleep(0.05)
    return value


def open_page(browser: Any, page: Path) -> Callable[[str], Any]:
    """Open a page, wait until it can be used, and return a function that runs JavaScript in it."""
    browser.get(page.as_uri())
    wait_for(lambda: browser.execute_script("return document.documentElement.dataset.ready") == "true")
    return browser.execute_script


def downloaded(folder: Path, ending: str) -> str:
    """Wait for the one file with this ending, remove it, and return its text."""
    file = wait_for(lambda: next(iter(folder.glob(f"*{ending}")), None))
    wait_for(lambda: file.stat().st_size > 0 and not list(folder.glob("*.crdownload")))
    text = file.read_text(encoding="utf-8")
    file.unlink()
    return text


def severe(browser: Any) -> list[dict[str, Any]]:
    """The errors in the console, including those of the Content-Security-Policy."""
    return [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def without_plotly(html: str) -> str:
    """The page without Plotly's script, which it must contain once."""
    assert html.count(get_plotlyjs()) == 1
    return html.replace(get_plotlyjs(), "")
