"""One daemon thread that runs calls for one expert, so that a call can be given up when it takes too long.

Knows: threads and futures. An expert is loaded and called in the same thread for its whole life: engines keep state
per thread, and a new thread per batch would pay for new thread pools each time. A call that never gives the
interpreter lock back cannot be given up by any thread; such an engine belongs into a process of its own.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any


class TimedOut(Exception):
    """The call did not come back within ``limit`` seconds. Its own class: an expert may raise TimeoutError itself."""

    def __init__(self, limit: float) -> None:
        super().__init__(f"no answer within {limit:g} seconds")
        self.limit = limit


class Worker:
    """Runs one call at a time. Hold ``lock`` around calls that belong together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.RLock()
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable, *args: Any, limit: float | None) -> Any:
        """Return ``function(*args)``, run in the worker's thread; what it raises is raised here.

        Raises:
            TimedOut: the thread is abandoned; the next call starts a new one.
        """
        with self.lock:
            self._start()
            future: Future = Future()
            self._jobs.put((future, function, args))
            try:
                wait([future], timeout=limit)
            except BaseException:  # Ctrl-C: nobody waits for this call any more
                self.stop()
                raise
            if limit is not None and not future.done():
                self.stop()
                raise TimedOut(limit)
            return future.result()

    def stop(self) -> None:
        """End the thread after the call it is in, if any."""
        self._jobs.put(None)
        self._thread = None

    def _start(self) -> None:
        # is_alive is False in a forked child, which has this object but not the thread.
        if self._thread is None or not self._thread.is_alive():
            self._jobs = queue.SimpleQueue()
            self._thread = threading.Thread(target=_serve, args=(self._jobs,), name=self.name, daemon=True)
            self._thread.start()


def _serve(jobs: queue.SimpleQueue) -> None:
    while (job := jobs.get()) is not None:
        future, function, args = job
        try:
            future.set_result(function(*args))
        except BaseException as error:  # SystemExit too belongs to the caller, not to this thread
            future.set_exception(error)
        del job, future, function, args  # hold no images while waiting for the next call
