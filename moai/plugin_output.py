"""Mark the code of plugins, so that the ``moai`` command sends what it prints to stderr, and stdout holds results only.

Knows: threads. In Python nothing is redirected: only the command's own stdout asks ``of_plugin``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_mark = threading.local()


@contextmanager
def plugin_code() -> Iterator[None]:
    """Mark what runs inside, in this thread, as the code of a plugin."""
    before = of_plugin()
    _mark.inside = True
    try:
        yield
    finally:
        _mark.inside = before


def of_plugin() -> bool:
    """Return whether this thread runs the code of a plugin; threads beside the main one, such as an expert's, do."""
    return getattr(_mark, "inside", threading.current_thread() is not threading.main_thread())
