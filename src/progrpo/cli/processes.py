"""The first process of a launch reports for all of them, as all have the same to report."""

import time

from progrpo.common.environment import process_index

HEAD_START = 3.0
"""Seconds that the first process has to report. The launcher ends all processes as soon as one has ended."""


def let_first_process_speak() -> None:
    """Wait before this process fails, unless it is the first one, which reports the failure."""
    if process_index():
        time.sleep(HEAD_START)
