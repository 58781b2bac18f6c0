"""Merge what several experts found of the same object.

Knows: perceptions.
"""

from __future__ import annotations

import re
from dataclasses import replace

from moai.types.findings import Box, Detection, Segment, describe
from moai.types.perception import Perception

DUPLICATE = 0.7  # overlap (IoU) from which a segment and a detection of one name are one object


def merge_duplicates(perception: Perception, overlap: float = DUPLICATE) -> Perception:
    """Unite each detection with the segment that shows the same object.

    Args:
        perception: its segments and detections are compared; of the rest nothing changes.
        overlap: the least intersection over union of the two boxes, in [0, 1].

    Returns:
        The perception without the detections that have a segment of the same name, or one whose words contain the
        other's ("car" and "red car"). The segment stays, with its mask and box, the better of the scores and the
        longer of the names. A detection goes to the segment that it overlaps most; of equals, to the first.
    """
    segments, kept = list(perception.segments), []
    for detection in perception.detections:
        seen = [_iou(segment.box, detection.box) for segment in perception.segments]
        fits = [i for i, part in enumerate(seen) if part >= overlap and _same_name(perception.segments[i], detection)]
        if not fits:
            kept.append(detection)
            continue
        index = max(fits, key=lambda i: seen[i])
        segments[index] = _united(segments[index], detection)
    return replace(perception, segments=tuple(segments), detections=tuple(kept))


def _same_name(one: Segment, other: Detection) -> bool:
    first, second = _words(one), _words(other)
    return bool(first and second) and (first <= second or second <= first)


def _words(item: Segment | Detection) -> set[str]:
    """The words of a name, without those that the COCO panoptic class names end in ("wall-other-merged")."""
    words = re.findall(r"\w+", describe(item).casefold())
    return set(words) - {"merged", "other", "stuff"} or set(words)


def _united(segment: Segment, detection: Detection) -> Segment:
    score = max(segment.score, detection.score)
    if _words(segment) < _words(detection):
        return replace(segment, score=score, label=detection.label, attributes={})
    return replace(segment, score=score)


def _iou(one: Box, other: Box) -> float:
    across = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    down = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return across * down / (sum(areas) - across * down) if across * down > 0 else float(one == other)
