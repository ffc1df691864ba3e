"""Programming problems with tests."""

import base64
import io
import json
import pickle
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from progrpo.tasks.dataset import DatasetTask, Item, Preset
from progrpo.tasks.evalplus import has_evalplus_tests, input_tests, script_tests
from progrpo.tasks.generated import small_functions
from progrpo.tasks.rows import BadRowError, ForeignRowError, Row, column, first_column, json_column, text_column
from progrpo.verify import AssertTests, CallTests, StdinTests
from progrpo.verify.code.programs import gold_of

STARTER = "\n\nStart from this code:\n```python\n{starter}\n```"
MBPP_TESTS = "\n\nYour code should pass these tests:\n{tests}"
FUNCTION_TESTS = ("functional", "function_call")
"""The names that LiveCodeBench and PrimeIntellect's SYNTHETIC-1 give to a test of a function."""
LEETCODE_IMPORTS = """\
from typing import *
from collections import *
from itertools import *
from functools import *
from heapq import *
from bisect import *
from math import *
from operator import *
from string import *
import collections, itertools, functools, heapq, bisect, math, re, string, random
"""
"""LeetCode's own judge imports these: the starter code of a function uses ``List[int]`` without an import."""


def _listed_gold(tests: Any, function: str | None) -> str:
    """Tests as LiveCodeBench and DeepCoder list them: ``[{"input", "output", "testtype", "metadata"}, ...]``."""
    try:
        functions = {test.get("fn_name") or (test.get("metadata") or {}).get("func_name") for test in tests}
        functional = {test.get("testtype", test.get("type", "stdin")) in FUNCTION_TESTS for test in tests}
        pairs = [(test["input"], test["output"]) for test in tests]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRowError(f"a test has no input and output: {error!r}") from None
    if len(functional) > 1:
        raise BadRowError("has tests of standard input and of a function mixed")
    name = function or (functions.pop() if len(functions) == 1 else None)
    return _gold(pairs, name if functional == {True} else None)


def _gold(pairs: Sequence[tuple[Any, Any]], function: str | None = None) -> str:
    """The gold of inputs and outputs: those of a function's calls if it has a name, else those of a program.

    LiveCodeBench writes the arguments as one JSON value per line; other datasets write a list of arguments. Most of
    these other datasets put each output into a list, as APPS did.
    """
    if not pairs:
        raise BadRowError("has no tests")
    if not function:
        return gold_of(StdinTests(tuple((_text(stdin), _text(output)) for stdin, output in pairs)))
    if all(isinstance(output, list) and len(output) == 1 for _, output in pairs):
        pairs = [(arguments, output[0]) for arguments, output in pairs]
    try:
        cases = tuple(_call(*pair) for pair in pairs)
    except ValueError as error:
        raise BadRowError(f"a test of {function!r} is not JSON: {error}") from None
    if not all(isinstance(arguments, list) for arguments, _ in cases):
        raise BadRowError(f"a test of {function!r} has no list of arguments")
    return gold_of(CallTests(function, cases), prefix=LEETCODE_IMPORTS)


def _text(value: Any) -> str:
    """An input or output; TACO writes some of them as lists of lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise BadRowError(f"a test has the input or output {value!r}, where a text is needed")
    return value


def _call(arguments: Any, output: Any) -> tuple[Any, Any]:
    if not isinstance(arguments, str):
        return arguments, output
    values = [json.loads(line) for line in arguments.split("\n") if line.strip()]
    return values, json.loads(output) if isinstance(output, str) else output


def _with_starter(problem: str, row: Row) -> str:
    starter = row.get("starter_code")
    return problem + STARTER.replace("{starter}", starter) if isinstance(starter, str) and starter.strip() else problem


def _deepcoder(row: Row) -> Item:
    """DeepCoder-Preview: ``problem``, ``tests`` (a list, or TACO's inputs and outputs, or LeetCode's assert script)."""
    tests, problem = json_column(row, "tests"), text_column(row, "problem")
    if isinstance(tests, list):
        metadata = row.get("metadata")
        function = metadata.get("func_name") if isinstance(metadata, dict) else None
        return Item(_with_starter(problem, row), _listed_gold(tests, function))
    if isinstance(tests, dict) and "functional" in tests:
        script = text_column({"tests": tests}, "tests.functional")
        return Item(problem, gold_of(AssertTests(script, setup=LEETCODE_IMPORTS), prefix=LEETCODE_IMPORTS))
    inputs, outputs = (tests.get("inputs"), tests.get("outputs")) if isinstance(tests, dict) else (None, None)
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise BadRowError("column 'tests' is neither a list of tests, nor inputs and outputs, nor an assert script")
    if len(inputs) != len(outputs):
        raise BadRowError(f"has {len(inputs)} inputs and {len(outputs)} outputs")
    return Item(_with_starter(problem, row), _gold(list(zip(inputs, outputs, strict=True)), tests.get("fn_name")))


def _codeforces(row: Row) -> Item:
    """DeepCoder's Codeforces problems; the rating is looked up by a row's ``id``, e.g. ``1971A``, if it has one."""
    if not isinstance(json_column(row, "tests"), list):
        raise ForeignRowError("has no list of inputs and outputs in column 'tests', as Codeforces' rows have")
    return replace(_deepcoder(row), source_id=text_column(row, "id").replace("/", "") if "id" in row else None)


LIVECODEBENCH_FILES = tuple(f"test{number}.jsonl" for number in ("", 2, 3, 4, 5, 6))
"""Each release of LiveCodeBench adds one file: all six are release_v6, 1,055 problems; five are release_v5, 880."""
MOST_TEST_BYTES = 512 * 1024 * 1024


def _livecodebench(row: Row) -> Item:
    """LiveCodeBench: public tests, and private tests that are compressed and hold pickled text."""
    tests = [*json_column(row, "public_test_cases"), *_private_tests(text_column(row, "private_test_cases"))]
    metadata = json_column(row, "metadata") if row.get("metadata") else {}
    problem = _with_starter(text_column(row, "question_content"), row)
    problem_id = text_column(row, "question_id") if "question_id" in row else None
    return Item(problem, _listed_gold(tests, metadata.get("func_name")), problem_id=problem_id)


def _livecodebench_v5_window(row: Row) -> Item | None:
    """Contests from August 2024 to January 2025: the 279 problems that DeepCoder and its successors report."""
    return _livecodebench(row) if "2024-08-01" <= str(column(row, "contest_date"))[:10] <= "2025-01-31" else None


class _TextOnly(pickle.Unpickler):
    """Unpickles text and nothing else: a pickle that names a class or a function could run anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _private_tests(text: str) -> list[Any]:
    try:
        if not text.lstrip().startswith(("[", "{")):
            data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), MOST_TEST_BYTES)
            text = _TextOnly(io.BytesIO(data)).load()
        tests = json.loads(text)
    except (ValueError, TypeError, zlib.error, pickle.UnpicklingError, EOFError, IndexError, KeyError) as error:
        raise BadRowError(f"column 'private_test_cases' can't be read: {error}") from None
    if not isinstance(tests, list):
        raise BadRowError("column 'private_test_cases' holds no list of tests")
    return tests


def _code_contests(row: Row) -> Item:
    """DeepMind's CodeContests: ``description`` and three columns of tests, each with lists ``input`` and ``output``."""
    pairs: list[tuple[Any, Any]] = []
    for name in ("public_tests", "private_tests", "generated_tests"):
        tests = row.get(name) or {"input": [], "output": []}
        if not isinstance(tests, dict) or len(tests.get("input", ())) != len(tests.get("output", ())):
            raise BadRowError(f"column {name!r} must have as many inputs as outputs")
        pairs += zip(tests["input"], tests["output"], strict=True)
    return Item(text_column(row, "description"), _gold(pairs))


def _humaneval(row: Row) -> Item:
    """HumanEval: a function's head to be completed. Its helpers are run from the prompt, not from the response."""
    if has_evalplus_tests(row):
        raise ForeignRowError("has the tests of HumanEval+, which are more than HumanEval's")
    prompt, entry_point = text_column(row, "prompt"), text_column(row, "entry_point")
    script = f"{text_column(row, 'test')}\n\ncheck({entry_point})\n"
    tests = AssertTests(script, setup=prompt, entry_point=entry_point)
    return Item(prompt, gold_of(tests, prefix=prompt, completes=True))


def _mbpp(row: Row) -> Item:
    """MBPP, full or sanitized; its tests are part of the prompt, as in its paper."""
    if "test" in row or has_evalplus_tests(row):
        raise ForeignRowError("has the tests of MBPP+, which are more than MBPP's")
    asserts = column(row, "test_list")
    if not isinstance(asserts, list) or not asserts or not all(isinstance(test, str) for test in asserts):
        raise BadRowError(f"column 'test_list' is {asserts!r}, where a list of assert statements is needed")
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or [])
    code, script = row.get("code"), "\n".join(asserts)
    return Item(
        first_column(row, "text", "prompt") + MBPP_TESTS.replace("{tests}", script),
        gold_of(AssertTests(script, setup=setup, entry_point=function_under_test(code, script))),
        solution=_fenced(code) if isinstance(code, str) else None,
    )


def _humaneval_plus(row: Row) -> Item:
    """HumanEval+, from the hub or as EvalPlus' own JSONL: HumanEval's prompts, many more tests."""
    prompt, name = text_column(row, "prompt"), text_column(row, "entry_point")
    if not has_evalplus_tests(row):
        raise ForeignRowError("has HumanEval's own tests, which are fewer than HumanEval+'s")
    if f"def {name}(" not in prompt:
        raise ForeignRowError(f"has no head of {name!r} to be completed in column 'prompt', as HumanEval+'s have")
    tests = script_tests(row, name, prompt, f"check({name})\n") if "test" in row else input_tests(row, prompt)
    solution = _fenced(prompt + text_column(row, "canonical_solution"))
    return Item(prompt, gold_of(tests, prefix=prompt, completes=True), solution=solution)


def _mbpp_plus(row: Row) -> Item:
    """MBPP+, from the hub or as EvalPlus' own JSONL; the prompt is EvalPlus': a docstring with one assert."""
    if "test" not in row and "plus_input" not in row and "test_list" in row:
        raise ForeignRowError("has MBPP's own tests, which are fewer than MBPP+'s")
    prompt = text_column(row, "prompt")
    if f"def {row.get('entry_point')}(" in prompt:
        raise ForeignRowError("has the head of a function to be completed in column 'prompt', as HumanEval+'s have")
    if "test" not in row:
        solution = _fenced(text_column(row, "canonical_solution"))
        return Item(prompt.strip(), gold_of(input_tests(row)), solution=solution)
    code, first_assert = text_column(row, "code"), text_column(row, "test_list.0")
    setup = "\n".join(row.get("test_imports") or [])
    tests = script_tests(row, function_under_test(code, first_assert), setup=setup)
    return Item(f'"""\n{prompt}\n{first_assert}\n"""', gold_of(tests), solution=_fenced(code))


def _fenced(code: str) -> str:
    return f"```python\n{code.strip()}\n```"


def function_under_test(code: Any, script: str) -> str | None:
    """The function of the row's own solution that the tests call; in one row it has the name of a built-in."""
    defined = re.findall(r"^def\s+(\w+)", code, re.MULTILINE) if isinstance(code, str) else []
    return next((name for name in defined if re.search(rf"\b{name}\b", script)), None)


def _mbpp_test(row: Row) -> Item | None:
    """A test problem: of MBPP's 974, the first ten are for prompts, 11 to 510 for tests."""
    return _mbpp(row) if 11 <= column(row, "task_id") <= 510 else None


DEEPCODER, LIVECODEBENCH = "agentica-org/DeepCoder-Preview-Dataset", "livecodebench/code_generation_lite"


@dataclass(frozen=True)
class CodeTask(DatasetTask):
    """Programming problems, verified by :func:`progrpo.verify.run_code_tests`.

    The canonical form is :func:`progrpo.verify.code.programs.canonical_program` of the program.

    >>> from progrpo.tasks.rows import Data
    >>> task = CodeTask(Data(preset="small_functions", limit=4), Data(preset="small_functions", seed=1, limit=2))
    >>> "```python" in task.heldout_problems()[0]["prompt"][0]["content"]
    True
    """

    PRESETS: ClassVar[Mapping[str, Preset]] = {
        "deepcoder": Preset(_deepcoder, DEEPCODER, subset=("primeintellect", "taco", "lcbv5")),
        "codeforces": Preset(_codeforces, DEEPCODER, "test", subset="codeforces"),
        "livecodebench": Preset(_livecodebench, LIVECODEBENCH, files=LIVECODEBENCH_FILES),
        "livecodebench_v5_window": Preset(_livecodebench_v5_window, LIVECODEBENCH, files=LIVECODEBENCH_FILES[:5]),
        "code_contests": Preset(_code_contests, "deepmind/code_contests"),
        "humaneval": Preset(_humaneval, "openai/openai_humaneval", "test"),
        "humaneval_plus": Preset(_humaneval_plus, "evalplus/humanevalplus", "test"),
        "mbpp": Preset(_mbpp, "google-research-datasets/mbpp"),
        "mbpp_test": Preset(_mbpp_test, "google-research-datasets/mbpp", "test"),
        "mbpp_plus": Preset(_mbpp_plus, "evalplus/mbppplus", "test"),
        "small_functions": Preset(_mbpp, make=small_functions),
    }
    name: ClassVar[str] = "code"
    verifier: ClassVar[str] = "code"
    instruction: ClassVar[str] = "Write the program in Python, in one ```python code block."
