"""Check that an expert's output keeps the contract.

Knows: perceptions.
"""

from __future__ import annotations

import math
from typing import Any

from moai.errors import ExpertError
from moai.types.findings import Detection, Mask, Relation, Segment, TextLine
from moai.types.perception import Failure, Perception, Source

_KINDS = {
    "segments": Segment, "detections": Detection, "relations": Relation, "texts": TextLine,
    "sources": Source, "failures": Failure,
}  # fmt: skip
_SHORT = 60  # characters of a wrong value that a message repeats
MAX_TEXT = 256  # characters of one label or text line; longer text is the sign of a broken or hostile source


def check_perception(perception: Any) -> None:
    """Raise :class:`ExpertError` naming the first thing that breaks the contract."""
    if not isinstance(perception, Perception):
        raise ExpertError(f"perceive must return Perception objects, not {type(perception).__name__}")
    for name, kind in _KINDS.items():
        _check_items(getattr(perception, name), name, kind)
    found: list[Segment | Detection] = [*perception.segments, *perception.detections]
    for item in found:
        _check_name(item.label)
        _check_score(item.score)
        _check_box(item.box)
    for segment in perception.segments:
        _check_attributes(segment.attributes)
        if segment.mask is not None:
            _check_mask(segment.mask)
    for relation in perception.relations:
        for name in (relation.subject, relation.predicate, relation.object):
            _check_name(name)
        _check_score(relation.score)
        for box in (relation.subject_box, relation.object_box):
            if box is not None:
                _check_box(box)
    for line in perception.texts:
        _check_name(line.text)
        _check_score(line.score)
        _check_polygon(line.polygon)
    _check_notes(perception.notes)


def _check_items(items: Any, name: str, kind: type) -> None:
    if not isinstance(items, (tuple, list)):
        raise ExpertError(f"{name} must be a tuple of {kind.__name__} objects, not {_short(items)}")
    for item in items:
        if not isinstance(item, kind):
            raise ExpertError(f"{name} must hold {kind.__name__} objects only, not {_short(item)}")


def _check_attributes(attributes: Any) -> None:
    if not isinstance(attributes, dict):
        raise ExpertError(f"attributes must be a dict such as {{'color': 'red'}}, not {_short(attributes)}")
    for name, value in attributes.items():
        _check_name(name)
        _check_name(value)


def _check_polygon(polygon: Any) -> None:
    if not isinstance(polygon, (tuple, list)) or any(not isinstance(point, (tuple, list)) for point in polygon):
        raise ExpertError(f"a polygon must be a tuple of (x, y) points, one per corner, not {_short(polygon)}")
    for point in polygon:
        _check_unit(point, 2, "polygon point")


def _check_notes(notes: Any) -> None:
    if not isinstance(notes, dict):
        raise ExpertError(f"notes must be a dict of role -> tuple of sentences, not {_short(notes)}")
    for role, lines in notes.items():
        if not isinstance(role, str) or not role.strip():
            raise ExpertError(f"notes are kept by role, a non-empty string, not by {_short(role)}")
        if not isinstance(lines, (tuple, list)):
            example = f"write ({lines!r},)" if isinstance(lines, str) and len(lines) <= _SHORT else "give a tuple"
            raise ExpertError(f"notes of '{role}' must be a tuple of sentences, not {_short(lines)}; {example}")
        for text in lines:
            _check_name(text)


def _short(value: Any) -> str:
    """Say what a wrong value is: its type, and the value where it is short."""
    if value is None:
        return "None"
    text = repr(value) if isinstance(value, (str, bytes, int, float)) else ""
    return f"{type(value).__name__} {text}" if text and len(text) <= _SHORT else type(value).__name__


def _check_name(text: Any) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ExpertError(f"labels and texts must be non-empty strings, not {text!r}")
    if len(text) > MAX_TEXT:
        raise ExpertError(f"a label or text of {len(text)} characters; the limit is {MAX_TEXT}")


def _check_score(score: Any) -> None:
    if (
        isinstance(score, bool)
        or not isinstance(score, (int, float))
        or not math.isfinite(score)
        or not 0 <= score <= 1
    ):
        raise ExpertError(f"scores must be finite Python numbers in [0, 1], not {score!r}")


def _check_unit(values: Any, length: int, what: str) -> None:
    if not isinstance(values, (tuple, list)) or len(values) != length:
        raise ExpertError(f"a {what} must be {length} numbers, not {values!r}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ExpertError(f"a {what} must be Python numbers normalised to [0, 1], not {values!r}")


def _check_box(box: Any) -> None:
    _check_unit(box, 4, "box")
    if not (box[0] <= box[2] and box[1] <= box[3]):
        raise ExpertError(f"a box must be (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1, not {box!r}")


def _check_mask(mask: Any) -> None:
    if not isinstance(mask, Mask) or mask.height < 1 or mask.width < 1:
        raise ExpertError("a mask must be a Mask of at least 1 x 1 pixels; use Mask.encode(array)")
    if any(count < 0 for count in mask.counts) or sum(mask.counts) != mask.height * mask.width:
        raise ExpertError("a mask's run lengths must add up to its height times its width; use Mask.encode(array)")
