"""Check loading, unloading and threads for long-running processes.

Knows: weak references. An object that ``load`` or ``perceive`` put on the expert, and that is still alive after
``unload`` and a garbage collection, is memory that is never freed. Objects without weak references (some C++ ones)
cannot be checked.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from PIL import Image

from moai.expert import Expert
from moai.testing.behaviour import call, require, same
from moai.types import Perception

T = TypeVar("T")
_CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_SHARED = (type, types.ModuleType, logging.Logger, *_CODE)  # not the expert's own memory
THREADS = 2
ROUNDS = 3
WAIT = 300.0  # seconds for all threads together


def check_unload(expert: Expert, work: Callable[[], T]) -> T:
    """Load ``expert`` on the CPU, call ``work``, unload it, and check that none of its new objects stays in memory."""
    before = {id(item) for _, item in _objects(expert)}
    expert.load("cpu")
    references: list[tuple[str, str, weakref.ref]] = []
    try:
        result = work()
    finally:
        references += [(n, type(i).__name__, weakref.ref(i)) for n, i in _objects(expert) if id(i) not in before]
        expert.unload()
    gc.collect()
    kept = [f"self.{name} ({kind})" for name, kind, alive in references if alive() is not None]
    require(not kept, f"unload() keeps {', '.join(kept)} in memory; set it to None, and empty caches that hold it")
    return result


def check_threads(
    expert: Expert, images: list[Image.Image], contexts: list[Perception], alone: list[Perception]
) -> None:
    """Check that a ``thread_safe`` expert gives equal perceptions in several threads at once; skip others."""
    if not expert.thread_safe or not images:
        return
    start, problems = threading.Barrier(THREADS), []

    def work(number: int) -> None:
        try:
            start.wait()
            for round_ in range(ROUNDS * len(images)):
                at = (number + round_) % len(images)  # the threads use different images at the same time
                found = call(expert, [images[at]], [contexts[at]])
                same([alone[at]], found, "thread_safe is True, but two threads at once give another perception")
        except BaseException as error:  # raised again below, in the calling thread
            problems.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # switch often, so that races happen
    try:
        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
    finally:
        sys.setswitchinterval(interval)
    require(
        not any(thread.is_alive() for thread in threads), "thread_safe is True, but two threads wait for each other"
    )
    if problems:
        raise problems[0]


def _objects(expert: Expert) -> Iterator[tuple[str, Any]]:
    """Yield the objects on the expert that can be checked: its attributes, and the items of lists, tuples and dicts."""
    for name, value in vars(expert).items():
        items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else (value,)
        for item in items:
            if not isinstance(item, _SHARED) and _has_weak_references(item) and item is not expert.options:
                yield name, item


def _has_weak_references(item: Any) -> bool:
    try:
        weakref.ref(item)
    except TypeError:
        return False
    return True
