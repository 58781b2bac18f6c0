"""Relate every pair of objects by their boxes, in one short phrase each, and rank the phrases.

Knows: boxes and names. Two boxes say whether one lies in the other, stands on it, overlaps it, or on which side of it
it lies; contact, depth and actions they do not say. A side is one of eight: *left of*, *above left of*, *above*, and so
on.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, sqrt
from typing import NamedTuple

from moai.types import Box

INSIDE = 0.9  # share of the smaller box that lies in the larger: then it is inside
STANDS = 0.6  # share of the width of what is on something that has this below it
LAPPED = 0.1  # share of the smaller box that two have in common: then they overlap
STRAIGHT = 0.4142  # tangent of 22.5 degrees, up to which a side is named by one word
CLEAR = 0.25  # distance of the centres of overlapping boxes, in mean sizes, from which on the side is said as well
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


class Pair(NamedTuple):
    """Hold ``subject`` ``predicate`` ``object`` by the numbers of the objects, and how strong it is, in [0, 1]."""

    subject: int
    predicate: str
    object: int
    score: float


def every_pair(names: Sequence[str], boxes: Sequence[Box], countable: Sequence[bool]) -> list[Pair]:
    """Relate all pairs of different names, the strongest first, each pair of names once before any comes twice.

    Two of one name are told apart by their places alone.

    Args:
        names: of the objects.
        boxes: of the objects, in units that are as long across as down.
        countable: false for stuff (sky, wall), which has no part.

    Returns:
        One for each such pair. The score is above 0.5 for boxes that overlap, more the more they do; for others it is
        0.3 to 0.5, less the farther they are apart.
    """
    things = [number for number, is_thing in enumerate(countable) if is_thing]
    pairs = [(i, j) for at, i in enumerate(things) for j in things[at + 1 :] if names[i] != names[j]]
    found = [_pair(i, j, boxes[i], boxes[j]) for i, j in pairs]
    found.sort(key=lambda pair: -pair.score)
    again: list[int] = []
    met: dict[frozenset[str], int] = {}
    for pair in found:
        both = frozenset((names[pair.subject], names[pair.object]))
        met[both] = met.get(both, 0) + 1
        again.append(met[both])
    return [found[at] for at in sorted(range(len(found)), key=again.__getitem__)]


def turned(pair: Pair) -> Pair | None:
    """Return the same from the other side: "b right of a" for "a left of b"; None for what has no word for it."""
    words = pair.predicate.removesuffix(" of").split()
    back = [OPPOSITE.get(word, word) for word in words]
    return None if back == words else Pair(pair.object, _of(" ".join(back)), pair.subject, pair.score)


def _pair(i: int, j: int, one: Box, other: Box) -> Pair:
    gaps = [max(one[axis] - other[axis + 2], other[axis] - one[axis + 2]) for axis in (0, 1)]
    shared = [min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis]) for axis in (0, 1)]
    areas = [max((box[2] - box[0]) * (box[3] - box[1]), 1e-12) for box in (one, other)]
    share = min(shared[0] * shared[1] / min(areas), 1.0) if min(shared) > 0 else 0.0
    if share < LAPPED:
        apart = hypot(max(gaps[0], 0.0), max(gaps[1], 0.0)) / sqrt(2)
        return Pair(i, _of(_side(one, other)), j, 0.3 + 0.2 * (1 - min(apart, 1.0)))
    score = 0.5 + 0.5 * share
    small, large = (i, j) if areas[0] <= areas[1] else (j, i)
    if share >= INSIDE:
        return Pair(small, "inside", large, score)
    if _stands(one, other):
        return Pair(i, "on", j, score)
    if _stands(other, one):
        return Pair(j, "on", i, score)
    distance = hypot(*_between(one, other))
    side = _of(_side(one, other)) if distance >= CLEAR * (sqrt(areas[0]) + sqrt(areas[1])) / 2 else ""
    return Pair(i, f"overlapping {side}".strip(), j, score)


def _stands(upper: Box, lower: Box) -> bool:
    """Whether a thing's lower edge lies in the other's box, and its upper edge and its centre above the other's."""
    foot = lower[1] <= upper[3] <= lower[3] - 0.1 * (lower[3] - lower[1])
    higher = upper[1] < lower[1] and upper[1] + upper[3] < lower[1] + lower[3]
    across = min(upper[2], lower[2]) - max(upper[0], lower[0])
    return foot and higher and across >= STANDS * (upper[2] - upper[0])


def _between(one: Box, other: Box) -> tuple[float, float]:
    """How far one's centre lies to the right of the other's, and below it."""
    return (one[0] + one[2] - other[0] - other[2]) / 2, (one[1] + one[3] - other[1] - other[3]) / 2


def _side(one: Box, other: Box) -> str:
    """Name the side of the other on which one's centre lies, as seen in the picture."""
    across, down = _between(one, other)
    wide, tall = abs(across), abs(down)
    row = tall <= STRAIGHT * wide or (wide > tall and _in_line(one, other, 1))
    column = not row and (wide <= STRAIGHT * tall or _in_line(one, other, 0))
    words = [] if row else ["above" if down < 0 else "below"]
    return " ".join(words + ([] if column else ["left" if across < 0 else "right"]))


def _in_line(one: Box, other: Box, axis: int) -> bool:
    """Whether two extents have half of the shorter one in common, so that the two stand in one row or column."""
    shared = min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis])
    return shared >= 0.5 * min(one[axis + 2] - one[axis], other[axis + 2] - other[axis])


def _of(side: str) -> str:
    return f"{side} of" if side.endswith(("left", "right")) else side
