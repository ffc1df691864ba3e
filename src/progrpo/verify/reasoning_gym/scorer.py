"""Makes reasoning-gym's problems and scores answers to them, inside the sandbox and nowhere else.

Some of reasoning-gym's scorers evaluate the answer's text. The sandbox keeps this from doing harm, but an answer could
still give itself the full score (by ``setattr`` on the scorer, for example). So while a scorer runs, an audit hook
checks all code made from text before it runs, and stops it unless it is arithmetic: the code may use only numeric
built-ins, and no name that starts with an underscore.
"""

import builtins
import sys
from functools import cache
from types import CodeType
from typing import Any

NUMERIC_BUILTINS = frozenset({"abs", "bool", "complex", "divmod", "float", "int", "max", "min", "pow", "round", "sum"})
EVALUATING_NAMES = frozenset({"lambdify", "parse_expr", "preview", "sympify", "python", "S"})
"""sympy's functions that evaluate text or start programs; parse_expr offers all of sympy to the text it evaluates."""

_watching = False


class CodeInAnswerError(Exception):
    """The answer's text is a program, not an answer."""


def questions(payload: dict[str, Any]) -> list[str]:
    """The questions of a dataset (its name, ``config``, ``seed`` and ``size``), in order.

    They are made in the sandbox too, because some depend on the order of Python's sets, which is fixed only there.
    """
    entries = _dataset(payload)
    return [entries[index]["question"] for index in range(payload["size"])]


def _dataset(payload: dict[str, Any]) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(
        payload["dataset"], seed=payload["seed"], size=payload["size"], **payload["config"]
    )


def score(payload: dict[str, Any]) -> float:
    """The score, from 0 to 1, that a dataset's own scorer gives the ``answer`` to the problem at an ``index``.

    Raises:
        CodeInAnswerError: the answer was about to be run as a program.
    """
    global _watching  # noqa: PLW0603 - an audit hook can be neither removed nor given arguments
    dataset = _dataset(payload)
    entry = dataset[payload["index"]]
    _install_hook()
    _watching = True
    try:
        return float(dataset.score_answer(payload["answer"], entry))
    finally:
        _watching = False


@cache
def _install_hook() -> None:
    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if _watching and event == "exec" and arguments[0].co_filename.startswith("<"):
            refuse_programs(arguments[0])

    sys.addaudithook(audit)


def refuse_programs(code: CodeType) -> None:
    """Raise unless code made from text is arithmetic.

    >>> refuse_programs(compile("2 * (3 + x)", "<string>", "eval"))
    >>> refuse_programs(compile("__import__('os').system('id')", "<string>", "eval"))
    Traceback (most recent call last):
    progrpo.verify.reasoning_gym.scorer.CodeInAnswerError: the answer uses '__import__'
    """
    for name in (*code.co_names, *code.co_varnames):
        is_builtin = hasattr(builtins, name) and name not in NUMERIC_BUILTINS
        if is_builtin or name.startswith("_") or name in EVALUATING_NAMES:
            raise CodeInAnswerError(f"the answer uses {name!r}")
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            refuse_programs(constant)
