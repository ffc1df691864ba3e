"""What a verifier says about one answer."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["correct", "incorrect", "error"]
LONGEST_REASON = 400
"""Characters. A reason may quote the response."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer is right, and why not.

    Whatever a response causes (no answer, unreadable, too long) is ``incorrect``: a policy must not escape its zero by
    breaking the verifier. ``error`` is a failure of the verifier itself. Such a response has no reward (None, NaN) and
    is left out of its group.

    Attributes:
        reason: one sentence for people, short and valid UTF-8 whatever the response; empty for a correct answer.
        canonical: for a correct answer, a text that is equal for two answers if and only if they are the same solution.

    >>> Verdict("correct", canonical="3*4").reward
    1.0
    >>> Verdict("error", "the worker was lost").reward is None
    True
    """

    status: Status
    reason: str = ""
    canonical: str | None = None

    def __post_init__(self) -> None:
        reason = self.reason[:LONGEST_REASON].encode("utf-8", "backslashreplace").decode()
        object.__setattr__(self, "reason", reason)

    @property
    def correct(self) -> bool:
        return self.status == "correct"

    @property
    def reward(self) -> float | None:
        """1 for a correct answer, 0 for an incorrect one, None where the verifier failed."""
        return None if self.status == "error" else float(self.correct)


class VerifierFailedError(RuntimeError):
    """The verifier fails too often for its verdicts to be trusted."""
