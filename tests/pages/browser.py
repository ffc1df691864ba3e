"""What tests in a real browser share."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What the condition comes to, once it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "the page did not come to it"
        time.sleep(0.05)
    return found


def open_page(browser: Any, page: Path) -> Callable[[str], Any]:
    """Open a page, wait until it can be used, and return a function that runs JavaScript in it."""
    browser.get(page.as_uri())
    wait_for(lambda: browser.execute_script("return document.documentElement.dataset.ready") == "true")
    return browser.execute_script


def downloaded(folder: Path, ending: str) -> str:
    """The text of the one file with this ending, once it is whole; it is removed."""
    file = wait_for(lambda: next(iter(folder.glob(f"*{ending}")), None))
    wait_for(lambda: file.stat().st_size > 0 and not list(folder.glob("*.crdownload")))
    text = file.read_text(encoding="utf-8")
    file.unlink()
    return text


def severe(browser: Any) -> list[dict[str, Any]]:
    """The console's errors, those of the Content-Security-Policy included."""
    return [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
