"""Convert perceptions from and to the ``Detections`` of the library supervision.

Knows: the fields of ``Detections``, which many detectors' results become. The library is imported when it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from moai.errors import ExpertError
from moai.types.findings import Detection, Mask, Segment
from moai.types.pixels import is_list, short, to_box, to_score

if TYPE_CHECKING:
    import supervision

_NAMES, _ATTRIBUTES, _THINGS = "class_name", "attributes", "is_thing"  # of `Detections.data`


class SupervisionConversions:
    """Give a perception its conversions from and to supervision."""

    segments: tuple[Segment, ...]
    detections: tuple[Detection, ...]

    @classmethod
    def from_supervision(
        cls, detections: Any, width: int, height: int, names: Sequence[str] | Mapping[int, str] | None = None
    ) -> Self:
        """Build a perception of one picture's ``supervision.Detections``.

        Args:
            detections: with boxes in pixels.
            width, height: of the picture in pixels; ``*image.size`` of a PIL image.
            names: class id -> name; ``detections.data["class_name"]`` where it is left out.

        Returns:
            A segment for each detection with a mask, and a detection for each without. The score is 1 where
            there is no confidence. Boxes are clipped to the picture. Tracker ids and other data are left out.

        Raises:
            ExpertError: no ``Detections``, no names, or a box or score that is none; the message has its number.
        """
        boxes = getattr(detections, "xyxy", None)
        data = getattr(detections, "data", None)
        if not is_list(boxes) or not isinstance(data, dict):
            raise ExpertError(f"detections are supervision.Detections of one picture, not {type(detections).__name__}")
        segments: list[Segment] = []
        found: list[Detection] = []
        for number in range(len(boxes)):
            try:
                item = _finding(detections, number, width, height, names)
            except ExpertError as error:
                raise ExpertError(f"detection {number}: {error}") from error
            if isinstance(item, Segment):
                segments.append(item)
            else:
                found.append(item)
        return cls(segments=tuple(segments), detections=tuple(found))  # type: ignore[call-arg]

    def to_supervision(self, width: int, height: int, names: Sequence[str] | None = None) -> supervision.Detections:
        """Write the segments, then the detections, as ``supervision.Detections``; ``from_supervision`` reads them.

        Args:
            width, height: of the picture in pixels.
            names: a label's place in it is its class id; the labels by the alphabet where it is left out.

        Returns:
            Boxes in pixels, scores, class ids and ``data["class_name"]``. It has masks, in the picture's size, when
            every finding has one, since ``Detections`` have all or none. It has no place for relations, lines of text
            and notes.

        Raises:
            ExpertError: supervision is not installed, or ``names`` lacks a label.
        """
        try:
            import supervision
        except ImportError as error:
            raise ExpertError("to_supervision needs the library supervision; pip install supervision") from error
        items: list[Segment | Detection] = [*self.segments, *self.detections]
        listed = sorted({item.label for item in items}) if names is None else list(names)
        if missing := [item.label for item in items if item.label not in listed]:
            raise ExpertError(f"names lack '{missing[0]}'; add it")
        masks = [item.mask for item in items if isinstance(item, Segment) and item.mask is not None]
        whole = bool(items) and len(masks) == len(items)
        boxes = np.array([item.box for item in items], dtype=np.float64).reshape(-1, 4)
        return supervision.Detections(
            xyxy=boxes * np.array([width, height, width, height]),
            mask=np.stack([mask.resized(width, height).decode() for mask in masks]) if whole else None,
            confidence=np.array([item.score for item in items], dtype=np.float64),
            class_id=np.array([listed.index(item.label) for item in items], dtype=np.int64),
            data=_data(items),
        )


def _finding(detections: Any, number: int, width: int, height: int, names: Any) -> Segment | Detection:
    box = to_box([float(side) for side in detections.xyxy[number]], width, height)
    score = 1.0 if detections.confidence is None else to_score(float(detections.confidence[number]))
    label = _name(detections, number, names)
    mask = None
    if detections.mask is not None:
        pixels = np.asarray(detections.mask[number]) != 0
        mask = Mask.encode(pixels) if pixels.any() else None
    attributes, things = detections.data.get(_ATTRIBUTES), detections.data.get(_THINGS)
    named = dict(attributes[number]) if attributes is not None else {}
    thing = bool(things[number]) if things is not None else True
    if mask is None and thing and not named:
        return Detection(label, score, box)
    return Segment(label, score, box, mask, thing, named)


def _name(detections: Any, number: int, names: Any) -> str:
    if names is not None:
        id: Any = None if detections.class_id is None else int(detections.class_id[number])
        known = names if isinstance(names, Mapping) else dict(enumerate(names))
        label = known.get(id)
    else:
        given = detections.data.get(_NAMES)
        id, label = "class_name", None if given is None else str(given[number])
    if not isinstance(label, str) or not label.strip():
        raise ExpertError(f"there is no name for its class {short(id)}; pass names={{class id: name}}")
    return label


def _data(items: Sequence[Segment | Detection]) -> dict[str, Any]:
    data: dict[str, Any] = {_NAMES: np.array([item.label for item in items], dtype=np.str_)}
    attributes = [item.attributes if isinstance(item, Segment) else {} for item in items]
    things = [not isinstance(item, Segment) or item.is_thing for item in items]
    if any(attributes):
        data[_ATTRIBUTES] = np.array(attributes, dtype=object)
    if not all(things):
        data[_THINGS] = np.array(things)
    return data
