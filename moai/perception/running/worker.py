"""Run calls for one expert in a daemon thread, so that a call can be abandoned when it takes too long.

Knows: threads and futures. An expert is loaded and called in the same thread for its whole life: engines keep state
per thread, and a new thread per batch would start new thread pools each time. A call that never releases the
interpreter lock cannot be abandoned by any thread; such an engine needs a process of its own.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

_ASKED_EVERY = 0.05  # seconds


class TimedOut(Exception):
    """Report a call that did not return within ``limit`` seconds. An expert may raise TimeoutError itself."""

    def __init__(self, limit: float) -> None:
        super().__init__(f"no result within {limit:g} seconds")
        self.limit = limit


class Stopped(Exception):
    """Report a call that was stopped from another thread."""


class Worker:
    """Run one call at a time in a thread. Hold ``lock`` around calls that belong together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.RLock()
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(
        self, function: Callable, *args: Any, limit: float | None, stopped: Callable[[], bool] | None = None
    ) -> Any:
        """Return ``function(*args)``, run in the worker's thread; its exceptions are raised here.

        Args:
            function: runs in the worker's thread.
            args: of the function.
            limit: seconds; None waits for ever.
            stopped: asked several times a second whether the result is still needed; left out, it is.

        Raises:
            TimedOut, Stopped: the thread is abandoned; the next call starts a new one.
        """
        with self.lock:
            self._start()
            future: Future = Future()
            self._jobs.put((future, function, args))
            try:
                _wait(future, limit, stopped)
            except BaseException:  # Ctrl-C: the result is not needed any more
                self.stop()
                raise
            if not future.done():
                self.stop()
                raise TimedOut(limit) if stopped is None or not stopped() else Stopped
            return future.result()

    def stop(self) -> None:
        """End the thread after its current call, if any."""
        self._jobs.put(None)
        self._thread = None

    def _start(self) -> None:
        # is_alive is False in a forked child, which has this object but not the thread.
        if self._thread is None or not self._thread.is_alive():
            self._jobs = queue.SimpleQueue()
            self._thread = threading.Thread(target=_serve, args=(self._jobs,), name=self.name, daemon=True)
            self._thread.start()


def _wait(future: Future, limit: float | None, stopped: Callable[[], bool] | None) -> None:
    """Wait until a call is done, late, or not needed any more."""
    if stopped is None:
        wait([future], timeout=limit)
        return
    end = None if limit is None else time.monotonic() + limit
    while not future.done() and not stopped():
        rest = _ASKED_EVERY if end is None else min(_ASKED_EVERY, end - time.monotonic())
        if rest <= 0:
            return
        wait([future], timeout=rest)


def _serve(jobs: queue.SimpleQueue) -> None:
    while (job := jobs.get()) is not None:
        future, function, args = job
        try:
            future.set_result(function(*args))
        except BaseException as error:  # SystemExit too is raised in the caller, not in this thread
            future.set_exception(error)
        del job, future, function, args  # hold no images while waiting for the next call
