"""The order in which experts run: whoever requires a role runs after every expert of that role."""

from __future__ import annotations

from collections.abc import Sequence

from moai.errors import ExpertError
from moai.expert import Expert


def in_order(experts: Sequence[Expert]) -> tuple[Expert, ...]:
    """Sort by ``requires``; experts that do not depend on each other keep their places.

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
