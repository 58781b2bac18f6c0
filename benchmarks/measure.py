"""Side by side: two ways of doing the same, timed in turns in one run, with the operations counted beside.

Knows: clocks and counters; nothing of what is measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

Work = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One line of the table: ``value`` against ``target``; ``floor`` is what counting operations allows."""

    name: str
    value: float
    target: float
    at_most: bool  # else at least
    unit: str = "x"
    floor: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the target is reached."""
        return self.value <= self.target if self.at_most else self.value >= self.target

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "passed": self.passed}


def in_turns(
    first: Work, second: Work, repeats: int, warm: bool = True, until: float | None = None
) -> tuple[list[float], list[float]]:
    """Seconds of each, ``repeats`` times, in turns: what else the machine does then slows both alike.

    Args:
        first, second: the two.
        repeats: of each.
        warm: call each once before.
        until: on the clock of ``time.monotonic``; then no further turn begins, after the first.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for work in (first, second) if warm else ():
        work()
    for turn in range(repeats):
        if turn and until is not None and time.monotonic() >= until:
            break
        for index in (0, 1) if turn % 2 == 0 else (1, 0):
            started = time.perf_counter()
            (first, second)[index]()
            times[index].append(time.perf_counter() - started)
    return times


def ratio(over: list[float], under: list[float]) -> float:
    """Median over median."""
    return statistics.median(over) / statistics.median(under)


def operations(work: Work) -> int:
    """Multiplications and additions of matrix products and attention that one call does."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def spread(times: list[float]) -> dict[str, float]:
    """Median, least and most, for the JSON."""
    return {"median": statistics.median(times), "least": min(times), "most": max(times), "repeats": len(times)}
