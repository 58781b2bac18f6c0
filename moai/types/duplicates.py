"""Merge what several experts found of the same object.

Knows: boxes and names. The thresholds were measured by ``benchmarks/merging.py`` (docs/verbalization.md).
"""

from __future__ import annotations

from dataclasses import replace

from moai.types.findings import Box, Detection, Segment, describe
from moai.types.names import longer, same_thing
from moai.types.perception import Perception

DUPLICATE = 0.7  # overlap (IoU) from which any two findings of one name are one object
PARTLY = 0.3  # overlap from which they are when neither has a better partner


def merge_duplicates(perception: Perception, overlap: float = DUPLICATE, partly: float = PARTLY) -> Perception:
    """Unite findings that show the same object: a segment and a detection, or two of different experts.

    Args:
        perception: its segments and detections are compared; of the rest nothing changes.
        overlap: the least intersection over union of the boxes of two findings that are united in any case.
        partly: the least one for two that have no other partner, best pairs first, such as the visible part of a thing
            and its whole box.

    Returns:
        The perception with each object once. Names fit when one has the words of the other ("car" and "red car"), by
        synonyms ("sofa" and "couch"), or as a kind and what is of it ("person" and "woman"). A segment stays, with
        its mask and box, before a detection, and the earlier before the later; it gets the better of the scores and
        the name that says more. A finding goes to the one that it overlaps most; of equals, to the first. Two
        findings of one expert are two objects.
    """
    objects: list[_Object] = []
    items: tuple[Segment | Detection, ...] = (*perception.segments, *perception.detections)
    for item in items:
        fits = [one.fit(item) if one.may_be(item) else 0.0 for one in objects]
        index = max(range(len(fits)), key=fits.__getitem__, default=None)
        if index is not None and fits[index] >= overlap:
            objects[index].unite(item)
        else:
            objects.append(_Object(item))
    found = [one.item for one in _with_partners(objects, partly)]
    return replace(
        perception,
        segments=tuple(item for item in found if isinstance(item, Segment)),
        detections=tuple(item for item in found if isinstance(item, Detection)),
    )


def iou(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes; 1 of two equal boxes without area."""
    across = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    down = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return across * down / (sum(areas) - across * down) if across * down > 0 else float(one == other)


class _Object:
    """Hold an object as the findings of it that were united so far, and who made them."""

    def __init__(self, item: Segment | Detection) -> None:
        self.item, self.box = item, item.box
        self.makers = {_maker(item)}

    def may_be(self, item: Segment | Detection) -> bool:
        """Return whether a finding may be of this object: of another kind, or known to be of another expert."""
        return _other(_maker(self.item), _maker(item))

    def fit(self, item: Segment | Detection) -> float:
        """Return how much a finding of a fitting name overlaps; 0 for one of another name."""
        overlap = iou(self.box, item.box)
        return overlap if overlap and same_thing(describe(self.item), describe(item)) else 0.0

    def unite(self, item: Segment | Detection) -> None:
        """Take a finding as one of this object."""
        self.makers.add(_maker(item))
        score = max(self.item.score, item.score)
        if not longer(describe(self.item), describe(item)):
            self.item = replace(self.item, score=score)
        elif isinstance(self.item, Segment):
            named = item.attributes if isinstance(item, Segment) else {}
            self.item = replace(self.item, score=score, label=item.label, attributes=named)
        else:
            self.item = replace(self.item, score=score, label=describe(item))


def _with_partners(objects: list[_Object], partly: float) -> list[_Object]:
    """Unite objects in pairs, the best first; no expert has found one of them twice."""
    pairs = [
        (fit, i, j)
        for j, later in enumerate(objects)
        for i, one in enumerate(objects[:j])
        if (fit := one.fit(later.item)) >= partly and one.may_be(later.item)
    ]
    gone: set[int] = set()
    for _, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        one, later = objects[i], objects[j]
        apart = all(_other(maker, other) for maker in one.makers for other in later.makers)
        if i not in gone and j not in gone and apart:
            one.unite(later.item)
            one.makers |= later.makers
            gone.add(j)
    return [one for index, one in enumerate(objects) if index not in gone]


def _maker(item: Segment | Detection) -> tuple[type, str]:
    return type(item), item.source


def _other(one: tuple[type, str], other: tuple[type, str]) -> bool:
    """Return whether two findings may be of one object: one expert's of one kind are two objects."""
    return one[0] is not other[0] or bool(one[1] and other[1] and one[1] != other[1])
