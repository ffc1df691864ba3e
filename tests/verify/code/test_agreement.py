"""HumanEval's and MBPP's own solutions pass, and each mutant gets the same verdict as in a plain process. A mutant is a
solution with one constant, operator or comparison changed: it looks right and is mostly wrong. Some of MBPP's mutants
loop, so only every twelfth is run here. ``benchmarks/code_verification.py --agreement`` runs them all, and its result
is stored."""

import json
import random
from types import ModuleType

import pytest
from tests.verify.shared_data import BENCHMARKS, load_benchmark, shared_file


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """benchmarks/code_verification.py, which makes the mutants and runs the plain process."""
    return load_benchmark("code_verification")


@pytest.mark.parametrize(("name", "count", "every"), [("humaneval", 164, 1), ("mbpp", 974, 12)])
def test_solutions_pass_and_mutants_get_the_verdict_of_a_plain_process(
    benchmark: ModuleType, name: str, count: int, every: int
) -> None:
    solved = benchmark.read(shared_file(f"{name}.jsonl"), getattr(benchmark, name))
    assert len(solved) == count
    judged = zip(solved, benchmark.pass_isolated(solved, benchmark.SOLUTION_SECONDS), strict=True)
    assert [(solution.program, verdict) for solution, verdict in judged if not verdict.correct] == []

    changed = benchmark.mutants(solved[::every])
    assert len(changed) > 0.8 * count / every
    verdicts, plain = benchmark.pass_isolated(changed, 4), benchmark.pass_plainly(changed, 4)
    pairs = list(zip(changed, verdicts, plain, strict=True))
    assert [(mutant.program, verdict, passes) for mutant, verdict, passes in pairs if verdict.correct != passes] == []
    assert {verdict.status for verdict in verdicts} == {"correct", "incorrect"}
    # The tests miss few of the changes; if they missed many, the mutants would show little.
    assert sum(plain) < len(plain) / 3


def test_a_mutant_differs_in_one_place(benchmark: ModuleType) -> None:
    program = "def twice(x):\n    '''Two times.'''\n    return x * 2 if x < 5 else x + x"
    made = {benchmark.mutant(program, random.Random(seed)) for seed in range(40)}
    lines = program.split("\n")[2]
    changes = [("* 2", "+ 2"), ("* 2", "* 3"), ("< 5", "<= 5"), ("< 5", "< 6"), ("x + x", "x - x")]
    assert {text.split("\n")[2] for text in made} == {lines.replace(old, new) for old, new in changes}
    assert benchmark.mutant("def same(x):\n    return x", random.Random(0)) is None
    assert benchmark.mutant(program, random.Random(0), after_line=3) is None


def test_the_stored_result_covers_whole_datasets() -> None:
    stored = json.loads((BENCHMARKS / "results" / "code_agreement.json").read_text("utf-8"))["figures"]
    for name, count, mutants in (("humaneval", 164, 150), ("mbpp", 974, 800)):
        figures = stored[name]
        assert (figures["solutions"], figures["solutions that pass"]) == (count, count)
        assert figures["mutants"] >= mutants
        assert figures["mutants that the sandbox failed on"] == 0
        assert figures["differences"] == []
