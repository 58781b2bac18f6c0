"""Verbalize the four roles in English, in the wording of the paper's published code.

Knows: English sentences. The style "paper" is registered under the language alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from moai.perception.words.formatting import box_facts, clean, instance_names, text_facts, with_score
from moai.types import Detection, Perception, Segment


def panoptic(perception: Perception, scores: bool = False) -> str:
    """List the boxes and names of the segments."""
    return _objects(perception.segments, scores)


def open_world(perception: Perception, scores: bool = False) -> str:
    """List the boxes and names of the detections."""
    return _objects(perception.detections, scores)


def scene_graph(perception: Perception, scores: bool = False) -> str:
    """List the relations; instances that share a name are numbered, ``person (#1)``."""
    names = instance_names(perception.relations)
    facts = []
    for r in perception.relations:
        fact = f"{names[r.subject, r.subject_box]} is {clean(r.predicate)} {names[r.object, r.object_box]}"
        facts.append(with_score(fact, r.score, scores))
    return _sentence("The image includes relationships between objects: ", facts)


def ocr(perception: Perception, scores: bool = False) -> str:
    """List the lines of text, as read."""
    return _sentence("The image includes text descriptions: ", text_facts(perception, scores))


def nothing_found(perception: Perception) -> str:
    """Say that there are no objects."""
    return "The image includes no objects."


TEMPLATES = {
    ("nothing_found", "en"): nothing_found,
    ("panoptic", "en"): panoptic,
    ("open_world", "en"): open_world,
    ("scene_graph", "en"): scene_graph,
    ("ocr", "en"): ocr,
}


def _objects(items: Sequence[Segment | Detection], scores: bool) -> str:
    return _sentence("The image includes bounding box coordinates and their objects: ", box_facts(items, scores))


def _sentence(start: str, facts: list[str]) -> str:
    if not facts:
        return ""
    listed = facts[0] if len(facts) == 1 else f"{', '.join(facts[:-1])}, and {facts[-1]}"
    return f"{start}{listed}."
