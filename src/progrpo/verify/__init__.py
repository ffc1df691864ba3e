"""Verifiers: they read a model's response and say whether it is right. They never evaluate it in this process."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from progrpo.verify.verdict import Status, Verdict, VerifierFailedError

if TYPE_CHECKING:
    from progrpo.verify.code.sandbox import Isolation, Limits
    from progrpo.verify.code.tests import (
        AssertTests,
        CallTests,
        StdinTests,
        isolation_level,
        run_code_tests,
        run_code_tests_batch,
    )
    from progrpo.verify.extract import AnswerStyle, extract_answer
    from progrpo.verify.math.answer import GoldError, check_gold, verify_math, verify_math_batch, wrong_golds

__all__ = [
    "AnswerStyle",
    "AssertTests",
    "CallTests",
    "GoldError",
    "Isolation",
    "Limits",
    "Status",
    "StdinTests",
    "Verdict",
    "VerifierFailedError",
    "check_gold",
    "extract_answer",
    "isolation_level",
    "run_code_tests",
    "run_code_tests_batch",
    "verify_math",
    "verify_math_batch",
    "wrong_golds",
]


_MODULES = {
    **dict.fromkeys(("Isolation", "Limits"), "code.sandbox"),
    **dict.fromkeys(("AnswerStyle", "extract_answer"), "extract"),
    **dict.fromkeys(("GoldError", "check_gold", "verify_math", "verify_math_batch", "wrong_golds"), "math.answer"),
}
"""The module that defines a name of ``__all__``, if it is not ``code.tests``."""


def __getattr__(name: str) -> Any:
    """Load a verifier when one of its names is first used (PEP 562): a verdict alone needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"progrpo.verify.{_MODULES.get(name, 'code.tests')}"), name)
