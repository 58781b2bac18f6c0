"""The style "compact": a few tokens per fact, for hosts and compressors with little room.

Knows: its English wording. An object is where its box lies in a grid of three by three, and its label; relations are
said without "is"; a line of text stands behind its place and the word "text". Nothing introduces a role, and its facts
end with a full stop: ``center red circle, top left dog. dog left of red circle. top text EXIT.`` The place comes first,
because a language model that reads the label knows only what stands before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from moai.perception.words.verbalize import clean, clean_label, instance_names, with_score
from moai.types import Box, Perception, describe

_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")
CENTER = "center"


def place(box: Box) -> str:
    """Where the centre of a box lies: ``top left`` to ``bottom right``; a centre on a border counts as inwards."""
    row, column = _third(box[1] + box[3]), _third(box[0] + box[2])
    return f"{_ROWS[row]} {_COLUMNS[column]}".strip() or CENTER


def objects(items: Sequence, scores: bool = False) -> str:
    """Places and labels of segments or detections."""
    named = [(clean_label(describe(item)), item) for item in items]
    return _role([with_score(f"{place(item.box)} {name}", item.score, scores) for name, item in named if name])


def panoptic(perception: Perception, scores: bool = False) -> str:
    """Places and names of the segments."""
    return objects(perception.segments, scores)


def open_world(perception: Perception, scores: bool = False) -> str:
    """Places and names of the detections."""
    return objects(perception.detections, scores)


def scene_graph(perception: Perception, scores: bool = False) -> str:
    """Relations; instances that share a name are numbered, ``person #1``."""
    names = instance_names(perception.relations, " #{}")
    facts = []
    for r in perception.relations:
        said = f"{names[r.subject, r.subject_box]} {clean(r.predicate)} {names[r.object, r.object_box]}"
        facts.append(with_score(said, r.score, scores))
    return _role(facts)


def ocr(perception: Perception, scores: bool = False) -> str:
    """Lines of text, each with the place of its polygon when it has one."""
    facts = []
    for line in perception.texts:
        if text := clean(line.text):
            where = f"{place(_bounds(line.polygon))} " if line.polygon else ""
            facts.append(with_score(f"{where}text {text}", line.score, scores))
    return _role(facts)


TEMPLATES = {
    ("panoptic", "en-x-compact"): panoptic,
    ("open_world", "en-x-compact"): open_world,
    ("scene_graph", "en-x-compact"): scene_graph,
    ("ocr", "en-x-compact"): ocr,
}


def _role(facts: list[str]) -> str:
    return f"{', '.join(facts)}." if facts else ""


def _third(double: float) -> int:
    """0, 1 or 2 for twice a coordinate in [0, 1]."""
    return 0 if 3 * double < 2 else 2 if 3 * double > 4 else 1


def _bounds(polygon: tuple[tuple[float, float], ...]) -> Box:
    xs, ys = [x for x, _ in polygon], [y for _, y in polygon]
    return min(xs), min(ys), max(xs), max(ys)
