"""Runs untrusted programs in isolation, by means of the kernel. ``docs/verify-code.md`` says what this blocks."""

from progrpo.verify.code.sandbox.client import Sandbox
from progrpo.verify.code.sandbox.process import (
    MIN_ISOLATION,
    Isolation,
    Limits,
    NotIsolatedError,
    Process,
    ProgramFailedError,
    SandboxError,
)

__all__ = [
    "MIN_ISOLATION",
    "Isolation",
    "Limits",
    "NotIsolatedError",
    "Process",
    "ProgramFailedError",
    "Sandbox",
    "SandboxError",
]
