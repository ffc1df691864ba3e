"""Verifying programs: against a plain subprocess, and on mutants of HumanEval's and MBPP's own solutions.

Examples:
    python benchmarks/code_verification.py                          # throughput, both ways in turns
    python benchmarks/code_verification.py --agreement ../data      # a folder with humaneval.jsonl and mbpp.jsonl

A mutant has one constant, operator or comparison changed. What it is worth is found a second way: the same asserts, run
with the program in one plain Python process. (Only ever do that with programs that you trust.)
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from progrpo.verify import AssertTests, Limits, StdinTests, isolation_level, run_code_tests_batch

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
                def one(i: int) -> bool:
                    file = Path(folder, f"{i}.py")
                    file.write_text(programs[i])
                    given, expected = tests[i].cases[0]
                    run = subprocess.run(
                        [sys.executable, file], input=given, capture_output=True, text=True, check=True
                    )
                    return run.stdout.strip() == expected

                with ThreadPoolExecutor(WORKERS) as threads:
                    return all(threads.map(one, range(len(programs))))

            for name, way in (("isolated", isolated), ("plain", plain))[:: 1 if block % 2 else -1]:
                began = time.perf_counter()
                if not way():
                    raise AssertionError(f"{name}: a right program was not called right")
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


def mutant(program: str, rng: random.Random) -> str | None:
    """The program with one constant, operator or comparison changed; None if it has none."""
    tree = ast.parse(program)
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    places: list[tuple[ast.AST, str]] = []
    for node in ast.walk(tree):
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


def agreement(data: Path, seconds: float = 4.0) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, tests_of in (("humaneval", _humaneval), ("mbpp", _mbpp)):
        rows = [json.loads(line) for line in (data / f"{name}.jsonl").read_text("utf-8").split("\n") if line]
        programs, tests = zip(*map(tests_of, rows), strict=True)
        limits = Limits(seconds=seconds)
        canonical = [v.correct for v in run_code_tests_batch(programs, tests, limits)]
        rng = random.Random(0)
        pairs = [(m, test) for program, test in zip(programs, tests, strict=True) if (m := mutant(program, rng))]
        verdicts = run_code_tests_batch([m for m, _ in pairs], [test for _, test in pairs], limits)
        with ThreadPoolExecutor(WORKERS) as threads:
            plain = list(threads.map(lambda pair: passes_plainly(pair[0], pair[1], seconds), pairs))
        result[name] = {
            "canonical solutions": f"{sum(canonical)} of {len(canonical)} pass",
            "mutants": len(pairs),
            "pass isolated": sum(v.correct for v in verdicts),
            "pass in a plain process": sum(plain),
            "differences": [
                {"program": m, "isolated": str(v), "plain": p}
                for (m, _), v, p in zip(pairs, verdicts, plain, strict=True)
                if v.correct != p
            ],
        }
    return result


def _humaneval(row: dict[str, Any]) -> tuple[str, AssertTests]:
    script = f"{row['test']}\ncheck({row['entry_point']})"
    return row["prompt"] + row["canonical_solution"], AssertTests(script, row["prompt"], row["entry_point"])


def _mbpp(row: dict[str, Any]) -> tuple[str, AssertTests]:
    from progrpo.tasks.code import _tested

    script = "\n".join(row["test_list"] + row["challenge_test_list"])
    return row["code"], AssertTests(script, row["test_setup_code"], _tested(row["code"], "\n".join(row["test_list"])))


def passes_plainly(program: str, tests: AssertTests, seconds: float) -> bool:
    script = f"{tests.setup}\n{program}\n{tests.script}\nprint('all passed')"
    try:
        run = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0 and run.stdout.endswith("all passed\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agreement", type=Path, metavar="FOLDER", help="mutants of the solutions in this folder")
    args = parser.parse_args()
    print(json.dumps(agreement(args.agreement) if args.agreement else throughput(), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
