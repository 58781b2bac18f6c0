"""Loading, unloading and threads: what a long-running process relies on.

Knows: weak references. An object that ``load`` or ``perceive`` put on the expert, and that is still alive after
``unload`` and a garbage collection, is memory that never comes back. Objects without weak references (some C++ ones)
cannot be watched.
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


def check_unload(expert: Expert, look: Callable[[], T]) -> T:
    """Load ``expert`` on the CPU, call ``look``, unload it; nothing that was put on it may stay in memory."""
    before = {id(item) for _, item in _held(expert)}
    expert.load("cpu")
    watched: list[tuple[str, str, weakref.ref]] = []
    try:
        answer = look()
    finally:
        watched += [(n, type(i).__name__, weakref.ref(i)) for n, i in _held(expert) if id(i) not in before]
        expert.unload()
    gc.collect()
    kept = [f"self.{name} ({kind})" for name, kind, alive in watched if alive() is not None]
    require(not kept, f"unload() keeps {', '.join(kept)} in memory; set it to None, and empty caches that hold it")
    return answer


def check_threads(
    expert: Expert, images: list[Image.Image], contexts: list[Perception], seen: list[Perception]
) -> None:
    """An expert that says ``thread_safe`` sees in several threads at once what it saw alone; others are not asked."""
    if not expert.thread_safe or not images:
        return
    start, problems = threading.Barrier(THREADS), []

    def work(number: int) -> None:
        try:
            start.wait()
            for round_ in range(ROUNDS * len(images)):
                at = (number + round_) % len(images)  # the threads look at different images at the same time
                found = call(expert, [images[at]], [contexts[at]])
                same([seen[at]], found, "thread_safe is True, but in two threads at once an image is seen differently")
        except BaseException as error:  # raised again below, where somebody sees it
            problems.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # switch often: a race that needs bad luck gets it
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


def _held(expert: Expert) -> Iterator[tuple[str, Any]]:
    """The watchable objects on the expert: its attributes, and what lies in lists, tuples and dicts among them."""
    for name, value in vars(expert).items():
        items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else (value,)
        for item in items:
            if not isinstance(item, _SHARED) and _watchable(item) and item is not expert.options:
                yield name, item


def _watchable(item: Any) -> bool:
    try:
        weakref.ref(item)
    except TypeError:
        return False
    return True
