"""SIGINT and SIGTERM, which ask a run to stop, and the signal that ends a process with its parent."""

import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Call a handler on SIGINT and SIGTERM within the block. Outside the main thread this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """On Linux, have this process get SIGTERM when its parent ends, however that happens; elsewhere do nothing.

    It is one system call, so that it can be ``preexec_fn`` of a new process.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
