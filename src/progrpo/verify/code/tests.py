"""Programs and their tests: the sandbox runs the programs, and this process judges their results.

The expected outputs never enter the sandbox of a program. An assert script (HumanEval, MBPP) holds its expected values,
so it runs in a second sandbox, in which the program's functions are proxies::

    assert script  ->  call, arguments  ->  this process  ->  program
                   <-  a plain value    <-                <-

So a program can reach neither the expected values nor the process that compares.
"""

import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from progrpo.verify.code.sandbox import (
    MIN_ISOLATION,
    Isolation,
    Limits,
    NotIsolatedError,
    Process,
    ProgramFailedError,
    Sandbox,
    SandboxError,
)
from progrpo.verify.code.sandbox.process import call_request
from progrpo.verify.verdict import Verdict

LONGEST_PROGRAM = 1 << 20
TOLERANCE = 1e-6  # absolute or relative, for decimal numbers in outputs
MOST_CALLS = 100_000  # of one assert script


@dataclass(frozen=True)
class StdinTests:
    """Inputs and outputs as text (LiveCodeBench, Codeforces, CodeContests); each case has its own process."""

    cases: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CallTests:
    """Calls of one function, or of a method of ``Solution``, with JSON arguments (LiveCodeBench, LeetCode)."""

    function: str
    cases: tuple[tuple[list[Any], Any], ...]


@dataclass(frozen=True)
class AssertTests:
    """A script of assert statements (HumanEval, MBPP).

    Attributes:
        script: the asserts. A name that neither the script nor its setup defines is taken from the program.
        setup: the dataset's own code. It runs before the script and never in the program's process: the program must
            not define the helper functions of its tests.
        entry_point: a name that is taken from the program although the setup defines it too.
        cases: the number of calls in the script, if each may take ``limits.seconds``. By default, the whole script has
            this time.
    """

    script: str
    setup: str = ""
    entry_point: str | None = None
    cases: int = 1


CodeTests = StdinTests | CallTests | AssertTests

_sandbox = Sandbox()


def isolation_level() -> tuple[Isolation, dict[str, str]]:
    """The level of isolation that programs get here, found by trying, and the missing layers with the reasons.

    Raises:
        NotIsolatedError: this is not Linux.
        SandboxError: the sandbox can't be started.
    """
    with _sandbox.process(Limits(), Isolation.NONE) as process:
        return process.isolation, process.missing


def run_code_tests(
    program: str, tests: CodeTests, limits: Limits | None = None, *, min_isolation: Isolation = MIN_ISOLATION
) -> Verdict:
    """Whether a program passes its tests.

    Args:
        program: Python source.
        tests: :class:`StdinTests`, :class:`CallTests` or :class:`AssertTests`.
        limits: bounds on time (for each case, or a whole assert script), memory, output and files.
        min_isolation: the level below which nothing is run.

    Returns:
        ``correct``; ``incorrect`` with the first reason; or ``error`` if the isolation is too weak, the sandbox can't
        be started, or the tests themselves can't be run.

    >>> run_code_tests("print(sum(map(int, input().split())))", StdinTests((("1 2", "3"),))).status
    'correct'
    >>> run_code_tests("def f(x): return -x", CallTests("f", (([1], 1),))).reason
    'case 1: returned -1'
    """
    limits = limits or Limits()
    if len(program) > LONGEST_PROGRAM:
        return Verdict("incorrect", f"the program has {len(program)} characters, more than {LONGEST_PROGRAM}")
    try:
        match tests:
            case StdinTests():
                return _run_stdin(program, tests, limits, min_isolation)
            case CallTests():
                return _run_calls(program, tests, limits, min_isolation)
            case AssertTests():
                return _run_asserts(program, tests, limits, min_isolation)
        raise TypeError(f"tests must be StdinTests, CallTests or AssertTests, got {type(tests).__name__}.")
    except ProgramFailedError as error:
        return Verdict("incorrect", f"the program {error}")
    except (NotIsolatedError, SandboxError) as error:
        return Verdict("error", str(error))


def run_code_tests_batch(
    programs: Sequence[str],
    tests: Sequence[CodeTests],
    limits: Limits | None = None,
    *,
    workers: int | None = None,
    min_isolation: Isolation = MIN_ISOLATION,
) -> list[Verdict]:
    """:func:`run_code_tests` for many programs, ``workers`` at a time (by default one per core), in order.

    Raises:
        ValueError: ``programs`` and ``tests`` differ in number.
    """
    if len(programs) != len(tests):
        raise ValueError(f"programs and tests must be as many, got {len(programs)} and {len(tests)}.")
    if not programs:
        return []
    run = partial(run_code_tests, limits=limits, min_isolation=min_isolation)
    with ThreadPoolExecutor(min(workers or os.cpu_count() or 1, len(programs))) as threads:
        return list(threads.map(run, programs, tests))


# -- Standard input and output -----------------------------------------------------------------------------------------


def _run_stdin(program: str, tests: StdinTests, limits: Limits, min_isolation: Isolation) -> Verdict:
    if not tests.cases:
        return Verdict("error", "there are no tests")
    for number, (stdin, expected) in enumerate(tests.cases, start=1):
        with _sandbox.process(limits, min_isolation, stdin=stdin.encode()) as process:
            try:
                process.send({"kind": "program", "program": program})
                difference = compare_output(process.output().decode(), expected)
            except ProgramFailedError as error:
                difference = f"the program {error}"
            except UnicodeDecodeError:
                difference = "the output is not UTF-8"
        if difference:
            return Verdict("incorrect", f"case {number}: {difference}")
    return Verdict("correct")


_DECIMAL = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_LONGEST_DECIMAL = 400


def compare_output(output: str, expected: str) -> str:
    """The first difference between an output and the expected one; empty if there is none.

    The amount of white space between words, and at the ends of lines and of the text, does not count. Everything else
    counts, such as the number of lines. A decimal number may be off by 1e-6 (absolute or relative).

    >>> compare_output("1  2 \\n0.3333333\\n", "1 2\\n0.333333333")
    ''
    >>> compare_output("1", "1\\n2")
    'the output has 1 lines, not 2'
    """
    lines, expected_lines = output.strip().split("\n"), expected.strip().split("\n")
    if len(lines) != len(expected_lines):
        return f"the output has {len(lines)} lines, not {len(expected_lines)}"
    for number, (line, expected_line) in enumerate(zip(lines, expected_lines, strict=True), start=1):
        words, expected_words = line.split(), expected_line.split()
        if len(words) != len(expected_words) or not all(map(_same_word, words, expected_words)):
            return f"line {number} is {_cut(line)!r}, not {_cut(expected_line)!r}"
    return ""


def _same_word(word: str, expected: str) -> bool:
    if word == expected:
        return True
    if max(len(word), len(expected)) > _LONGEST_DECIMAL or expected.lstrip("+-").isdigit():
        return False
    both_are_numbers = _DECIMAL.fullmatch(expected) and _DECIMAL.fullmatch(word)
    return bool(both_are_numbers) and _close(float(word), float(expected))


def _close(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:80] + "..."


# -- Calls -------------------------------------------------------------------------------------------------------------


def _run_calls(program: str, tests: CallTests, limits: Limits, min_isolation: Isolation) -> Verdict:
    if not tests.cases:
        return Verdict("error", "there are no tests")
    try:
        requests = [call_request(tests.function, arguments) for arguments, _ in tests.cases]
    except (TypeError, ValueError) as error:
        return Verdict("error", f"the tests can't be run: {error}")
    with _sandbox.process(limits, min_isolation, cases=1 + len(requests)) as process:
        process.load(program=program)
        for number, (request, (_, expected)) in enumerate(zip(requests, tests.cases, strict=True), start=1):
            process.allow()
            try:
                value = process.call(request)
            except ProgramFailedError as error:
                return Verdict("incorrect", f"case {number}: the program {error}")
            if not same_value(value, expected):
                return Verdict("incorrect", f"case {number}: returned {_describe(value)}")
    return Verdict("correct")


def same_value(value: Any, expected: Any) -> bool:
    """Whether a returned value, made plain, is the expected JSON value.

    A tuple counts as a list, and a decimal may be off by 1e-6. No other type counts as a different type.

    >>> same_value((1, 2.0000001), [1, 2.0]), same_value({"a": 1}, {"a": 2})
    (True, False)
    """
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(expected, list):
        same_length = isinstance(value, list | tuple) and len(value) == len(expected)
        return same_length and all(map(same_value, value, expected))
    if isinstance(expected, dict):
        same_keys = isinstance(value, dict) and value.keys() == expected.keys()
        return same_keys and all(same_value(value[key], item) for key, item in expected.items())
    if isinstance(expected, float) and isinstance(value, int | float):
        with suppress(OverflowError):
            return _close(value, expected)
    return type(value) in (int, float, str, type(None)) and bool(value == expected)


def _describe(value: Any) -> str:
    try:
        return _cut(repr(value))
    except ValueError:  # an integer too long to be written
        return f"a {type(value).__name__}"


# -- Assert scripts ----------------------------------------------------------------------------------------------------


def _run_asserts(program: str, tests: AssertTests, limits: Limits, min_isolation: Isolation) -> Verdict:
    # The tester has a little more time, so that a slow program misses its own deadline first.
    longer = replace(limits, seconds=limits.seconds * tests.cases + 1)
    with _sandbox.process(limits, min_isolation, cases=tests.cases) as tested:
        tested.load(program=program)
        with _sandbox.process(longer, min_isolation) as tester:
            job = {"kind": "script", "script": tests.script, "setup": tests.setup, "entry_point": tests.entry_point}
            try:
                tester.send(job)
                message = tester.receive()
            except ProgramFailedError as error:  # before the program had any part in it
                return Verdict("error", f"the tests can't be run: the script {error}")
            try:
                for _ in range(MOST_CALLS):
                    if "ask" not in message:
                        break
                    if tests.cases > 1:
                        tested.allow()
                    tested.send(message["ask"])
                    tester.send(_answer(tested))
                    message = tester.receive()
            except ProgramFailedError:
                _ = tested.left  # raises if the program's own time is up: then it is the program's fault
                raise
    if "unusable" in message:
        return Verdict("error", f"the tests can't be run: {message['unusable']}")
    if "passed" not in message:
        return Verdict("incorrect", f"a test failed: {message.get('wrong', 'without an answer')}")
    return Verdict("correct") if message["passed"] else Verdict("incorrect", "no assert of the tests was reached")


def _answer(tested: Process) -> dict[str, Any]:
    """The program's answer, rebuilt from the expected fields. Nothing else reaches the tester, which decodes it."""
    answer = tested.receive()
    if "raised" in answer:
        return {"raised": str(answer["raised"])[:100], "text": str(answer.get("text"))[:400]}
    if "value" not in answer:
        raise ProgramFailedError("ended without an answer")
    return {"value": answer["value"]}
