"""Verbalize the four roles in the style "compact": a few tokens per fact, for hosts and compressors with little room.

Knows: its English wording. An object is a place and its label; the place is the cell of its box's centre in a grid of
three by three. Relations have no "is". A line of text is its place, the word "text" and the line. No words introduce a
role, and its facts end with a full stop: ``center red circle, top left dog. dog left of red circle. top text EXIT.``
The place comes first, because a language model processes the label with the tokens before it only.
"""

from __future__ import annotations

from collections.abc import Sequence

from moai.perception.words.formatting import clean, clean_label, instance_names, with_score
from moai.types import Box, Perception, describe

_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")
CENTER = "center"


def place(box: Box) -> str:
    """Name the cell of a box's centre, ``top left`` to ``bottom right``; a centre on a border counts as inwards."""
    row, column = _third(box[1] + box[3]), _third(box[0] + box[2])
    return f"{_ROWS[row]} {_COLUMNS[column]}".strip() or CENTER


def objects(items: Sequence, scores: bool = False) -> str:
    """List the places and labels of segments or detections."""
    named = [(clean_label(describe(item)), item) for item in items]
    return _role([with_score(f"{place(item.box)} {name}", item.score, scores) for name, item in named if name])


def panoptic(perception: Perception, scores: bool = False) -> str:
    """List the places and names of the segments."""
    return objects(perception.segments, scores)


def open_world(perception: Perception, scores: bool = False) -> str:
    """List the places and names of the detections."""
    return objects(perception.detections, scores)


def scene_graph(perception: Perception, scores: bool = False) -> str:
    """List the relations; instances that share a name are numbered, ``person #1``."""
    names = instance_names(perception.relations, " #{}")
    facts = []
    for r in perception.relations:
        fact = f"{names[r.subject, r.subject_box]} {clean(r.predicate)} {names[r.object, r.object_box]}"
        facts.append(with_score(fact, r.score, scores))
    return _role(facts)


def ocr(perception: Perception, scores: bool = False) -> str:
    """List the lines of text, each with the place of its polygon when it has one."""
    facts = []
    for line in perception.texts:
        if text := clean(line.text):
            where = f"{place(_bounds(line.polygon))} " if line.polygon else ""
            facts.append(with_score(f"{where}text {text}", line.score, scores))
    return _role(facts)


def nothing_found(perception: Perception) -> str:
    """Say that there are no objects."""
    return _role(["no objects"])


TEMPLATES = {
    ("nothing_found", "en-x-compact"): nothing_found,
    ("panoptic", "en-x-compact"): panoptic,
    ("open_world", "en-x-compact"): open_world,
    ("scene_graph", "en-x-compact"): scene_graph,
    ("ocr", "en-x-compact"): ocr,
}


def _role(facts: list[str]) -> str:
    return f"{', '.join(facts)}." if facts else ""


def _third(double: float) -> int:
    """Return the third, 0, 1 or 2, of twice a coordinate in [0, 1]."""
    return 0 if 3 * double < 2 else 2 if 3 * double > 4 else 1


def _bounds(polygon: tuple[tuple[float, float], ...]) -> Box:
    xs, ys = [x for x, _ in polygon], [y for _, y in polygon]
    return min(xs), min(ys), max(xs), max(ys)
