import json

import pytest

from progrpo.verify import AssertTests, CallTests, StdinTests
from progrpo.verify.code.programs import canonical_program, extract_program, gold_of, read_gold, verify_programs

SUM = StdinTests((("1 2\n", "3\n"), ("5 5\n", "10\n")))


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\na\n```", "a\n"),
        ("```\na\n```", "a\n"),
        ("```py\na\n```\nor better\n```Python\nb\n```", "b\n"),
        ("```python\na\n```\nIt prints:\n```text\n7\n```", "a\n"),
        ("<think>```python\na\n```</think>```python\nb\n```", "b\n"),
        ("<think>```python\na\n```", None),
        ("```python\na", None),
        ("a", None),
        ("```python\n```", ""),
        ('```python\ns = "```"\nprint(s)\n```', 's = "```"\nprint(s)\n'),
        ("  ```python\n  a\n  ```", "  a\n"),
    ],
)
def test_the_program_is_the_last_python_block_after_the_thinking(response: str, program: str | None) -> None:
    assert extract_program(response) == program


@pytest.mark.parametrize(
    "tests",
    [
        SUM,
        CallTests("f", (([1, [2]], {"a": None}), ([], 0.5))),
        AssertTests("assert f(1) == 2", setup="import math", entry_point="f"),
    ],
)
def test_a_gold_gives_back_its_tests(tests: StdinTests | CallTests | AssertTests) -> None:
    gold = gold_of(tests, prefix="import os\n", completes=True)
    assert read_gold(gold) == (tests, "import os\n", True)
    assert json.loads(gold)["kind"] in ("stdin", "call", "assert")


def test_programs_are_run_on_the_tests_of_their_golds() -> None:
    double = gold_of(AssertTests("assert double(4) == 8\nassert double(-1) == -2"))
    add = "```python\na, b = map(int, input().split())\nprint(a + b)\n```"
    verdicts = verify_programs(
        [gold_of(SUM), double, gold_of(SUM), gold_of(SUM), "?"],
        [add, "```python\ndef double(x): return x + x\n```", add.replace("a + b", "a * b"), "just prose", add],
    )
    assert [v.status for v in verdicts] == ["correct", "correct", "incorrect", "incorrect", "error"]
    assert verdicts[3].reason == "the response has no Python code block"
    assert verdicts[0].canonical == canonical_program(extract_program(add) or "")


def test_a_response_may_complete_a_functions_head() -> None:
    prompt = 'def double(x):\n    """Twice x."""\n'
    gold = gold_of(AssertTests("assert double(4) == 8"), prefix=prompt, completes=True)
    right = [
        "    return 2 * x\n",
        "    return 2 * x\n\ndef main(:\n",
        "```python\ndef double(x):\n    return 2 * x\n```",
    ]
    wrong = ["    return x\n", "return 2 * x", "", "```python\ndef other(x):\n    return 2 * x\n```"]
    verdicts = verify_programs([gold] * 7, [*right, *wrong])
    assert [v.status for v in verdicts] == ["correct"] * 3 + ["incorrect"] * 4


def test_names_comments_and_layout_do_not_make_another_solution() -> None:
    first = "def f(n, m):\n    '''Sum.'''\n    total = n + m  # add\n\n    return total\n"
    same = "def f(a,b):\n  '''Sum.'''\n  c=a+b\n  return c"
    assert canonical_program(first) == canonical_program(same)
    for other in ("def f(a, b):\n  '''Sum.'''\n  c=b+a\n  return c", "def f(a, b):\n  return a+b", "lambda a, b: a+b"):
        assert canonical_program(other) != canonical_program(first)


def test_attributes_builtins_and_indentation_make_another_solution() -> None:
    assert canonical_program("x.sort()") != canonical_program("x.copy()")
    assert canonical_program("print(min(x))") != canonical_program("print(max(x))")
    assert canonical_program("if a:\n  b()\n  c()") != canonical_program("if a:\n  b()\nc()")


def test_an_unreadable_program_is_its_own_canonical_form() -> None:
    assert canonical_program("x = (1\n") == "x = (1"
    assert canonical_program("") == ""
