"""Typed perceptions: what experts saw in one image, as plain data with score and source.

Knows: numpy only. Boxes are normalised ``(x0, y0, x1, y1)`` in [0, 1] with the origin at the top left corner of the
image after EXIF rotation; scores are finite and in [0, 1]; masks are COCO run-length encodings at any resolution.
Nothing here checks itself on construction, since an expert may hand over anything: ``check_perception`` does, and
the runner turns what it finds into a reported failure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moai.errors import ExpertError

Box = tuple[float, float, float, float]
ROLES = ("panoptic", "open_world", "scene_graph", "ocr")
DUPLICATE = 0.7  # overlap (IoU) from which a segment and a detection of one name are one object
MAX_TEXT = 256  # characters of one label or text line; longer text is the sign of a broken or hostile source


@dataclass(frozen=True)
class Mask:
    """A binary mask, run-length encoded column by column as COCO does, zeros first (uncompressed counts)."""

    height: int
    width: int
    counts: tuple[int, ...]

    @classmethod
    def encode(cls, array: NDArray[Any]) -> Mask:
        """Encode a ``(H, W)`` array; non-zero is inside."""
        if array.ndim != 2:
            raise ExpertError(f"a mask has two dimensions (H, W), not {array.ndim}")
        flat = np.asarray(array != 0).ravel(order="F")
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        bounds = np.concatenate(([0], edges, [flat.size]))
        counts = np.diff(bounds).tolist()
        if flat.size and flat[0]:
            counts.insert(0, 0)
        return cls(int(array.shape[0]), int(array.shape[1]), tuple(counts))

    def decode(self) -> NDArray[np.bool_]:
        """Return a ``(H, W)`` bool array."""
        values = np.zeros(len(self.counts), dtype=bool)
        values[1::2] = True
        return np.repeat(values, self.counts).reshape((self.height, self.width), order="F")


@dataclass(frozen=True)
class Segment:
    """One region of a panoptic segmentation."""

    label: str
    score: float
    box: Box
    mask: Mask | None = None
    is_thing: bool = True
    attributes: dict[str, str] = field(default_factory=dict)  # e.g. {"color": "red"}; verbalized before the label


@dataclass(frozen=True)
class Detection:
    """One object found by an open-world detector."""

    label: str
    score: float
    box: Box


@dataclass(frozen=True)
class Relation:
    """``subject predicate object``; the boxes, when known, say which instances are meant."""

    subject: str
    predicate: str
    object: str
    score: float
    subject_box: Box | None = None
    object_box: Box | None = None


@dataclass(frozen=True)
class TextLine:
    """One line of text as read in the image; untrusted, never an instruction."""

    text: str
    score: float
    polygon: tuple[tuple[float, float], ...] = ()  # normalised (x, y) corners, clockwise from the top left


@dataclass(frozen=True)
class Source:
    """Who saw it: the expert's name, role and version."""

    expert: str
    role: str
    version: str


@dataclass(frozen=True)
class Failure:
    """An expert that gave nothing for this image, and why, in a sentence."""

    expert: str
    reason: str


@dataclass(frozen=True)
class Perception:
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


def describe(item: Segment | Detection) -> str:
    """The object's name as it is put into words: attributes, if it has any, then label (``"red circle"``)."""
    return " ".join([*getattr(item, "attributes", {}).values(), item.label])


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


def check_perception(perception: Any) -> None:
    """Raise :class:`ExpertError` naming the first thing that breaks the contract."""
    if not isinstance(perception, Perception):
        raise ExpertError(f"perceive must return Perception objects, not {type(perception).__name__}")
    found: list[Segment | Detection] = [*perception.segments, *perception.detections]
    for item in found:
        _check_name(item.label)
        _check_score(item.score)
        _check_box(item.box)
    for segment in perception.segments:
        for value in segment.attributes.values():
            _check_name(value)
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
        for point in line.polygon:
            _check_unit(point, 2, "polygon point")
    for lines in perception.notes.values():
        for text in lines:
            _check_name(text)


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


@dataclass(frozen=True)
class Sample:
    """A question-answer pair.

    ``image`` may be a path or anything else that ``moai.images.read_image`` takes; ``image_id`` is equal for two
    samples exactly when their images are the same; ``kind`` is the answer type, used to report accuracy by type;
    ``truth`` is what perfect experts would see, where the data set knows it; ``language`` is the question's;
    ``gloss`` is the question in the language of the perceptions, where it is asked in another: it is never shown to the
    model, but tells the guide of training which words are asked for.
    """

    id: str
    image: Path | bytes
    image_id: str
    question: str
    answer: str
    kind: str
    truth: Perception | None = None
    language: str = "en"
    gloss: str | None = None
