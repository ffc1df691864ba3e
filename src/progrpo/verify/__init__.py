"""Verifiers: they read what a model wrote and say whether it is right. They never evaluate it."""

from progrpo.verify.verdict import Status, Verdict

__all__ = ["Status", "Verdict"]
