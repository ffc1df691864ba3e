r"""A worker's script (:mod:`progrpo.verify.workers.worker`) that compares answers with math-verify.

A task is ``{"pairs": [[gold, answer, needs_large_gold], ...], "relative": 1e-06}``, with golds and answers in LaTeX.
The answer is right if one pair is equal, up to the share ``relative`` for decimals. With null as answer, only the gold
is read. The reply is ``"equal"``, ``"different"``, ``"unreadable"`` (the answer can't be read), ``"too large"`` (for
the memory or the stack), or ``"bad gold"``. The parent handles deadlines and lost workers.
"""

import logging
import re
import sys
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, normalize_latex
from math_verify import verify
from math_verify.parser import parse_latex_cached
from sympy import QQ, ZZ, Abs, Add, Basic, Eq, Mul, Poly, Pow, simplify

# The parent compares units. math-verify would strike them off, and with them 5t, 5h and 5c.
_NORMALISATION = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")

# The parser would read E_1 as a power of e, I_1 and I_2 as the imaginary unit, 2(13) as the mixed number 15, and
# \gamma^2-1 as the square of the gamma function of -1.
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
    """The worker's reply to a task."""
    golds = [parse(gold) for gold, _, _ in task["pairs"]]
    if None in golds:
        return "bad gold"
    if task["pairs"][0][1] is None:
        return "equal"
    try:
        answers = [parse(answer) for _, answer, _ in task["pairs"]]
        if answers[0] is None:
            return "unreadable"
        for gold, answer, (_, _, needs_large_gold) in zip(golds, answers, task["pairs"], strict=True):
            is_open = answer is not None and (not needs_large_gold or is_large(gold))
            if is_open and is_equal(gold, answer, task["relative"]):
                return "equal"
        return "different"
    except (MemoryError, RecursionError):
        return "too large"
    except Exception:  # sympy raises exceptions of any kind; then the answer is not the gold
        return "different"


@lru_cache(maxsize=4096)
def parse(latex: str) -> Basic | sympy.MatrixBase | None:
    """The expression; None for anything else. math-verify's own parse() would also find numbers in prose."""
    for spelling, other in _UNREADABLE:
        latex = spelling.sub(other, latex)
    try:
        parsed = parse_latex_cached(normalize_latex(latex, config=_NORMALISATION))
    except (MemoryError, RecursionError):
        raise
    except Exception:  # the parser raises exceptions of any kind
        return None
    # A division by zero would be equal to any other.
    return parsed if isinstance(parsed, Basic | sympy.MatrixBase) and not parsed.has(sympy.zoo, sympy.nan) else None


def is_large(gold: Any) -> bool:
    """Whether a gold, or each number that it lists, is one or more."""
    numbers = gold.args if isinstance(gold, sympy.FiniteSet) else (gold,)
    return all(number.is_number and bool(Abs(number) >= 1) for number in numbers)


def is_equal(gold: Any, answer: Any, relative: float) -> bool:
    """The verdict of math-verify, after checks of its own: on equations, and on numbers that are close enough."""
    if isinstance(gold, Eq) and isinstance(answer, Eq):
        if (same := has_same_solutions(gold, answer)) is not None:
            return same
        ratio = simplify((answer.lhs - answer.rhs) / (gold.lhs - gold.rhs))
        if ratio.is_number and ratio.is_finite and not ratio.is_zero:  # 2x + 2y = 2 is x + y = 1
            return True
        if simplify(answer.lhs - answer.rhs) == 0:  # 5 = 5 says nothing
            return False
        if not sympy.solve(gold, gold.free_symbols):  # math-verify treats all equations that it cannot solve as equal
            return False
    elif isinstance(gold, Eq) and isinstance(gold.lhs, Add | Mul | Pow):
        return False  # math-verify would compare the answer with the right side alone: x + y = 1 is not 1
    if not is_close(gold, answer, relative):
        return False
    if (same := is_same_polynomial(gold, answer)) is not None:
        return same
    # Its timeouts use signals, which need the main thread and can be caught: the parent keeps the time instead.
    return verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=True)


def rational_polynomials(expressions: list[Any], symbols: set[Any]) -> list[Poly] | None:
    """The expressions as polynomials, if they all are and have rational coefficients."""
    if not symbols or not all(expression.is_polynomial(*symbols) for expression in expressions):
        return None
    polynomials = [Poly(expression, *symbols) for expression in expressions]
    return polynomials if all(polynomial.get_domain() in (ZZ, QQ) for polynomial in polynomials) else None


def is_same_polynomial(gold: Any, answer: Any) -> bool | None:
    """Whether two rational polynomials are equal, at a tenth of simplify's cost; None for anything else."""
    if not all(isinstance(side, Add | Mul | Pow) for side in (gold, answer)):
        return None
    polynomials = rational_polynomials([gold - answer], gold.free_symbols | answer.free_symbols)
    return None if polynomials is None else bool(polynomials[0].is_zero)


def has_same_solutions(gold: Eq, answer: Eq) -> bool | None:
    """Whether two rational polynomial equations are multiples of each other, up to the multiplicity of factors.

    None for other equations. For 5 = 5, the result is False.
    """
    differences = [equation.lhs - equation.rhs for equation in (gold, answer)]
    polynomials = rational_polynomials(differences, gold.free_symbols | answer.free_symbols)
    if polynomials is None:
        return None
    first, second = (polynomial.set_domain(QQ) for polynomial in polynomials)
    if first.is_ground or second.is_ground:
        return False
    return bool(first.sqf_part().monic() == second.sqf_part().monic())


def is_close(gold: Any, answer: Any, relative: float) -> bool:
    """Whether numbers are close. math-verify rounds to six decimals, so all tiny numbers would be equal to it."""
    if not (getattr(gold, "is_number", False) and getattr(answer, "is_number", False)):
        return True
    if gold.has(sympy.Float) or not answer.has(sympy.Float):
        try:
            first, second = (number.doit().evalf(30) for number in (gold, answer))
            return bool(Abs(first - second) <= relative * sympy.Max(Abs(first), Abs(second)))
        except (TypeError, ValueError, ArithmeticError):  # infinities, and objects that only claim to be numbers
            return True
    return bool(simplify(sympy.nsimplify(answer.doit(), rational=True) - gold.doit()) == 0)


# The first comparisons build the parser's tables and sympy's caches, which takes half a second. A worker does this
# before it says that it is ready, while its predecessor still works and no task's deadline has begun.
for _gold, _answer in [
    (r"\frac{1}{2}\pi", r"\frac{\sqrt{3}}{2}"), (r"\frac{3\pi}{7}", r"\frac{6}{14}\pi"), (r"3\sqrt{8}", r"6\sqrt{3}"),
    ("x^2+2x+1", "(x+1)^{2}"), ("(x+3)(x+5)", "x^2+8x+16"), ("x^2+3x+7", "8+3x+x^2"), ("2^{10}", "1024.5"),
    ("5^{3}+8", "134"), ("(1,2]", "[1,2)"), (r"\{1,2\}", "(1,2)"),
]:  # fmt: skip
    handle({"pairs": [[_gold, _answer, False]], "relative": 1e-6})
