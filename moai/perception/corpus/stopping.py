"""Turn SIGTERM into an exception, so that a run ends as it does at a Ctrl-C.

Knows: signals.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(KeyboardInterrupt):
    """Report a SIGTERM; a command that ends by it exits with code 143."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise ``Terminated`` in the main thread when SIGTERM comes; in other threads nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
