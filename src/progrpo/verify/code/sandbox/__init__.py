"""Running programs that nobody vouches for, shut in by the kernel. ``docs/verify-code.md`` says what that blocks."""

from progrpo.verify.code.sandbox.client import (
    MIN_ISOLATION,
    Isolation,
    Limits,
    NotIsolatedError,
    Process,
    ProgramFailedError,
    Sandbox,
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
