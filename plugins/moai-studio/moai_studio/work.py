"""Run one request's work in a thread, and send what it reports to the page, line by line.

Knows: threads and Starlette's streams. A page that leaves, or asks for it, stops the work.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.responses import StreamingResponse

from moai.errors import MoaiError
from moai.plugin_api import Watch

log = logging.getLogger("moai")
_ASKED_EVERY = 0.1  # seconds
_INTERNAL = "something went wrong in the studio itself; its log says what"
Event = dict[str, Any]


class Stopped(Exception):
    """Ends a work that nobody waits for any more."""


class Work:
    """Report events of one work, and stop it or single experts of it."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self.id = secrets.token_urlsafe(8)
        self._send, self._stopped, self._watch = send, threading.Event(), Watch()

    def emit(self, event: str, **fields: Any) -> None:
        """Send an event to the page; a stopped work ends here."""
        self.check()
        self.report(event, **fields)

    def report(self, event: str, **fields: Any) -> None:
        """Send an event from an expert's thread, where nothing may be raised; a stopped work sends nothing."""
        if not self.stopped:
            self._send({"event": event, **fields})

    @property
    def stopped(self) -> bool:
        """Whether nobody waits for the work any more."""
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise ``Stopped`` where the work is not wanted any more."""
        if self.stopped:
            raise Stopped

    def stop(self) -> None:
        """Stop the work from any thread."""
        self._stopped.set()
        self._watch.stop()

    def skip(self, expert: str) -> None:
        """Go on without the result of one expert, from any thread."""
        self._watch.stop(expert)

    def watch(self, started: Callable[[str], None], finished: Callable[[str], None]) -> Watch:
        """Make the watch of a perceive call, by which the work and its experts are stopped."""
        self._watch = Watch(started, finished)
        if self._stopped.is_set():
            self._watch.stop()
        return self._watch

    @contextmanager
    def holding(self, lock: threading.Lock) -> Iterator[None]:
        """Hold a lock, and stop waiting for it where the work is stopped."""
        while not lock.acquire(timeout=_ASKED_EVERY):
            self.check()
        try:
            yield
        finally:
            lock.release()


def stream(job: Callable[[Work], None], begin: Callable[[Work], None], end: Callable[[Work], None]) -> Any:
    """Run ``job`` in a thread and answer with its events, a JSON object per line.

    Args:
        job: may raise; a ``MoaiError`` is an event ``error`` with its sentence.
        begin: called with the work before it starts; what it raises is raised here.
        end: called when the work has ended, in its thread.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue()

    def put(event: Event | None) -> None:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, event)
        except RuntimeError:  # the server has ended, and nobody reads
            log.debug("an event after the end of the server")

    work = Work(put)
    begin(work)

    def run() -> None:
        try:
            job(work)
        except Stopped:
            put({"event": "stopped"})
        except MoaiError as error:
            put({"event": "error", "message": str(error)})
        except Exception:
            log.exception("a request to the studio failed")
            put({"event": "error", "message": _INTERNAL})
        finally:
            end(work)
            put(None)

    threading.Thread(target=run, name=f"moai-studio-{work.id}", daemon=True).start()
    return StreamingResponse(_lines(work, queue), media_type="application/x-ndjson")


async def _lines(work: Work, queue: asyncio.Queue) -> AsyncIterator[bytes]:
    try:
        yield _line({"event": "work", "id": work.id})
        while (event := await queue.get()) is not None:
            yield _line(event)
    finally:  # also where the page has left
        work.stop()


def _line(event: Event) -> bytes:
    return json.dumps(event).encode() + b"\n"
