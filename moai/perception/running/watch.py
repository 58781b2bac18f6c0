"""Follow one call of a perceiver expert by expert, and stop experts of it from another thread.

Knows: names of experts and threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

STOPPED = "stopped before it gave a result"


class Watch:
    """Follow one call of ``Perceiver.perceive``, and stop some or all of its experts.

    An expert that is stopped becomes a ``Failure``; the findings of the others stay. Python cannot end a thread: the
    engine of an expert that is busy goes on until its call returns, and the next call loads a copy of the expert.
    """

    def __init__(
        self, started: Callable[[str], None] | None = None, finished: Callable[[str], None] | None = None
    ) -> None:
        """Build a watch for one call.

        Args:
            started, finished: called with the name of an expert before and after it runs on a batch, in any thread.
        """
        self._started, self._finished = started, finished
        self._all = threading.Event()
        self._names: set[str] = set()

    def stop(self, expert: str | None = None) -> None:
        """Stop one expert, or all of them, from any thread."""
        if expert is None:
            self._all.set()
        else:
            self._names.add(expert)

    def stopped(self, expert: str) -> bool:
        """Tell whether an expert is stopped."""
        return self._all.is_set() or expert in self._names

    def begin(self, expert: str) -> None:
        """Report that an expert begins."""
        if self._started is not None:
            self._started(expert)

    def end(self, expert: str) -> None:
        """Report that an expert has ended, with or without a result."""
        if self._finished is not None:
            self._finished(expert)
