"""How many small faults in the source do the tests notice?

The script draws the same number of mutants from each part of the source (a changed operator, comparison or constant, or
a dropped statement: ``mutations.py``) and runs the tests nearest to each. It records which mutants were caught, and by
which test, and which survived.

Examples:
    python benchmarks/mutants.py --seed 0 --count 300                       # Ctrl-C stops it without losing results
    python benchmarks/mutants.py --seed 0 --count 300 --resume              # continues
    python benchmarks/mutants.py --seed 0 --count 300 --resume --survivors  # also runs the survivors again
    python benchmarks/mutants.py --only core,verify --count 100 --workers 2 --out build

The nearest tests are those in the part's test folder that execute the mutant's line, those in the file that mirrors the
module, and those that run it in another process (``RUN_BY``). The fastest tests run first, and the first failure ends
the run. A test that takes more than 5 times its usual time plus 20 s counts as a failure.

``mutants_explained.tsv`` has the reason for each survivor that no test can catch, by file, line and change.
"""

import argparse
import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mutant_tests import Tests, copy_checkout, measure, preload, run_mutant, take_copy
from mutations import KINDS, Mutant, draw, mutants_of
from record import RESULTS, record

PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "core": (("src/progrpo/core/",), ("tests/core/",)),
    "verify": (("src/progrpo/verify/",), ("tests/verify/",)),
    "evaluation": (("src/progrpo/evaluation/", "src/progrpo/sampling/"), ("tests/evaluation/", "tests/sampling/")),
    "adapters": (
        (
            *("src/progrpo/methods/", "src/progrpo/trl/trainer.py", "src/progrpo/trl/generation.py"),
            "src/progrpo/verl/batch.py",
        ),
        ("tests/methods/", "tests/trl/", "tests/verl/"),
    ),
}
"""The paths with which the source files and the test files of each part begin."""

RUN_BY = (
    ("src/progrpo/verify/code/sandbox/inside/", "tests/verify/code/test_tests.py"),
    ("src/progrpo/verify/code/sandbox/inside/", "tests/verify/code/sandbox/test_client.py"),
    ("src/progrpo/verify/workers/worker.py", "tests/verify/workers/test_pool.py"),
    ("src/progrpo/verify/math/worker.py", "tests/verify/math/test_answer.py"),
    ("src/progrpo/verify/reasoning_gym/scorer.py", "tests/tasks/test_reasoning_gym.py"),
    ("src/progrpo/trl/trainer.py", "tests/trl/test_distributed.py"),
)
"""Tests of code that runs in its own processes, where coverage can't see which lines it executes."""

OTHER_ENVIRONMENTS = {"src/progrpo/sampling/vllm.py": "make test-vllm"}
"""Files that are left out, because their tests run in another environment."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="decides which mutants are drawn")
    parser.add_argument("--count", type=int, default=300, help="the number of mutants over all parts")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {', '.join(PARTS)}")
    parser.add_argument("--workers", type=int, default=1, choices=(1, 2), help="mutants at a time")
    parser.add_argument("--resume", action="store_true", help="keep the results of earlier runs with this seed")
    parser.add_argument("--survivors", action="store_true", help="with --resume: run the survivors again")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="the checkout")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the summary, mutants.json")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"--only holds {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    root: Path = options.root.resolve()
    study = Study(root, parts, options.workers)
    tests = study.measure_tests()
    mutants = study.draw(options.count, options.seed)
    journal = study.folder / f"seed-{options.seed}.jsonl"
    results = read_journal(journal, again=options.survivors) if options.resume else {}
    study.run(mutants, tests, results, journal)
    explained = read_explained(root / "benchmarks" / "mutants_explained.tsv")
    facts = {"seed": options.seed, "tests": len(tests), "left_out": OTHER_ENVIRONMENTS}
    summary = facts | summarise(mutants, results, explained)
    record("mutants", summary, folder=options.out, shown=False)
    report(summary)
    print(f"\nWritten to {options.out / 'mutants.json'}")


class Study:
    """The copies of a checkout, the tests measured in them, and the mutants run in them.

    Args:
        root: the checkout, which is only read, except for its folder ``build``.
        parts: names from ``PARTS``.
        workers: the number of mutants at a time, each in its own copy.
    """

    def __init__(self, root: Path, parts: list[str], workers: int) -> None:
        self.parts, self.workers = parts, workers
        self.folder = root / "build" / "mutants"
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")})
        os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", PYTHONHASHSEED="0")
        self.copies = [copy_checkout(root, self.folder / f"copy-{number}") for number in range(workers)]
        self.root = self.copies[0]  # its files do not change, whatever happens to the checkout
        preload({file for part in parts for paths in PARTS[part] for file in self._files(paths)})

    def _files(self, paths: tuple[str, ...]) -> list[Path]:
        """The Python files that begin with one of these paths, without those that run in another environment."""
        names = {file.relative_to(self.root).as_posix(): file for file in sorted(self.root.rglob("*.py"))}
        return [file for name, file in names.items() if name.startswith(paths) and self._runs_here(file)]

    def _runs_here(self, file: Path) -> bool:
        name = file.relative_to(self.root).as_posix()
        return name not in OTHER_ENVIRONMENTS and not name.startswith("tests/verl/in_verl/")

    def measure_tests(self) -> Tests:
        """Every test of the parts that passes, with its time and the lines that it executes.

        The measurements of a test file are used again until the file, or source that it executes, changes.
        """
        files = [file for part in self.parts for file in self._files(PARTS[part][1]) if file.name.startswith("test_")]
        names = [file.relative_to(self.root).as_posix() for file in files]
        sources = tuple(path for part in self.parts for path in PARTS[part][0])
        names += sorted({file for source, file in RUN_BY if source.startswith(sources)} - {*names})
        names = [name for name in names if (self.root / name).exists()]
        kept = {name: self.folder / "tests" / f"{name.replace('/', '-')}.json" for name in names}
        (self.folder / "tests").mkdir(exist_ok=True)
        jobs = [(measure, name) for name in names if not self._is_known(kept[name])]
        for (_, name), measured in self._all(jobs, "tests"):
            executed = {file for test in measured.values() for file in test["lines"]}
            digests = {file: digest(self.root / file) for file in sorted({name, *executed})}
            kept[name].write_text(json.dumps({"digests": digests, "tests": measured}), encoding="utf-8")
        tests: Tests = {}
        for path in kept.values():
            tests |= json.loads(path.read_text(encoding="utf-8"))["tests"]
        return tests

    def _is_known(self, kept: Path) -> bool:
        if not kept.exists():
            return False
        digests: dict[str, str] = json.loads(kept.read_text(encoding="utf-8"))["digests"]
        return all(digest(self.root / file) == known for file, known in digests.items())

    def draw(self, count: int, seed: int) -> list[Mutant]:
        """The mutants: ``count`` of them, divided equally among the parts."""
        drawn = []
        for i, part in enumerate(self.parts):
            mutants = [mutant for file in self._files(PARTS[part][0]) for mutant in mutants_of(file, self.root)]
            drawn += draw(mutants, len(range(i, count, len(self.parts))), seed)
        return drawn

    def run(self, mutants: list[Mutant], tests: Tests, results: dict[str, dict[str, Any]], journal: Path) -> None:
        """Run the mutants that have no result yet; every result is appended to the journal at once."""
        jobs = [(run_mutant, (mutant, nearest(mutant, tests))) for mutant in mutants if mutant.key not in results]
        journal.write_text("".join(json.dumps(result) + "\n" for result in results.values()), encoding="utf-8")
        with journal.open("a", encoding="utf-8") as lines:
            for (_, (mutant, _)), result in self._all(jobs, "mutants"):
                results[mutant.key] = mutant.to_json() | result
                lines.write(json.dumps(results[mutant.key]) + "\n")
                lines.flush()

    def _all(self, jobs: list[tuple[Callable[..., Any], Any]], what: str) -> Iterator[tuple[Any, Any]]:
        """Do all jobs in forked processes, one for each copy, and yield their results, with a progress bar."""
        from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

        if not jobs:
            return
        context = get_context("fork")
        copies = context.SimpleQueue()
        for copy in self.copies:
            copies.put(str(copy))
        with ProcessPoolExecutor(self.workers, context, take_copy, (copies,)) as pool:
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


def digest(file: Path) -> str:
    """The digest of a file's content; empty if the file does not exist."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""


def nearest(mutant: Mutant, tests: Tests) -> dict[str, float]:
    """The tests that execute the mutant's line, or run it in another process, and those in the file that mirrors it.

    If the line runs at import, these are all tests that execute any line of its module. If there are no such tests,
    they are all tests of its part.
    """
    path = Path(mutant.path.replace("src/progrpo/", "tests/", 1))
    files = [path.with_name(f"test_{path.stem}.py").as_posix()]
    files += [file for source, file in RUN_BY if mutant.path.startswith(source)]
    chosen = {}
    for test, measured in tests.items():
        lines = measured["lines"].get(mutant.path, [])
        if mutant.line in lines or (mutant.at_import and lines) or test.partition("::")[0] in files:
            chosen[test] = measured["seconds"]
    if not chosen:
        folders = next(folders for sources, folders in PARTS.values() if mutant.path.startswith(sources))
        chosen = {test: measured["seconds"] for test, measured in tests.items() if test.startswith(folders)}
    return chosen


def read_journal(path: Path, *, again: bool) -> dict[str, dict[str, Any]]:
    """The results of an earlier run by the mutants' keys; with ``again``, only those of caught mutants."""
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
    """The change on one line, as in ``mutants_explained.tsv``."""
    before = " ".join(result["before"].split())
    return f"{before} -> {result['after']}" if result["after"] else f"{before} ->"


def summarise(
    mutants: list[Mutant], results: dict[str, dict[str, Any]], explained: dict[tuple[str, str, str], str]
) -> dict[str, Any]:
    """The share of caught mutants, by part and by kind, and all mutants. A survivor has its reason, if there is one."""
    outcomes = [dict(results[mutant.key]) for mutant in mutants]
    for result in outcomes:
        if result["outcome"] == "survived":
            result["explained"] = explained.get((result["path"], result["text"], change_of(result)))

    def share(some: list[dict[str, Any]]) -> dict[str, Any]:
        survivors = [result for result in some if result["outcome"] == "survived"]
        reasons = sum(result["explained"] is not None for result in survivors)
        return {
            "mutants": len(some),
            "caught": len(some) - len(survivors),
            "share": round(1 - len(survivors) / len(some), 4) if some else None,
            "share_of_unexplained": round(1 - (len(survivors) - reasons) / max(1, len(some) - reasons), 4),
            "survivors_explained": reasons,
            "survivors_unexplained": len(survivors) - reasons,
        }

    by_part = {part: [r for r in outcomes if r["path"].startswith(PARTS[part][0])] for part in PARTS}
    return {
        "all": share(outcomes),
        "parts": {part: share(some) for part, some in by_part.items() if some},
        "kinds": {kind: share([result for result in outcomes if result["kind"] == kind]) for kind in KINDS},
        "mutants": outcomes,
    }


def report(summary: dict[str, Any]) -> None:
    for name, share in {**summary["parts"], **summary["kinds"], "all": summary["all"]}.items():
        if share["mutants"]:
            print(
                f"{name:12} {share['caught']:4} of {share['mutants']:4} caught = {share['share']:6.1%}, and "
                f"{share['share_of_unexplained']:6.1%} without the explained; "
                f"survivors: {share['survivors_explained']} explained, {share['survivors_unexplained']} not"
            )
    for mutant in summary["mutants"]:
        if mutant["outcome"] == "survived" and mutant["explained"] is None:
            print(f"\n{mutant['path']}:{mutant['line']}: {mutant['text']}\n    {change_of(mutant)}")


if __name__ == "__main__":
    main()
