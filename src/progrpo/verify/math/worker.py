r"""A worker's script (:mod:`progrpo.verify.workers.worker`) that compares answers with math-verify.

A task is ``{"golds": [...], "answer": ...}`` in LaTeX; the answer may equal any of the golds, or, where the task has an
answer ``"without_percent"``, that may equal a gold that is no share. The reply is ``"equal"``,
``"different"``, ``"unreadable"`` (the answer), ``"too large"`` (it ran out of memory or of depth), or ``"bad gold"``.
Without an answer, only the golds are read. Deadlines and lost workers are the parent's business.
"""

import logging
import re
import sys
from functools import lru_cache
from typing import Any

from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, normalize_latex
from math_verify import verify
from math_verify.parser import parse_latex_cached
from sympy import (
    QQ,
    ZZ,
    Abs,
    Add,
    Basic,
    Eq,
    FiniteSet,
    Float,
    MatrixBase,
    Max,
    Mul,
    Poly,
    Pow,
    nan,
    nsimplify,
    simplify,
    solve,
    zoo,
)

RELATIVE = 1e-6
"""A gold that is a decimal is met by what differs from it by no more than this share."""
# Units are compared before: theirs would be struck off, and 5t, 5h and 5c with them.
_NORMALISATION = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")

# What the parser stumbles over or mistakes: E_1 is no power of e to it, I_1 and I_2 are both the imaginary unit,
# 2(13) is a mixed number, 15, and \gamma^2-1 the square of the gamma function of -1.
_UNREADABLE = [
    (re.compile(spelling), other)
    for spelling, other in [
        (r"_\{\\odot\}", "_{s}"), (r"_([0-9A-Za-z])", r"_{\1}"), (r"(?<![\\A-Za-z])E_\{", r"\\Xi_{"),
        (r"(?<![\\A-Za-z])e_\{", r"\\eta_{"), (r"(?<![\\A-Za-z])I_\{", r"\\Psi_{"),
        (r"\\gamma(?![A-Za-z])", r"\\varsigma "), (r"(?<![\w^.])(\d+(?:\.\d+)?)\(", r"\1\\cdot ("),
    ]
]  # fmt: skip

logging.disable(logging.CRITICAL)
sys.setrecursionlimit(2000)


def handle(task: dict[str, Any]) -> str:
    """What the worker replies."""
    golds = [parse(gold) for gold in task["golds"]]
    if None in golds:
        return "bad gold"
    if "answer" not in task:
        return "equal"
    try:
        answer = parse(task["answer"])
        if answer is None:
            return "unreadable"
        if any(is_equal(gold, answer) for gold in golds):
            return "equal"
        bare = parse(task["without_percent"]) if "without_percent" in task else None
        is_right = bare is not None and any(is_no_share(gold) and is_equal(gold, bare) for gold in golds)
        return "equal" if is_right else "different"
    except (MemoryError, RecursionError):
        return "too large"
    except Exception:  # sympy raises whatever it comes across: the answer is then not what the gold is
        return "different"


@lru_cache(maxsize=4096)
def parse(latex: str) -> Basic | MatrixBase | None:
    """The expression, or None for what is not one. math-verify's own parse() would also find numbers in prose."""
    for spelling, other in _UNREADABLE:
        latex = spelling.sub(other, latex)
    try:
        parsed = parse_latex_cached(normalize_latex(latex, config=_NORMALISATION))
    except (MemoryError, RecursionError):
        raise
    except Exception:  # its parser raises whatever it comes across
        return None
    # What is divided by nought is equal to all that is.
    return parsed if isinstance(parsed, Basic | MatrixBase) and not parsed.has(zoo, nan) else None


def is_equal(gold: Basic | MatrixBase, answer: Basic | MatrixBase) -> bool:
    """What math-verify says, where numbers are close enough and it isn't plain to see."""
    if isinstance(gold, Eq) and isinstance(answer, Eq):
        same = has_same_solutions(gold, answer)
        if same is not None:
            return same
        if is_same_equation(gold, answer):
            return True
        if simplify(answer.lhs - answer.rhs) == 0:  # 5 = 5 says nothing
            return False
        if not solve(gold, gold.free_symbols):  # it would take all equations that it can't solve for equal
            return False
    elif isinstance(gold, Eq) and isinstance(gold.lhs, Add | Mul | Pow):
        return False  # x + y = 1 is no 1, which is all that it would be compared with
    if not is_close(gold, answer):
        return False
    same = is_same_polynomial(gold, answer)
    if same is not None:
        return same
    # Its timeouts are signals, which only work in a main thread and can be caught: the parent keeps the time.
    return verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=True)


def is_no_share(gold: Any) -> bool:
    """Whether a gold, or each number that it lists, is one or more: what is below one is a share, and no per cent."""
    numbers = gold.args if isinstance(gold, FiniteSet) else (gold,)
    return all(number.is_number and bool(Abs(number) >= 1) for number in numbers)


def is_same_polynomial(gold: Any, answer: Any) -> bool | None:
    """Whether two polynomials with rational coefficients are equal, a tenth of simplify's work; None for all others."""
    symbols = getattr(gold, "free_symbols", set()) | getattr(answer, "free_symbols", set())
    are_sums = all(isinstance(side, Add | Mul | Pow) for side in (gold, answer))
    if not (are_sums and symbols and all(side.is_polynomial(*symbols) for side in (gold, answer))):
        return None
    difference = Poly(gold - answer, *symbols)
    return bool(difference.is_zero) if difference.get_domain() in (ZZ, QQ) else None


def has_same_solutions(gold: Eq, answer: Eq) -> bool | None:
    """Whether two polynomial equations with rational coefficients hold for the same numbers; None for all others.

    They do if the polynomials are multiples of each other, the multiplicity of factors apart. 5 = 5 is no equation.
    """
    differences = [equation.lhs - equation.rhs for equation in (gold, answer)]
    symbols = gold.free_symbols | answer.free_symbols
    if not symbols or not all(difference.is_polynomial(*symbols) for difference in differences):
        return None
    first, second = (Poly(difference, *symbols) for difference in differences)
    if first.get_domain() not in (ZZ, QQ) or second.get_domain() not in (ZZ, QQ):
        return None
    if first.is_ground or second.is_ground:
        return False
    return bool(first.set_domain(QQ).sqf_part().monic() == second.set_domain(QQ).sqf_part().monic())


def is_same_equation(gold: Eq, answer: Eq) -> bool:
    """Whether one is a multiple of the other: 2x + 2y = 2 is x + y = 1."""
    ratio = simplify((answer.lhs - answer.rhs) / (gold.lhs - gold.rhs))
    return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero)


def is_close(gold: Any, answer: Any) -> bool:
    """math-verify rounds to six decimals, which makes all tiny numbers equal, and a decimal equal to a root."""
    if not (getattr(gold, "is_number", False) and getattr(answer, "is_number", False)):
        return True
    if gold.has(Float) or not answer.has(Float):
        try:
            first, second = (number.doit().evalf(30) for number in (gold, answer))
            return bool(Abs(first - second) <= RELATIVE * Max(Abs(first), Abs(second)))
        except (TypeError, ValueError, ArithmeticError):  # infinities, and what is a number by name only
            return True
    return bool(simplify(nsimplify(answer.doit(), rational=True) - gold.doit()) == 0)


# The first comparisons build the parser's tables and sympy's caches, which takes half a second. A worker that is not
# ready yet has that time: its predecessor is still at work, and a task's deadline has not begun.
for _gold, _answer in [
    (r"\frac{1}{2}\pi", r"\frac{\sqrt{3}}{2}"), (r"\frac{3\pi}{7}", r"\frac{6}{14}\pi"), (r"3\sqrt{8}", r"6\sqrt{3}"),
    ("x^2+2x+1", "(x+1)^{2}"), ("(x+3)(x+5)", "x^2+8x+16"), ("x^2+3x+7", "8+3x+x^2"), ("2^{10}", "1024.5"),
    ("5^{3}+8", "134"), ("(1,2]", "[1,2)"), (r"\{1,2\}", "(1,2)"),
]:  # fmt: skip
    handle({"golds": [_gold], "answer": _answer})
