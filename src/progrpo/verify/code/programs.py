"""Programs in responses, and the gold of a code task: its tests as JSON."""

import builtins
import json
import keyword
import re
import tokenize
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

from progrpo.verify.code.sandbox import Limits
from progrpo.verify.code.tests import AssertTests, CallTests, CodeTests, StdinTests, run_code_tests_batch
from progrpo.verify.thinking import after_thinking
from progrpo.verify.verdict import Verdict

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_PYTHON = ("python", "python3", "py", "")
_STOP = re.compile(r"\n(?:class |def |#|if |print\(|@)")
"""A function's completion ends here, because models go on with other code (HumanEval's stops, and "@")."""
_KINDS = {StdinTests: "stdin", CallTests: "call", AssertTests: "assert"}


def gold_of(tests: CodeTests, *, prefix: str = "", completes: bool = False) -> str:
    """Tests as the gold of a code task.

    Args:
        tests: the program's tests.
        prefix: code that the program starts with, such as HumanEval's prompt.
        completes: the whole response continues the prefix; otherwise the response holds a code block.
    """
    return json.dumps({"kind": _KINDS[type(tests)], **vars(tests), "prefix": prefix, "completes": completes})


def read_gold(gold: str) -> tuple[CodeTests, str, bool]:
    """The tests, the prefix, and whether a response continues it.

    Raises:
        ValueError: the gold is not the JSON that :func:`gold_of` writes.
    """
    try:
        value = json.loads(gold)
        kind, prefix, completes = value["kind"], value.get("prefix", ""), value.get("completes", False)
        if kind == "stdin":
            cases = tuple((str(stdin), str(output)) for stdin, output in value["cases"])
            return StdinTests(cases), prefix, completes
        if kind == "call":
            calls = tuple((arguments, output) for arguments, output in value["cases"])
            return CallTests(value["function"], calls), prefix, completes
        if kind == "assert":
            setup, entry_point, count = value.get("setup", ""), value.get("entry_point"), int(value.get("cases", 1))
            return AssertTests(value["script"], setup, entry_point, count), prefix, completes
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the gold {gold[:80]!r} holds no tests: {error!r}") from None
    raise ValueError(f"the gold {gold[:80]!r} has the kind {kind!r}, where stdin, call or assert is needed")


def extract_program(response: str) -> str | None:
    """The last Python code block after the thinking part; None if there is none.

    >>> extract_program("Here:\\n```python\\nprint(1)\\n```\\nDone.")
    'print(1)\\n'
    """
    blocks = [code for language, code in _FENCE.findall(after_thinking(response) or "") if language.lower() in _PYTHON]
    return blocks[-1] if blocks else None


def verify_programs(golds: Sequence[str], responses: Sequence[str], *, limits: Limits | None = None) -> list[Verdict]:
    """Run the program of each response on the tests of its gold."""
    verdicts: dict[int, Verdict] = {}
    programs: dict[int, str] = {}
    tests: dict[int, CodeTests] = {}
    for i, (gold, response) in enumerate(zip(golds, responses, strict=True)):
        try:
            tests_of_gold, prefix, completes = read_gold(gold)
        except ValueError as error:
            verdicts[i] = Verdict("error", str(error))
            continue
        answer, program = after_thinking(response), extract_program(response)
        if program is not None:
            programs[i], tests[i] = f"{prefix}\n\n{program}" if prefix else program, tests_of_gold
        elif completes and answer is not None:
            programs[i], tests[i] = prefix + _STOP.split(answer, maxsplit=1)[0], tests_of_gold
        else:
            verdicts[i] = Verdict("incorrect", "the response has no Python code block")
    judged = run_code_tests_batch(list(programs.values()), list(tests.values()), limits)
    for i, verdict in zip(programs, judged, strict=True):
        verdicts[i] = replace(verdict, canonical=canonical_program(programs[i])) if verdict.correct else verdict
    return [verdicts[i] for i in range(len(golds))]


def canonical_program(program: str) -> str:
    """A program without comments and layout, with its own names numbered: renamed copies give the same text.

    >>> a = canonical_program("def f(x):\\n    # twice\\n    return x*2\\n")
    >>> b = canonical_program("def f( n ):\\n  return n * 2")
    >>> a == b
    True
    >>> a == canonical_program("def f(x):\\n    return x + x\\n")
    False
    """
    names: dict[str, str] = {}
    words: list[str] = []
    try:
        for kind, text, *_ in tokenize.generate_tokens(StringIO(program).readline):
            is_known = keyword.iskeyword(text) or hasattr(builtins, text)
            is_attribute = words[-1:] == ["."]  # of somebody else's type
            if kind in (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE):
                words.append(tokenize.tok_name[kind])
            elif kind == tokenize.NAME and not (is_known or is_attribute):
                words.append(names.setdefault(text, f"name{len(names)}"))
            elif kind not in (tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER):
                words.append(text)
    except (tokenize.TokenError, SyntaxError):
        return program.strip()  # the program ran, so this is a quirk of the tokenizer; layout then counts
    return " ".join(words)
