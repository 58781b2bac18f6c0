"""Describe the findings of a perception to the page: what, by whom, how sure, and where in the picture.

Knows: perceptions. Every finding has an id, by which the page names it; text stays text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from contourpy import LineType, contour_generator
from numpy.typing import NDArray

from moai.plugin_api import facts_of
from moai.types import Box, Detection, Mask, Perception, Relation, Segment, TextLine, describe

FIELDS = {Segment: "segments", Detection: "detections", Relation: "relations", TextLine: "texts"}
KINDS = {Segment: "object", Detection: "object", Relation: "relation", TextLine: "text", str: "note"}
GRID = 256  # cells along the longer side, on which outlines of masks are traced
Fact = Segment | Detection | Relation | TextLine | str


def fact_id(role: str, number: int, fact: Fact) -> str:
    """Name a finding within its perception: ``"detections.3"``, or ``"notes.count.0"`` for a sentence."""
    return f"notes.{role}.{number}" if isinstance(fact, str) else f"{FIELDS[type(fact)]}.{number}"


def list_findings(
    perception: Perception, origins: Mapping[str, str | None], not_read: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """List the findings of one picture as JSON types.

    Args:
        perception: of the picture.
        origins: the id by which edits name each finding; None for one that cannot be edited.
        not_read: ids of those that did not fit into the words that the model gets.
    """
    left_out = frozenset(not_read)
    experts: dict[str, list[str]] = {}
    for source in perception.sources:
        experts.setdefault(source.role, []).append(source.expert)
    listed = []
    for role, number, fact in facts_of(perception):
        name = fact_id(role, number, fact)
        found = {"id": name, "origin": origins.get(name), "role": role, "kind": KINDS[type(fact)]}
        found |= {"text": words_of(fact), "read": name not in left_out}
        if isinstance(fact, str):
            found |= {"expert": " or ".join(experts.get(role, [])), "score": None}
        else:
            found |= {"expert": fact.source, "score": round(fact.score, 4), **_place(fact)}
        listed.append(found)
    return listed


def words_of(fact: Fact) -> str:
    """Say a finding in a few words."""
    if isinstance(fact, str):
        return fact
    if isinstance(fact, Relation):
        return f"{fact.subject} {fact.predicate} {fact.object}"
    return fact.text if isinstance(fact, TextLine) else describe(fact)


def list_experts(perception: Perception) -> list[dict[str, Any]]:
    """List the experts that answered or failed, as JSON types."""
    answered = [
        {"name": s.expert, "role": s.role, "version": s.version, "cached": s.cached, "failure": None}
        for s in perception.sources
    ]
    failed = [
        {"name": f.expert, "role": "", "version": "", "cached": False, "failure": f.reason} for f in perception.failures
    ]
    return answered + failed


def _place(fact: Segment | Detection | Relation | TextLine) -> Mapping[str, Any]:
    if isinstance(fact, Relation):
        ends = [fact.subject_box, fact.object_box] if fact.subject_box and fact.object_box else None
        return {"ends": ends, "predicate": fact.predicate}
    if isinstance(fact, TextLine):
        return {"polygon": fact.polygon or None, "box": _around(fact.polygon) if fact.polygon else None}
    outline = _outline(fact.mask) if isinstance(fact, Segment) and fact.mask is not None else None
    return {"box": fact.box, "outline": outline, "stuff": isinstance(fact, Segment) and not fact.is_thing}


def _around(polygon: tuple[tuple[float, float], ...]) -> Box:
    across, down = zip(*polygon, strict=True)
    return min(across), min(down), max(across), max(down)


def _outline(mask: Mask) -> list[list[list[float]]]:
    """Trace the rim of a mask, without its steps from cell to cell: closed lines of points in [0, 1]."""
    scale = GRID / max(GRID, mask.width, mask.height)
    width, height = max(1, round(mask.width * scale)), max(1, round(mask.height * scale))
    inside = np.pad(mask.resized(width, height).decode().astype(float), 1)
    lines = _rims(_blurred(_blurred(inside))) or _rims(inside)  # a mask that is a cell wide has no blurred rim
    placed = [np.clip((line - 0.5) / (width, height), 0, 1) for line in lines if len(line) > 3]
    return [np.round(line, 4).tolist() for line in placed]


def _rims(inside: NDArray[Any]) -> list[NDArray[Any]]:
    return contour_generator(z=inside, line_type=LineType.Separate).lines(0.5)


def _blurred(inside: NDArray[Any]) -> NDArray[Any]:
    """Average each cell with its neighbours; the rim around all stays empty."""
    wide = np.pad(inside, 1)
    rows = (wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4
    mean = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    mean[[0, -1]], mean[:, [0, -1]] = 0, 0
    return mean
