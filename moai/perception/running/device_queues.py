"""Work on several devices at once: a lane per device, and what stands in one lane is done one after another.

Knows: threads. The first lane is the caller's own thread, so work for one device starts no thread at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any


def in_lanes(jobs: Sequence[tuple[Hashable, Callable[[], Any]]]) -> list[Any]:
    """Run ``(lane, function)`` jobs and return the functions' results in order.

    Raises:
        BaseException: what the first failing job in order raised; a Ctrl-C does not wait for the other lanes.
    """
    futures: list[Future] = [Future() for _ in jobs]
    lanes: dict[Hashable, list[tuple[Future, Callable[[], Any]]]] = {}
    for future, (lane, function) in zip(futures, jobs, strict=True):
        lanes.setdefault(lane, []).append((future, function))
    first, *others = lanes.values() if lanes else [[]]
    for lane in others:
        threading.Thread(target=_drive, args=(lane, BaseException), name="moai-lane", daemon=True).start()
    _drive(first, Exception)
    return [future.result() for future in futures]


def _drive(lane: list[tuple[Future, Callable[[], Any]]], caught: type[BaseException]) -> None:
    for future, function in lane:
        try:
            future.set_result(function())
        except caught as error:  # it belongs to whoever asks for the result
            future.set_exception(error)
