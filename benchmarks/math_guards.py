r"""Verdicts on respelled and on altered golds: no right respelling is refused by a guard, no altered gold is accepted.

Example:
    python benchmarks/math_guards.py ../shared/data      # a folder with math500.jsonl, gsm8k_test.jsonl and so on
    python benchmarks/math_guards.py ../shared/data --only olympiadbench_math_en

Every gold is respelled in each way that applies to it (its decimal, ``x=``, ``x\in``, ``\left \right``, ``\dfrac``,
degrees, units, ``\text{}``, reordered sums and lists, infinities with their sign) and altered in each way that
applies (its sign, a number off by one, another bracket, another gold). All of them go through ``verify_math_batch``.
The code that respells and alters does not use the verifier. Each exception is listed with its reason, because the fault
may also be in that code.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from record import RESULTS, record
from respellings import Case, make_cases

BLOCK = 1000
COLUMNS = {
    "math500": "answer",
    "math_test_5000": "solution",
    "math_train_7474": "answer",
    "aime_1983_2023": "answer",
    "aime24": "answer",
    "aime25": "expected_answer",
    "hmmt_aime_2024_25": "expected_answer",
    "amc23": "answer",
    "minerva_math": "solution",
    "olympiadbench_math_en": "final_answer",
    "gsm8k_test": "answer",
    "gsm8k_train": "answer",
}
"""The column of each file's golds: a solution has the gold in its last box, GSM8K's answer has it after ``####``."""


def read_golds(folder: Path, only: Sequence[str] = ()) -> list[str]:
    """Each gold of the files once, in a fixed order."""
    golds: dict[str, None] = {}
    for name, column in COLUMNS.items():
        file = folder / f"{name}.jsonl"
        if file.exists() and (not only or name in only):
            for line in file.read_bytes().split(b"\n"):
                if line.strip():
                    golds |= dict.fromkeys(_gold(json.loads(line)[column], column))
    return list(golds)


def _gold(value: object, column: str) -> list[str]:
    from progrpo.verify import extract_answer

    if isinstance(value, list):  # OlympiadBench lists its answers
        value = ", ".join(str(part).strip().strip("$") for part in value)
    text = str(value)
    if column == "solution":
        text = extract_answer(text) or ""
    text = text.rpartition("####")[2].strip().strip("$").strip()
    return [text] if text else []


_REASONS: list[tuple[str, str]] = [
    ("not a set", "guard: no set"),
    ("the unit is", "guard: unit"),
    ("the primes of", "guard: primes"),
    ("a number after another", "guard: numbers beside each other"),
    ("the base is", "guard: base"),
    ("the answer is about", "guard: another name"),
    ("by itself", "guard: by means of itself"),
    ("one is a set", "guard: set or pair"),
    ("the answer lists", "guard: number of things"),
    ("per cent", "guard: per cent"),
    ("to be worked out", "guard: unfinished"),
    ("the answer has", "guard: too large"),
    ("the answer is nested", "guard: too large"),
    ("took more than", "deadline"),
    ("can't be read", "can't be read"),
    (" is not ", "not equal"),
]


def outcome(status: str, reason: str) -> str:
    """``right``, ``gold can't be read``, or the check that refused an answer."""
    if status != "incorrect":
        return "right" if status == "correct" else "gold can't be read"
    return next((name for part, name in _REASONS if part in reason), reason)


def sweep(cases: Sequence[Case], advance: Callable[[int], None] = lambda amount: None) -> dict[str, object]:
    """The outcomes counted by kind of case, and a list of all exceptions."""
    from progrpo.verify import verify_math_batch

    counts: dict[bool, dict[str, Counter[str]]] = {True: {}, False: {}}
    exceptions: dict[bool, list[dict[str, str]]] = {True: [], False: []}
    for start in range(0, len(cases), BLOCK):
        block = cases[start : start + BLOCK]
        verdicts = verify_math_batch([rf"\boxed{{{case.answer}}}" for case in block], [case.gold for case in block])
        for case, verdict in zip(block, verdicts, strict=True):
            what = outcome(verdict.status, verdict.reason)
            counts[case.is_right].setdefault(case.kind, Counter())[what] += 1
            if verdict.status != "error" and verdict.correct != case.is_right:
                exceptions[case.is_right].append(
                    {"kind": case.kind, "gold": case.gold, "answer": case.answer, "outcome": what}
                )
        advance(len(block))
    return {
        "respellings": _with_total(counts[True]),
        "alterations": _with_total(counts[False]),
        "respellings that were refused": exceptions[True],
        "alterations that were accepted": exceptions[False],
    }


def _with_total(counts: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {"all": dict(sum(counts.values(), Counter()))} | {kind: dict(counts[kind]) for kind in sorted(counts)}


def main() -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder with the benchmark rows as .jsonl files")
    parser.add_argument("--only", nargs="+", default=[], choices=list(COLUMNS), help="use only these files")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder for the counts and exceptions")
    args = parser.parse_args()
    golds = read_golds(args.folder, args.only)
    if not golds:
        parser.error(f"{args.folder} has none of the files {', '.join(COLUMNS)} with the ending .jsonl.")
    cases = make_cases(golds)
    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("", total=len(cases))
        result = {"golds": len(golds), "cases": len(cases)} | sweep(cases, lambda n: progress.advance(bar, n))
    name = "-".join(["math_guards", *args.only])
    record(name, result, folder=args.out, shown=False)
    print(json.dumps({name: result[name] for name in ("golds", "cases", "respellings", "alterations")}, indent=1))
    print(f"The exceptions are in {args.out / name}.json.")


if __name__ == "__main__":
    main()
