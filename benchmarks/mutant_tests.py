"""Runs tests in forked processes, each in a copy of the checkout; ``mutants.py`` uses it to run mutants.

The process that is forked has imported third-party packages, which takes most of the time, but no module of progrpo, so
that progrpo is imported from the copy. The copy's source comes first on the path of every process that a test starts.
"""

import ast
import ctypes
import importlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from mutations import Mutant

SLOWER, MORE_SECONDS = 5, 20
START_SECONDS = 120
"""The time until the first test of a run must begin; before it, pytest collects the tests."""

Tests = dict[str, dict[str, Any]]
"""For each test, its seconds, and the lines that it executes, by file."""

PYTEST_HAS_ENDED = (0, 1, 5)
"""pytest's exit codes if tests passed, failed, or were not found; other codes are errors."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def copy_checkout(root: Path, folder: Path) -> Path:
    """Copy the source and the tests, compiled so that Python notices every change of a file, however fast.

    The copy is inside the checkout, because the sandbox hides /tmp. ``../shared`` is beside the copy if it is beside
    the checkout.
    """
    shutil.rmtree(folder, ignore_errors=True)
    copy = folder / "checkout"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "runs", "__pycache__")
    shutil.copytree(root, copy, ignore=ignored)
    if (root.parent / "shared").exists():
        (folder / "shared").symlink_to(root.parent / "shared")
    command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", str(copy / "src")]
    subprocess.run(command, check=True)
    return copy


def preload(files: Iterable[Path]) -> None:
    """Import the third-party packages that the files import, so that a forked process has them at once."""
    for module, names in sorted({("pytest", ()), ("coverage", ()), ("psutil", ())}.union(*map(_imports, files))):
        with suppress(ImportError, RuntimeError, OSError):
            imported = importlib.import_module(module)
            for name in names:
                getattr(imported, name, None)  # transformers and trl import their parts on first use
    assert not any(name.partition(".")[0] == "progrpo" for name in sys.modules), "no mutant of it would be imported"
    assert threading.active_count() == 1, "a forked process has one thread, whatever the others held"


def _imports(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The modules that a file imports, and the names that it imports from each, without this project's."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                modules: list[tuple[str, tuple[str, ...]]] = [(alias.name, ()) for alias in names]
            case ast.ImportFrom(module=str(module), names=names, level=0):
                modules = [(module, tuple(alias.name for alias in names))]
            case _:
                continue
        yield from (pair for pair in modules if pair[0].partition(".")[0] not in {"progrpo", "tests", "verl", "vllm"})


# The code below runs in a worker process, which has one copy of the checkout and forks once for every run of tests.

_copy = Path()


def take_copy(copies: Any) -> None:
    """Initialise a worker process."""
    global _copy  # noqa: PLW0603 - a worker process has one copy for its whole life
    _copy = Path(copies.get())
    _control_process(PR_SET_CHILD_SUBREAPER, 1)  # whatever a run leaves behind becomes a child of this process
    _control_process(PR_SET_PDEATHSIG, signal.SIGINT)


def _control_process(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def measure(name: str) -> Tests:
    """Run a file of tests with coverage."""
    ran = run_tests([name], {}, watched=True)
    return {
        test: {"seconds": round(seconds, 3), "lines": ran["lines"].get(test, {})}
        for test, seconds in ran["seconds"].items()
        if test not in ran["failed"]
    }


def run_mutant(job: tuple[Mutant, dict[str, float]]) -> dict[str, Any]:
    """Put the change into the copy, run the tests, take the change back."""
    mutant, seconds = job
    began = time.monotonic()
    file = _copy / mutant.path
    source = file.read_text(encoding="utf-8")
    file.write_text(mutant.apply(source), encoding="utf-8")
    try:
        ran = run_tests(sorted({test.partition("::")[0] for test in seconds}), seconds, stop=True) if seconds else {}
    finally:
        file.write_text(source, encoding="utf-8")
    by = ran.get("late") or next(iter(ran.get("failed", [])), None)
    outcome = "timeout" if ran.get("late") else "killed" if by else "survived"
    took = round(time.monotonic() - began, 1)
    return {"outcome": outcome, "by": by, "tests": len(seconds), "tests_run": len(ran.get("seconds", [])), "took": took}


def run_tests(
    files: list[str], seconds: dict[str, float], *, watched: bool = False, stop: bool = False
) -> dict[str, Any]:
    """Run tests of the copy in a forked process, and end everything that it leaves behind.

    Args:
        files: the test files.
        seconds: the tests to run and how long each takes, from which their order follows; empty for all tests.
        watched: also record which lines each test executes.
        stop: stop at the first failure.

    Returns:
        ``seconds`` of every test that began, the tests that ``failed``, the one that was ``late``, if any, and the
        ``lines`` of each test.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _in_forked_process(files, seconds, write, watched, stop)
    os.close(write)
    try:
        ran = _listen(read, seconds)
    finally:
        os.close(read)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it has sent all its messages
        _, status = os.waitpid(pid, 0)
        _end_children()
    if not (ran["ended"] or ran["late"] or ran["failed"]):
        ran["failed"].append(f"{ran['test']}: the process ended with status {os.waitstatus_to_exitcode(status)}")
    return ran


def _listen(read: int, seconds: dict[str, float]) -> dict[str, Any]:
    """Collect the messages of the forked process, until it ends or a test is late."""
    ran: dict[str, Any] = {"seconds": {}, "failed": [], "late": None, "lines": {}, "ended": False}
    ran["test"], limit, text = "before the first test", float(START_SECONDS), b""
    while not ran["ended"]:
        if not select.select([read], [], [], limit)[0]:
            return ran | {"late": ran["test"]}
        more = os.read(read, 1 << 20)
        if not more:
            break
        *whole, text = (text + more).split(b"\n")
        for message in map(json.loads, whole):
            match message["what"]:
                case "begin":
                    ran["test"] = message["test"]
                    ran["seconds"][ran["test"]] = 0.0
                    limit = SLOWER * seconds.get(ran["test"], 60.0) + MORE_SECONDS
                case "end":
                    ran["seconds"][message["test"]] = message["seconds"]
                case "failed":
                    ran["failed"].append(message["test"])
                case "finished":
                    ran |= {"lines": message["lines"], "ended": message["status"] in PYTEST_HAS_ENDED}
    return ran


def _end_children() -> None:
    import psutil

    while left := psutil.Process().children(recursive=True):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def _in_forked_process(files: list[str], seconds: dict[str, float], write: int, watched: bool, stop: bool) -> None:
    try:
        os.setsid()
        _control_process(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.set_inheritable(write, False)
        log = os.open(_copy.parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(_copy)
        sys.dont_write_bytecode = not watched  # the tests themselves are compiled once, when they are measured
        source, paths = str(_copy / "src"), os.environ.get("PYTHONPATH", "").split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join([source, *filter(None, paths)])
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.path[:] = [source, *(path for path in sys.path if path != str(Path(__file__).parent))]
        import pytest

        with os.fdopen(write, "w", encoding="utf-8", closefd=False) as messages:
            plugin = Plugin(messages, seconds, watched)
            arguments = ["-q", "-p", "no:cacheprovider", "--rootdir", str(_copy), *(["-x"] if stop else []), *files]
            plugin.finish(int(pytest.main(arguments, [plugin])))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


class Plugin:
    """Reports to the process above which test begins, ends or fails; selects and orders the tests; records lines."""

    def __init__(self, messages: TextIO, seconds: dict[str, float], watched: bool) -> None:
        self._messages, self._seconds, self._began, self._coverage = messages, seconds, 0.0, None
        if watched:
            import coverage

            self._coverage = coverage.Coverage(data_file=None, include=[str(_copy / "src" / "*")], config_file=False)
            self._coverage.start()

    def _tell(self, **message: Any) -> None:
        self._messages.write(json.dumps(message) + "\n")
        self._messages.flush()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if not self._seconds:
            return
        of_file: dict[str, float] = defaultdict(float)
        for item in items:
            of_file[item.location[0]] += self._seconds.get(item.nodeid, 0.0)
        kept = [item for item in items if item.nodeid in self._seconds]
        items[:] = sorted(kept, key=lambda item: (of_file[item.location[0]], self._seconds[item.nodeid]))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._began = time.monotonic()
        self._tell(what="begin", test=nodeid)
        if self._coverage is not None:
            self._coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._tell(what="failed", test=report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._tell(what="failed", test=f"{report.nodeid} can't be collected")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._tell(what="end", test=nodeid, seconds=time.monotonic() - self._began)

    def finish(self, status: int) -> None:
        """Report pytest's exit code, and which lines each test executed."""
        lines: dict[str, dict[str, list[int]]] = {}
        if self._coverage is not None:
            self._coverage.stop()
            data = self._coverage.get_data()
            for file in data.measured_files():
                name = Path(file).relative_to(_copy).as_posix()
                for line, tests in data.contexts_by_lineno(file).items():
                    for test in filter(None, tests):
                        lines.setdefault(test, {}).setdefault(name, []).append(line)
        self._tell(what="finished", status=status, lines=lines)
