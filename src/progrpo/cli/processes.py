"""Several processes, one voice: what a launcher's processes have to say alike, the first of them says."""

import time

from progrpo.common.environment import process_index

HEAD_START = 3.0
"""Seconds. The launcher ends the other processes as soon as one has ended."""


def let_first_process_speak() -> None:
    """Before the end of a process that fails: the first one has the same to say, as a rule, and says it first."""
    if process_index():
        time.sleep(HEAD_START)
