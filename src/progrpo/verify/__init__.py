"""Verifiers: they read what a model wrote and say whether it is right. They never evaluate it in this process."""

from progrpo.verify.code.tests import (
    AssertTests,
    CallTests,
    Isolation,
    Limits,
    StdinTests,
    isolation_level,
    run_code_tests,
    run_code_tests_batch,
)
from progrpo.verify.extract import AnswerStyle, extract_answer
from progrpo.verify.math.answer import GoldError, check_gold, verify_math, verify_math_batch, wrong_golds
from progrpo.verify.verdict import Status, Verdict, VerifierFailedError

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
