"""How many small faults in the source do the tests notice?

Draws mutants (``mutations.py``: an operator, a comparison, a constant, a dropped statement) from four rooms, as many from
each, runs the tests nearest to each mutant, and writes down which ones were caught, by which test, and which survived.

Examples:
    python benchmarks/mutants.py --seed 0 --count 300                       # some hours of one core; Ctrl-C is fine
    python benchmarks/mutants.py --seed 0 --count 300 --resume              # goes on
    python benchmarks/mutants.py --seed 0 --count 300 --resume --survivors  # and tries the survivors again
    python benchmarks/mutants.py --only core,verify --count 100 --workers 2 --out build/some.json

The nearest tests are those of the room's folder of tests that execute the mutant's line, and the file that mirrors the
module; where neither is known (code that runs in other processes), all of the nearest folder that has tests. They run
in the order of how long they take, and the first failure ends it. A test that takes more than 5 times its usual time and
20 s counts as a failure.

Every mutant runs in a process that is forked from one which has imported what the tests import, but nothing of progrpo,
and in a copy of the checkout under ``build/mutants``, which is the first thing on every process's path. A survivor that
can't be caught has its reason in ``mutants_explained.tsv``: file, line, change, reason.
"""

import argparse
import ast
import csv
import ctypes
import hashlib
import importlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TextIO

from mutations import KINDS, Mutant, draw, mutants_of

ROOMS = {
    "core": ("src/progrpo/core", "tests/core"),
    "verify": ("src/progrpo/verify", "tests/verify"),
    "evaluation": ("src/progrpo/evaluation", "tests/evaluation"),
    "adapters": ("src/progrpo/integrations", "tests/integrations"),
}
"""The source and the tests of each room."""

OTHER_ENVIRONMENTS = {
    "src/progrpo/integrations/verl.py": "make test-verl",
    "src/progrpo/integrations/verl_check.py": "make test-verl",
    "src/progrpo/integrations/verl_plugin.py": "make test-verl",
    "src/progrpo/evaluation/backends/vllm.py": "make test-vllm",
}
"""What is left out, because the tests of it run in an environment of their own."""

SLOWER, MORE_SECONDS = 5, 20
START_SECONDS = 120
"""How long a run may take until its first test begins: the tests are collected."""

Tests = dict[str, dict[str, Any]]
"""Of each test: its seconds, and the lines that it executes, by file."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="which mutants are drawn")
    parser.add_argument("--count", type=int, default=300, help="how many, over all rooms")
    parser.add_argument("--only", default=",".join(ROOMS), help=f"rooms, of {', '.join(ROOMS)}")
    parser.add_argument("--workers", type=int, default=1, choices=(1, 2), help="mutants at a time")
    parser.add_argument("--resume", action="store_true", help="keep what an earlier run of this seed has found")
    parser.add_argument("--survivors", action="store_true", help="with --resume: run those that survived again")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="the checkout")
    parser.add_argument("--out", type=Path, help="the summary (default: benchmarks/results/mutants.json)")
    options = parser.parse_args()
    rooms = options.only.split(",")
    if unknown := sorted(set(rooms) - set(ROOMS)):
        parser.error(f"--only holds {', '.join(unknown)}; the rooms are {', '.join(ROOMS)}")
    root: Path = options.root.resolve()
    study = Study(root, rooms, options.workers)
    tests = study.measure_tests()
    mutants = study.draw(options.count, options.seed)
    journal = study.folder / f"seed-{options.seed}.jsonl"
    results = read_journal(journal, again=options.survivors) if options.resume else {}
    study.run(mutants, tests, results, journal)
    explained = read_explained(root / "benchmarks" / "mutants_explained.tsv")
    summary = summarise(mutants, results, explained) | {"seed": options.seed, "left_out": OTHER_ENVIRONMENTS}
    out = options.out or root / "benchmarks" / "results" / "mutants.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    report(summary)
    print(f"\nWritten to {out}")


class Study:
    """The copies of a checkout, the tests measured in them, and the mutants run in them.

    Args:
        root: the checkout, which is only read, but for its folder ``build``.
        rooms: of ``ROOMS``.
        workers: mutants at a time, each in a copy of its own.
    """

    def __init__(self, root: Path, rooms: list[str], workers: int) -> None:
        self.root, self.rooms, self.workers = root, rooms, workers
        self.folder = root / "build" / "mutants"
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")})
        os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", PYTHONHASHSEED="0")
        self.copies = [copy_checkout(root, self.folder / f"copy-{number}") for number in range(workers)]
        folders = [root / folder for room in rooms for folder in ROOMS[room]]
        preload({file for folder in folders for file in folder.rglob("*.py") if self._runs_here(file)})

    def _runs_here(self, file: Path) -> bool:
        name = file.relative_to(self.root).as_posix()
        return name not in OTHER_ENVIRONMENTS and not name.startswith("tests/integrations/verl/")

    def measure_tests(self) -> Tests:
        """Every test of the rooms that passes twice: how long it takes, and which lines it executes."""
        source = hashlib.sha256()
        for file in sorted((self.root / "src").rglob("*.py")):
            source.update(file.read_bytes())
        files = [file for room in self.rooms for file in sorted((self.root / ROOMS[room][1]).rglob("test_*.py"))]
        kept: dict[Path, Path] = {}
        for file in filter(self._runs_here, files):
            digest = hashlib.sha256(source.digest() + file.read_bytes()).hexdigest()[:16]
            kept[file] = self.folder / "tests" / f"{file.stem}-{digest}.json"
            kept[file].parent.mkdir(exist_ok=True)
        jobs = [(_measure, file.relative_to(self.root).as_posix()) for file in kept if not kept[file].exists()]
        for (_, name), measured in self._all(jobs, "tests"):
            kept[self.root / name].write_text(json.dumps(measured), encoding="utf-8")
        tests: Tests = {}
        for path in kept.values():
            tests |= json.loads(path.read_text(encoding="utf-8"))
        return tests

    def draw(self, count: int, seed: int) -> list[Mutant]:
        """As many of each room as there are rooms in ``count``."""
        drawn = []
        for i, room in enumerate(self.rooms):
            files = filter(self._runs_here, sorted((self.root / ROOMS[room][0]).rglob("*.py")))
            mutants = [mutant for file in files for mutant in mutants_of(file, self.root)]
            drawn += draw(mutants, len(range(i, count, len(self.rooms))), seed)
        return drawn

    def run(self, mutants: list[Mutant], tests: Tests, results: dict[str, dict[str, Any]], journal: Path) -> None:
        """Run the mutants that have no result yet; every result is appended to the journal at once."""
        jobs = [
            (_run_mutant, (mutant, nearest(mutant, tests, self.root)))
            for mutant in mutants
            if mutant.key not in results
        ]
        journal.write_text("".join(json.dumps(result) + "\n" for result in results.values()), encoding="utf-8")
        with journal.open("a", encoding="utf-8") as lines:
            for (_, (mutant, _)), result in self._all(jobs, "mutants"):
                results[mutant.key] = mutant.to_json() | result
                lines.write(json.dumps(results[mutant.key]) + "\n")
                lines.flush()

    def _all(self, jobs: list[tuple[Callable[..., Any], Any]], what: str) -> Iterator[tuple[Any, Any]]:
        """Do all jobs in forked processes, one for each copy, and yield what they return, with a progress bar."""
        from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

        if not jobs:
            return
        context = get_context("fork")
        copies = context.SimpleQueue()
        for copy in self.copies:
            copies.put(str(copy))
        with ProcessPoolExecutor(self.workers, context, _take_copy, (copies,)) as pool:
            futures = {pool.submit(job, argument): (job, argument) for job, argument in jobs}
            columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
            with Progress(*columns, TimeRemainingColumn()) as progress:
                task = progress.add_task(what, total=len(jobs))
                try:
                    for future in as_completed(futures):
                        yield futures[future], future.result()
                        progress.advance(task)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise


def copy_checkout(root: Path, folder: Path) -> Path:
    """The source and the tests, compiled so that a file that is changed is noticed, however fast.

    It lies in the checkout, as the sandbox hides /tmp; ``../shared`` is beside it if it is beside the checkout.
    """
    shutil.rmtree(folder, ignore_errors=True)
    copy = folder / "checkout"
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True)
    names = listed.stdout.splitlines() or [str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()]
    for name in names:
        if (root / name).is_file() and not name.startswith("build/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
    if (root.parent / "shared").exists():
        (folder / "shared").symlink_to(root.parent / "shared")
    command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", str(copy / "src")]
    subprocess.run(command, check=True)
    return copy


def preload(files: Iterable[Path]) -> None:
    """Import other people's packages that the files import, so that a forked process has them at once."""
    for module, names in sorted({("pytest", ()), ("coverage", ()), ("psutil", ())}.union(*map(_imports, files))):
        with suppress(ImportError, RuntimeError, OSError):
            imported = importlib.import_module(module)
            for name in names:
                getattr(imported, name, None)  # transformers and trl import their parts when they are asked for them
    assert not any(name.partition(".")[0] == "progrpo" for name in sys.modules), "no mutant of it would be imported"
    threads = Path("/proc/self/task")
    assert not threads.exists() or len(list(threads.iterdir())) == 1, "a fork has one thread, so there may be one"


def _imports(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The modules that a file imports, and the names that it takes of each; not this project's."""
    beside = {path.stem for parent in file.parents[:4] for path in parent.iterdir()} if "tests" in file.parts else set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            found = [] if node.level else [(node.module or "", tuple(names))]
        else:
            found = [(name, ()) for name in names]
        for module, taken in found:
            if module.partition(".")[0] not in beside | {"progrpo", "verl", "vllm"}:
                yield module, taken


# What follows runs in a worker process, which has one copy of the checkout and forks once for every run of tests.

_copy = Path()


def _take_copy(copies: Any) -> None:
    global _copy  # noqa: PLW0603 - a worker process has one for as long as it lives
    _copy = Path(copies.get())
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: whatever a run leaves behind becomes a child of this


def _measure(name: str) -> Tests:
    """Run a file of tests with coverage, and once more in the order that mutants are tried in, without it."""
    watched = run_tests([name], {}, watched=True)
    passed = {test: seconds for test, seconds in watched["seconds"].items() if test not in watched["failed"]}
    again = run_tests([name], passed) if passed else watched
    lines = watched["lines"]
    return {
        test: {"seconds": round(seconds, 3), "lines": lines.get(test, {})}
        for test, seconds in again["seconds"].items()
        if test not in again["failed"]
    }


def _run_mutant(job: tuple[Mutant, dict[str, float]]) -> dict[str, Any]:
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
        files: of tests.
        seconds: the tests to run, and how long each takes, in whose order they run; empty: all.
        watched: also find out which lines each test executes.
        stop: end with the first failure.

    Returns:
        ``seconds`` of every test that began, those that ``failed``, the one that was ``late``, if any, and the
        ``lines``.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _in_forked_process(files, seconds, write, watched, stop)
    os.close(write)
    ran: dict[str, Any] = {"seconds": {}, "failed": [], "late": None, "lines": {}}
    test, limit, text = "before the first test", float(START_SECONDS), b""
    while True:
        ready, _, _ = select.select([read], [], [], limit)
        more = os.read(read, 1 << 20) if ready else b""
        if not ready:
            ran["late"] = test
        if not more:
            break
        *whole, text = (text + more).split(b"\n")
        for line in whole:
            message = json.loads(line)
            if message["what"] == "begin":
                test = message["test"]
                limit = SLOWER * seconds.get(test, 60.0) + MORE_SECONDS
                ran["seconds"].setdefault(test, 0.0)
            elif message["what"] == "end":
                ran["seconds"][test] = message["seconds"]
            elif message["what"] == "failed":
                ran["failed"].append(message["test"])
            elif message["what"] == "lines":
                ran["lines"] = message["lines"]
    os.close(read)
    if ran["late"]:
        os.kill(pid, 9)
    _, status = os.waitpid(pid, 0)
    _end_children()
    if status != 0 and not ran["late"] and not ran["failed"]:
        ran["failed"].append(f"{test}: the process ended with status {status}")
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
    code = 1
    try:
        os.setsid()
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
            status = pytest.main(arguments, [plugin])
            plugin.finish()
        code = 0 if status in (0, 1) else int(status)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Plugin:
    """Tells the process above which test begins, ends or fails; chooses and orders the tests; watches the lines."""

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
        if self._seconds:
            kept = [item for item in items if item.nodeid in self._seconds]
            per_file: Counter[str] = Counter()
            for item in kept:
                per_file[item.nodeid.partition("::")[0]] += self._seconds[item.nodeid]  # type: ignore[assignment]
            items[:] = sorted(
                kept, key=lambda item: (per_file[item.nodeid.partition("::")[0]], self._seconds[item.nodeid])
            )

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

    def finish(self) -> None:
        if self._coverage is None:
            return
        self._coverage.stop()
        data = self._coverage.get_data()
        lines: dict[str, dict[str, list[int]]] = {}
        for file in data.measured_files():
            name = Path(file).relative_to(_copy).as_posix()
            for line, tests in data.contexts_by_lineno(file).items():
                for test in filter(None, tests):
                    lines.setdefault(test, {}).setdefault(name, []).append(line)
        self._tell(what="lines", lines=lines)


def nearest(mutant: Mutant, tests: Tests, root: Path) -> dict[str, float]:
    """The tests that execute the mutant's line, or for a line that runs at import any of its file, and the mirrored file's.

    Where there are none of either, all of the nearest folder that has tests: that code runs in other processes.
    """
    path = Path(mutant.path.replace("src/progrpo/", "tests/", 1))
    mirrored = path.with_name(f"test_{path.stem}.py").as_posix() + "::"
    chosen = {}
    for test, measured in tests.items():
        lines = measured["lines"].get(mutant.path, [])
        if mutant.line in lines or (mutant.at_import and lines) or test.startswith(mirrored):
            chosen[test] = measured["seconds"]
    folder = path.parent
    while not chosen and folder != folder.parent:
        inside = f"{folder.as_posix()}/"
        chosen = {test: measured["seconds"] for test, measured in tests.items() if test.startswith(inside)}
        folder = folder.parent
    return chosen


def read_journal(path: Path, *, again: bool) -> dict[str, dict[str, Any]]:
    """The results of an earlier run by the mutants' keys; with ``again`` only those that were caught."""
    if not path.exists():
        return {}
    results = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.endswith("}")]
    return {result["key"]: result for result in results if not (again and result["outcome"] == "survived")}


def read_explained(path: Path) -> dict[tuple[str, str, str], str]:
    """Why a survivor can't be caught, by its file, its line's text and its change."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return {(row["file"], row["line"], row["change"]): row["reason"] for row in rows}


def change_of(result: dict[str, Any]) -> str:
    """On one line, as in ``mutants_explained.tsv``."""
    before = " ".join(result["before"].split())
    return f"{before} -> {result['after']}" if result["after"] else f"{before} ->"


def summarise(
    mutants: list[Mutant], results: dict[str, dict[str, Any]], explained: dict[tuple[str, str, str], str]
) -> dict[str, Any]:
    """The share that is caught, by room and by kind, and all mutants; a survivor with its reason, if it has one."""
    found = [dict(results[mutant.key]) for mutant in mutants]
    for result in found:
        if result["outcome"] == "survived":
            result["explained"] = explained.get((result["path"], result["text"], change_of(result)))

    def share(some: list[dict[str, Any]]) -> dict[str, Any]:
        survivors = [result for result in some if result["outcome"] == "survived"]
        reasons = sum(result["explained"] is not None for result in survivors)
        return {
            "mutants": len(some),
            "caught": len(some) - len(survivors),
            "share": round(1 - len(survivors) / len(some), 4) if some else None,
            "survivors_explained": reasons,
            "survivors_unexplained": len(survivors) - reasons,
        }

    by_room = {room: [r for r in found if r["path"].startswith(f"{ROOMS[room][0]}/")] for room in ROOMS}
    return {
        "all": share(found),
        "rooms": {room: share(some) for room, some in by_room.items() if some},
        "kinds": {kind: share([result for result in found if result["kind"] == kind]) for kind in KINDS},
        "mutants": found,
    }


def report(summary: dict[str, Any]) -> None:
    for name, share in {**summary["rooms"], **summary["kinds"], "all": summary["all"]}.items():
        if share["mutants"]:
            print(
                f"{name:12} {share['caught']:4} of {share['mutants']:4} caught = {share['share']:6.1%}; "
                f"survivors: {share['survivors_explained']} explained, {share['survivors_unexplained']} not"
            )
    for mutant in summary["mutants"]:
        if mutant["outcome"] == "survived" and mutant["explained"] is None:
            print(f"\n{mutant['path']}:{mutant['line']}: {mutant['text']}\n    {change_of(mutant)}")


if __name__ == "__main__":
    main()
