"""SIGINT and SIGTERM, which ask a run to stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call a handler while the block lasts. Python lets only its main thread do so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
