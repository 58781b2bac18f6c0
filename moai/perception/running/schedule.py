"""Schedule experts: their order, dependency levels, memory groups and device queues.

Knows: roles, sizes in bytes, devices and threads. An expert that requires a role runs after every expert of that role.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from moai.errors import ExpertError
from moai.expert import Expert


def in_order(experts: Sequence[Expert]) -> tuple[Expert, ...]:
    """Sort experts by ``requires``; those that do not depend on each other keep their places.

    Raises:
        ExpertError: an expert requires its own role, or several require each other in a circle.
    """
    for expert in experts:
        if expert.role in expert.requires:
            raise ExpertError(f"expert '{expert.name}' requires its own role '{expert.role}'; remove it from requires")
    done: list[Expert] = []
    waiting = list(experts)
    while waiting:
        roles = {expert.role for expert in waiting}
        ready = next((expert for expert in waiting if not roles.intersection(expert.requires)), None)
        if ready is None:
            names = ", ".join(f"'{e.name}' ({e.role}, requires {' and '.join(e.requires)})" for e in waiting)
            raise ExpertError(f"these experts wait for each other: {names}; leave one of them out")
        waiting.remove(ready)
        done.append(ready)
    return tuple(done)


def dependency_levels(experts: Sequence[Expert]) -> list[list[Expert]]:
    """Split sorted experts into levels: within one, no expert requires a role of another, so they may run together."""
    levels: list[list[Expert]] = []
    last: dict[str, int] = {}  # role -> the last level with an expert of it
    for expert in experts:
        level = 1 + max((last.get(role, -1) for role in expert.requires), default=-1)
        last[expert.role] = max(level, last.get(expert.role, -1))
        levels.extend([] for _ in range(level + 1 - len(levels)))
        levels[level].append(expert)
    return levels


def memory_groups(experts: Sequence[Expert], sizes: Mapping[str, int | None], budget: int) -> list[list[Expert]]:
    """Split sorted experts into groups whose sizes add up to ``budget`` at most, to be loaded one group at a time.

    Args:
        experts: sorted by ``in_order``.
        sizes: bytes by expert name. An expert of unknown size (None) gets a group of its own.
        budget: bytes. An expert that exceeds it gets a group of its own, so 0 makes one group per expert.
    """
    groups: list[list[Expert]] = []
    left: int | None = None  # bytes left in the last group; None when no expert may join it
    for expert in experts:
        size = sizes.get(expert.name)
        if size is not None and left is not None and size <= left:
            groups[-1].append(expert)
            left -= size
        else:
            groups.append([expert])
            left = None if size is None else budget - size
    return groups


def run_device_queues(jobs: Sequence[tuple[Hashable, Callable[[], Any]]]) -> list[Any]:
    """Run ``(device, function)`` jobs: those of one device in order, different devices at the same time.

    The first device's queue runs in the calling thread, so that work for one device starts no thread.

    Returns:
        The functions' results, in the order of the jobs.

    Raises:
        BaseException: of the first job in order that failed. A Ctrl-C does not wait for the other queues.
    """
    futures: list[Future] = [Future() for _ in jobs]
    queues: dict[Hashable, list[tuple[Future, Callable[[], Any]]]] = {}
    for future, (device, function) in zip(futures, jobs, strict=True):
        queues.setdefault(device, []).append((future, function))
    first, *others = queues.values() if queues else [[]]
    for queue in others:
        threading.Thread(target=_run_queue, args=(queue, BaseException), name="moai-device", daemon=True).start()
    _run_queue(first, Exception)
    return [future.result() for future in futures]


def _run_queue(queue: list[tuple[Future, Callable[[], Any]]], caught: type[BaseException]) -> None:
    for future, function in queue:
        try:
            future.set_result(function())
        except caught as error:  # raised again where the result is read
            future.set_exception(error)
