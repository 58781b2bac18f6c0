"""Typed perceptions: what experts saw in one image, as plain data with score and source.

Knows: numpy only. Boxes are normalised ``(x0, y0, x1, y1)`` in [0, 1] with the origin at the top left corner of the
image after EXIF rotation; scores are finite and in [0, 1]; masks are COCO run-length encodings at any resolution.
Nothing here checks itself on construction, since an expert may hand over anything: ``check_perception`` does, and
the runner turns what it finds into a reported failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from moai.types.coco import CocoConversions
from moai.types.findings import Box, Detection, Mask, Relation, Segment, TextLine, describe
from moai.types.supervision import SupervisionConversions

ROLES = ("panoptic", "open_world", "scene_graph", "ocr")


@dataclass(frozen=True)
class Source:
    """Who saw it: the expert's name, role and version, and whether its findings came from the cache."""

    expert: str
    role: str
    version: str
    cached: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Failure:
    """An expert that gave nothing for this image, and why, in a sentence."""

    expert: str
    reason: str


@dataclass(frozen=True)
class Perception(CocoConversions, SupervisionConversions):
    """What one expert saw in one image, or, after ``merge``, what all of them saw."""

    segments: tuple[Segment, ...] = ()
    detections: tuple[Detection, ...] = ()
    relations: tuple[Relation, ...] = ()
    texts: tuple[TextLine, ...] = ()
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)  # role of a plugin's own -> plain sentences
    sources: tuple[Source, ...] = ()
    failures: tuple[Failure, ...] = ()

    @property
    def boxes(self) -> tuple[tuple[str, Box], ...]:
        """``(name, box)`` of every thing segment and detection, in order; for experts that build on others."""
        named = [(describe(s), s.box) for s in self.segments if s.is_thing]
        return tuple(named + [(d.label, d.box) for d in self.detections])

    @property
    def has_panoptic(self) -> bool:
        """True when a panoptic expert answered, with or without segments."""
        return any(source.role == "panoptic" for source in self.sources)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; ``from_dict`` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Perception:
        """Build a perception from ``to_dict``'s output (tuples may have become lists, as JSON makes them)."""
        return cls(
            segments=tuple(_build(Segment, item) for item in data.get("segments", ())),
            detections=tuple(_build(Detection, item) for item in data.get("detections", ())),
            relations=tuple(_build(Relation, item) for item in data.get("relations", ())),
            texts=tuple(_build(TextLine, item) for item in data.get("texts", ())),
            notes={role: tuple(lines) for role, lines in data.get("notes", {}).items()},
            sources=tuple(Source(**item) for item in data.get("sources", ())),
            failures=tuple(Failure(**item) for item in data.get("failures", ())),
        )


def merge(perceptions: Sequence[Perception]) -> Perception:
    """Join what several experts saw in the same image, in the order given."""
    notes: dict[str, tuple[str, ...]] = {}
    for perception in perceptions:
        for role, lines in perception.notes.items():
            notes[role] = notes.get(role, ()) + tuple(lines)
    joined = {
        f.name: tuple(item for p in perceptions for item in getattr(p, f.name))
        for f in fields(Perception)
        if f.name != "notes"
    }
    return Perception(notes=notes, **joined)


def sign(perception: Perception, source: Source) -> Perception:
    """Name the source of a perception, and of each of its findings."""
    kinds = ("segments", "detections", "relations", "texts")
    named: dict[str, Any] = {
        k: tuple(replace(item, source=source.expert) for item in getattr(perception, k)) for k in kinds
    }
    return replace(perception, sources=(source,), **named)


def _build(kind: type, data: dict[str, Any]) -> Any:
    data = dict(data)
    for name in ("box", "subject_box", "object_box"):
        if data.get(name) is not None:
            data[name] = tuple(data[name])
    if data.get("mask") is not None:
        mask = data["mask"]
        data["mask"] = Mask(mask["height"], mask["width"], tuple(mask["counts"]))
    if "polygon" in data:
        data["polygon"] = tuple(tuple(point) for point in data["polygon"])
    return kind(**data)
