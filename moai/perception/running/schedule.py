"""The order in which experts run: whoever requires a role runs after every expert of that role.

Knows: roles, and sizes in bytes. ``in_waves`` says who may look at the same time, ``in_shifts`` who may be loaded at
the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def in_waves(experts: Sequence[Expert]) -> list[list[Expert]]:
    """Split experts that are in order into waves: within one, nobody requires what another one offers."""
    waves: list[list[Expert]] = []
    levels: dict[str, int] = {}  # role -> the last wave in which it is offered
    for expert in experts:
        level = 1 + max((levels.get(role, -1) for role in expert.requires), default=-1)
        levels[expert.role] = max(level, levels.get(expert.role, -1))
        waves.extend([] for _ in range(level + 1 - len(waves)))
        waves[level].append(expert)
    return waves


def in_shifts(experts: Sequence[Expert], sizes: Mapping[str, int | None], budget: int) -> list[list[Expert]]:
    """Split experts that are in order into shifts whose sizes add up to ``budget`` at most.

    Args:
        sizes: per expert name its bytes; None where nobody knows, and then it gets a shift of its own.
        budget: bytes; an expert that is larger gets a shift of its own too, so 0 means one at a time.
    """
    shifts: list[list[Expert]] = []
    left: int | None = None  # bytes free in the last shift; None when nobody may join it
    for expert in experts:
        size = sizes.get(expert.name)
        if size is not None and left is not None and size <= left:
            shifts[-1].append(expert)
            left -= size
        else:
            shifts.append([expert])
            left = None if size is None else budget - size
    return shifts
