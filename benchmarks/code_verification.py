"""Verifying programs: compared with a plain subprocess, and on mutants of HumanEval's and MBPP's own solutions.

Examples:
    python benchmarks/code_verification.py                          # throughput, the two in turns
    python benchmarks/code_verification.py --agreement ../data --seconds 10

The folder of --agreement holds humaneval.jsonl and mbpp.jsonl. In a mutant, one constant, operator or comparison of a
solution is changed. Its verdict is compared with a second one, from a plain Python process that runs the program and
the same asserts. (Do that only with programs that you trust.)
"""

import argparse
import ast
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from progrpo.tasks.code import function_under_test
from progrpo.verify import AssertTests, Limits, StdinTests, Verdict, isolation_level, run_code_tests_batch

WORKERS = os.cpu_count() or 1


def throughput(blocks: int = 10, size: int = 100) -> dict[str, object]:
    level, _ = isolation_level()
    took: dict[str, list[float]] = {"isolated": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        for block in range(blocks):
            numbers = range(block * size, (block + 1) * size)
            programs = [f"print(sum(map(int, input().split())) + {n})" for n in numbers]
            tests = [StdinTests(((f"{n} 1", str(2 * n + 1)),)) for n in numbers]

            def isolated(programs: list[str] = programs, tests: list[StdinTests] = tests) -> bool:
                return all(v.correct for v in run_code_tests_batch(programs, tests, workers=WORKERS))

            def plain(programs: list[str] = programs, tests: list[StdinTests] = tests) -> bool:
                def passes(i: int) -> bool:
                    file = Path(folder, f"{i}.py")
                    file.write_text(programs[i])
                    stdin, expected = tests[i].cases[0]
                    run = subprocess.run(
                        [sys.executable, file], input=stdin, capture_output=True, text=True, check=True
                    )
                    return run.stdout.strip() == expected

                with ThreadPoolExecutor(WORKERS) as threads:
                    return all(threads.map(passes, range(len(programs))))

            for name, way in (("isolated", isolated), ("plain", plain))[:: 1 if block % 2 else -1]:
                began = time.perf_counter()
                if not way():
                    raise AssertionError(f"{name}: a right program was rejected")
                took[name].append(time.perf_counter() - began)
    ratios = sorted(b / a for a, b in zip(took["isolated"], took["plain"], strict=True))
    return {
        "isolation": level.name.lower(),
        "workers": WORKERS,
        "isolated programs a second": round(blocks * size / sum(took["isolated"])),
        "plain programs a second": round(blocks * size / sum(took["plain"])),
        "isolated / plain, programs a second": round(sum(took["plain"]) / sum(took["isolated"]), 2),
        "the least and the most of the blocks": [round(ratios[0], 2), round(ratios[-1], 2)],
    }


SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitXor: ast.BitOr, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def mutant(program: str, rng: random.Random, *, after_line: int = 0) -> str | None:
    """The program with one constant, operator or comparison changed; None if it has none.

    Args:
        program: a solution.
        rng: chooses the place.
        after_line: only code below this line is changed, because HumanEval's prompts hold helper functions, which the
            tests take from the dataset.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns about escapes in some of MBPP's solutions
        tree = ast.parse(program)
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    places: list[tuple[ast.AST, str]] = []
    for node in ast.walk(tree):
        if getattr(node, "lineno", 0) <= after_line:
            continue
        if isinstance(node, ast.Constant) and id(node) not in documentation and node.value is not None:
            places.append((node, "value"))
        elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in SWAPS:
            places.append((node, "op"))
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            places.append((node, "ops"))
    if not places:
        return None
    node, field = rng.choice(places)
    old = getattr(node, field)
    if field == "value":
        changed: object = not old if isinstance(old, bool) else old + (1 if isinstance(old, int | float) else "x")
    elif field == "ops":
        changed = [SWAPS[type(old[0])](), *old[1:]]
    else:
        changed = SWAPS[type(old)]()
    setattr(node, field, changed)
    return ast.unparse(tree)


class Solved(NamedTuple):
    """The solution and the tests of a dataset's row."""

    program: str
    tests: AssertTests
    prompt_lines: int = 0
    """How many lines at the start of the program belong to the prompt."""


def humaneval(row: dict[str, Any]) -> Solved:
    """A row of HumanEval."""
    script = f"{row['test']}\ncheck({row['entry_point']})"
    tests = AssertTests(script, row["prompt"], row["entry_point"])
    return Solved(row["prompt"] + row["canonical_solution"], tests, row["prompt"].count("\n"))


def mbpp(row: dict[str, Any]) -> Solved:
    """A row of MBPP, with its challenge tests."""
    script = "\n".join(row["test_list"] + row["challenge_test_list"])
    entry_point = function_under_test(row["code"], "\n".join(row["test_list"]))
    return Solved(row["code"], AssertTests(script, row["test_setup_code"], entry_point))


def mutants(solved: Sequence[Solved], seed: int = 0) -> list[Solved]:
    """A mutant of every solution that has something to change."""
    rng = random.Random(seed)
    made = [(row, mutant(row.program, rng, after_line=row.prompt_lines)) for row in solved]
    return [Solved(program, row.tests) for row, program in made if program is not None]


FORKED = """
import json, os, resource, signal, sys

def passes(script, seconds):
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM ends a process that does not expect it
        os.dup2(os.open(os.devnull, os.O_RDWR), 0), os.dup2(0, 1), os.dup2(0, 2)
        try:
            exec(compile(script, "script", "exec"), {"__name__": "__main__"})
        except BaseException:
            os._exit(1)
        os._exit(42)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42

scripts, seconds = json.load(sys.stdin)
print(json.dumps([passes(script, seconds) for script in scripts]))
"""
"""Each script runs in an ordinary process, forked from a fresh interpreter, without any part of the sandbox."""


def pass_plainly(solved: Sequence[Solved], seconds: float) -> list[bool]:
    """Whether each program passes its tests in an unprotected process."""
    scripts = [f"{tests.setup}\n{program}\n{tests.script}\n" for program, tests, _ in solved]

    def run(some: list[str]) -> list[bool]:
        arguments = json.dumps([some, seconds])
        done = subprocess.run(
            [sys.executable, "-c", FORKED], input=arguments, capture_output=True, text=True, check=True
        )
        return list(json.loads(done.stdout))

    parts = [scripts[i::WORKERS] for i in range(WORKERS)]
    with ThreadPoolExecutor(WORKERS) as threads:
        passed = list(threads.map(run, parts))
    return [passed[i % WORKERS][i // WORKERS] for i in range(len(scripts))]


def pass_isolated(solved: Sequence[Solved], seconds: float) -> list[Verdict]:
    """The verdict of the sandbox on each program."""
    programs, tests = [row.program for row in solved], [row.tests for row in solved]
    return run_code_tests_batch(programs, tests, Limits(seconds=seconds))


SOLUTION_SECONDS = 30.0
"""The limit for solutions. They end, so a long limit costs nothing; a mutant may loop."""


def agreement(solved: Sequence[Solved], seconds: float) -> dict[str, object]:
    """How many solutions pass, and on which of their mutants the sandbox and a plain process differ."""
    judged = zip(solved, pass_isolated(solved, SOLUTION_SECONDS), strict=True)
    failed = [(row.program, verdict) for row, verdict in judged if not verdict.correct]
    changed = mutants(solved)
    verdicts, plain = pass_isolated(changed, seconds), pass_plainly(changed, seconds)
    return {
        "solutions": len(solved),
        "solutions that pass": len(solved) - len(failed),
        "solutions that fail": [{"program": program, "isolated": f"{v.status}: {v.reason}"} for program, v in failed],
        "mutants": len(changed),
        "mutants that pass isolated": sum(v.correct for v in verdicts),
        "mutants that pass in a plain process": sum(plain),
        "mutants that the sandbox failed on": sum(v.status == "error" for v in verdicts),
        "differences": [
            {"program": row.program, "isolated": f"{v.status}: {v.reason}", "plain": p}
            for row, v, p in zip(changed, verdicts, plain, strict=True)
            if v.correct != p
        ],
    }


def read(file: Path, read_row: Callable[[dict[str, Any]], Solved]) -> list[Solved]:
    """The solved rows of a JSONL file."""
    return [read_row(json.loads(line)) for line in file.read_bytes().split(b"\n") if line.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agreement", type=Path, metavar="FOLDER", help="mutants of the solutions in this folder")
    parser.add_argument("--seconds", type=float, default=4.0, help="time limit of a program, for --agreement")
    args = parser.parse_args()
    from record import record  # beside this file; the tests import this module from elsewhere

    if args.agreement:
        solved = {"humaneval": humaneval, "mbpp": mbpp}
        rows = {name: read(args.agreement / f"{name}.jsonl", read_row) for name, read_row in solved.items()}
        agreements = {name: agreement(some, args.seconds) for name, some in rows.items()}
        record("code_agreement", {"seconds": args.seconds} | agreements)
    else:
        record("code_verification", throughput())


if __name__ == "__main__":
    main()
