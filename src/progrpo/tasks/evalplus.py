"""HumanEval+ and MBPP+: the tests of EvalPlus (arXiv 2305.01210), from either of its two formats.

On the hub, a row has one test script that contains the expected outputs. EvalPlus' own JSONL has only inputs; the
expected outputs are what the row's reference solution returns. The reference runs where the asserts run, in the
tester's sandbox, on a copy of each input. So the program under test sees neither the reference nor its outputs, and
nothing has to be stored.
"""

import ast
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from progrpo.tasks.rows import BadRowError, Row, json_column, text_column
from progrpo.verify import AssertTests

NUMPY = '''
import sys, types


def _allclose(out, exp, rtol=1e-05, atol=1e-08):
    """numpy.allclose of plain numbers and lists of them; a number is not close to a list."""
    if isinstance(exp, (list, tuple)):
        same_length = isinstance(out, (list, tuple)) and len(out) == len(exp)
        return same_length and all(_allclose(o, e, rtol, atol) for o, e in zip(out, exp))
    if not isinstance(out, (int, float, complex)) or not isinstance(exp, (int, float, complex)):
        return False
    return out == exp or (abs(exp) != float("inf") and abs(out - exp) <= atol + rtol * abs(exp))


numpy = types.ModuleType("numpy")
numpy.allclose, numpy.ndarray = _allclose, type("ndarray", (), {})
sys.modules["numpy"] = numpy
'''
"""The hub's scripts import numpy for ``allclose``, and the sandbox has only the standard library."""

REFERENCE = """
import copy

inf, nan = float("inf"), float("nan")
_names = {{}}
exec({code!r}, _names)
_reference = _names[{name!r}]


def _same(out, exp, atol={atol}):
    floats = isinstance(exp, float) or (isinstance(exp, (list, tuple)) and all(isinstance(e, float) for e in exp))
    atol = 1e-6 if atol == 0 and floats else atol
    return out == exp or (atol != 0 and _allclose(out, exp, rtol=1e-07, atol=atol))


def _same_set(out, exp):
    return set(out) == set(exp)


def _same_truth(out, exp):
    return bool(out) == bool(exp)


_inputs = {inputs!r}
_expected = [_reference(*copy.deepcopy(_arguments)) for _arguments in _inputs]
"""
COMPARISON = """\
for _arguments, _output in zip(_inputs, _expected):
    assert {comparison}({name}(*_arguments), _output)
"""
ROOT_COMPARISON = """\
for _arguments in _inputs:
    assert abs(poly(_arguments[0], find_zero(*_arguments))) <= 1e-4
"""
"""HumanEval/32, ``find_zero``, asks for any root of a polynomial."""
# On the hub, no answer passes the comparison (the arguments are swapped, and a number is unpacked). This corrects it.
ROOT_ON_THE_HUB = ("_poly(*candidate(*inp), inp) <=", "abs(_poly(*inp, candidate(*inp))) <=")
# MBPP+'s functions whose results have no order: EvalPlus compares them as sets.
AS_SETS = ("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
           "intersection_array", "find_dissimilar", "Diff")  # fmt: skip
# MBPP+'s functions that may return a match or None for True and False.
AS_TRUTH = ("check_str", "text_match_three", "text_starta_endb")
# EvalPlus' scripts have lists of inputs and results; HumanEval's own scripts assert one call after the other.
_SCRIPT = re.compile(r"^\s*inputs\s*=", re.MULTILINE)


def has_evalplus_tests(row: Row) -> bool:
    """Whether a row has EvalPlus' tests, in either format. HumanEval's rows have the same columns with fewer tests."""
    return "plus_input" in row or _SCRIPT.search(str(row.get("test", ""))) is not None


def script_tests(row: Row, entry_point: str | None, setup: str = "", call: str = "") -> AssertTests:
    """The tests of a row of the hub: the script in its column ``test``, and a call of the function it defines."""
    test = text_column(row, "test").replace(*ROOT_ON_THE_HUB)
    return AssertTests(f"{test}\n{call}", setup=f"{setup}\n{NUMPY}", entry_point=entry_point)


def input_tests(row: Row, setup: str = "") -> AssertTests:
    """The tests of a row of EvalPlus' JSONL: its inputs, against the reference solution, which continues ``setup``.

    MBPP+ also has the column ``assertion``, whose calls show which inputs are tuples, sets or complex numbers; JSON
    can't show this.
    """
    name, code = text_column(row, "entry_point"), setup + text_column(row, "canonical_solution")
    inputs = [*_inputs(row, "base_input"), *_inputs(row, "plus_input")]
    if not inputs:
        raise BadRowError("has no inputs")
    examples = _called_with(str(row.get("assertion") or ""), name)
    by_place = [[call[i] for call in examples if i < len(call)] for i in range(max(map(len, inputs)))]
    typed = [list(map(as_in, arguments, by_place)) for arguments in inputs]
    comparison = "_same_set" if name in AS_SETS else "_same_truth" if name in AS_TRUTH else "_same"
    script = ROOT_COMPARISON if name == "find_zero" else COMPARISON.format(comparison=comparison, name=name)
    reference = REFERENCE.format(code=code, name=name, atol=row.get("atol") or 0, inputs=typed)
    return AssertTests(script, setup=f"{setup}\n{NUMPY}{reference}", entry_point=name, cases=len(inputs))


def _inputs(row: Row, path: str) -> list[list[Any]]:
    value = json_column(row, path)
    if value == {}:  # EvalPlus writes this if there are none
        return []
    if not isinstance(value, list) or not all(isinstance(arguments, list) for arguments in value):
        raise BadRowError(f"column {path!r} is {value!r:.80}, where a list of lists of arguments is needed")
    return value


def _called_with(script: str, name: str) -> list[list[Any]]:
    """The arguments of a script's calls of a function, if they are literals."""
    try:
        nodes = list(ast.walk(ast.parse(script)))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BadRowError(f"column 'assertion' is not Python: {error}") from None
    calls = []
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            with suppress(ValueError):  # the argument is an expression; another call has a literal
                calls.append([ast.literal_eval(argument) for argument in node.args])
    return calls


def as_in(value: Any, examples: Sequence[Any]) -> Any:
    """An argument from JSON, converted to the types of the examples.

    >>> as_in([[1, 2], [], [3]], [[(3, 4)]])
    [(1, 2), (), (3,)]
    >>> as_in("(2+1j)", [1]), as_in("0", [1, 2.5]), as_in("0", ["1"])
    ((2+1j), 0.0, '0')
    """
    if isinstance(value, str) and examples and all(isinstance(example, int | float | complex) for example in examples):
        with suppress(ValueError):  # otherwise it is a text that the function has to handle
            number = complex(value)
            return number if "j" in value else number.real
    return _like(value, examples)


def _like(value: Any, examples: Sequence[Any], within: type = list) -> Any:
    """``within`` is the type for a list that no example shows: the type that nests in itself, as in ``(1, (2,))``."""
    if isinstance(value, list):
        seen = [example for example in examples if isinstance(example, list | tuple | set)]
        parts = [part for example in seen for part in example]
        kind = type(seen[0]) if seen else within
        deeper = kind if any(isinstance(part, kind) for part in parts) else within
        return kind([_like(part, parts, deeper) for part in value])
    if isinstance(value, dict):
        parts = [part for example in examples if isinstance(example, dict) for part in example.values()]
        return {key: _like(part, parts) for key, part in value.items()}
    return value
