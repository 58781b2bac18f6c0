"""Convert perceptions from and to COCO's annotations.

Knows: the layout of COCO's object detection and its results, one picture at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from moai.errors import ExpertError
from moai.types.findings import Detection, Segment
from moai.types.pixels import numbers, short, to_box, to_score
from moai.types.rle import mask_from_coco, mask_to_coco


class CocoConversions:
    """Give a perception its conversions from and to COCO."""

    segments: tuple[Segment, ...]
    detections: tuple[Detection, ...]

    @classmethod
    def from_coco(
        cls,
        annotations: Iterable[Mapping[str, Any]],
        categories: Iterable[Mapping[str, Any]],
        width: int,
        height: int,
        crowds: bool = False,
    ) -> Self:
        """Build a perception of the annotations, or the results, of one picture.

        Args:
            annotations: each with ``category_id`` and ``bbox [x, y, w, h]`` in pixels or ``segmentation``; ``score``
                (1 without it), ``iscrowd`` and ``attributes`` count where they are there.
            categories: each with ``id`` and ``name``; what has ``isthing`` 0 is stuff.
            width, height: of the picture that was annotated, in pixels.
            crowds: keep the regions of many things, ``iscrowd`` 1, as stuff; otherwise they are left out.

        Returns:
            A segment for each annotation with a mask, and a detection for each without. Boxes are clipped to the
            picture. A region that covers no pixel has no mask.

        Raises:
            ExpertError: an annotation that breaks the format; the message has its id.
        """
        known = categories if isinstance(categories, dict) else categories_by_id(categories)
        segments, detections = [], []
        for number, annotation in enumerate(annotations, start=1):
            try:
                found = _finding(annotation, known, width, height, crowds)
            except ExpertError as error:
                id = annotation.get("id", number) if isinstance(annotation, Mapping) else number
                raise ExpertError(f"annotation {short(id)}: {error}") from error
            if isinstance(found, Segment):
                segments.append(found)
            elif found is not None:
                detections.append(found)
        return cls(segments=tuple(segments), detections=tuple(detections))  # type: ignore[call-arg]

    def to_coco(
        self,
        width: int,
        height: int,
        file_name: str = "",
        image_id: int = 1,
        categories: Mapping[str, int] | None = None,
        first_id: int = 1,
    ) -> dict[str, Any]:
        """Write the segments and detections as a COCO file of one picture; ``from_coco`` reads it.

        Args:
            width, height: of the picture in pixels.
            file_name, image_id: of the picture.
            categories: label -> id, so that several pictures share them; numbered from 1 by the alphabet without.
            first_id: of the annotations, which are numbered.

        Returns:
            ``images``, ``annotations`` and ``categories``, of plain JSON types. Annotations have a ``score``, so that
            they are results as well; a segment has its mask as compressed run lengths. COCO has no place for
            relations, lines of text and notes.

        Raises:
            ExpertError: a label that ``categories`` lacks.
        """
        items: list[Segment | Detection] = [*self.segments, *self.detections]
        things = {label: False for label in sorted({item.label for item in items})}
        for item in items:
            things[item.label] |= not isinstance(item, Segment) or item.is_thing
        ids = {label: number for number, label in enumerate(things, start=1)} if categories is None else categories
        if missing := [label for label in things if label not in ids]:
            raise ExpertError(f"categories have no id for '{missing[0]}'; add it")
        return {
            "images": [{"id": image_id, "file_name": file_name, "width": width, "height": height}],
            "annotations": [
                {"id": id, "image_id": image_id, "category_id": ids[item.label], **_written(item, width, height)}
                for id, item in enumerate(items, start=first_id)
            ],
            "categories": [
                {"id": id, "name": name, "isthing": int(things.get(name, True))} for name, id in ids.items()
            ],
        }


def categories_by_id(categories: Iterable[Mapping[str, Any]]) -> dict[Any, Mapping[str, Any]]:
    """Map the ids of COCO categories to them.

    Raises:
        ExpertError: one without id or name, or an id of two categories.
    """
    found: dict[Any, Mapping[str, Any]] = {}
    for category in categories:
        if not isinstance(category, Mapping) or not isinstance(category.get("id"), (int, str)):
            raise ExpertError(f"a category has an id and a name; {short(category)} has not")
        if not isinstance(category.get("name"), str) or not category["name"].strip():
            raise ExpertError(f"category {short(category['id'])} has no name; give it one")
        if category["id"] in found:
            raise ExpertError(f"two categories have the id {short(category['id'])}; give each its own")
        found[category["id"]] = category
    return found


def _finding(
    annotation: Any, categories: Mapping[Any, Mapping[str, Any]], width: int, height: int, crowds: bool
) -> Segment | Detection | None:
    if not isinstance(annotation, Mapping):
        raise ExpertError(f"an annotation is an object, not {short(annotation)}")
    crowd = annotation.get("iscrowd") in (1, True)
    if crowd and not crowds:
        return None
    id = annotation.get("category_id")
    category = categories.get(id) if isinstance(id, (int, str)) else None
    if category is None:
        raise ExpertError(f"it has the category {short(id)}, which the categories do not list; add it")
    segmentation = annotation.get("segmentation")
    mask = mask_from_coco(segmentation, width, height) if segmentation else None
    bbox = annotation.get("bbox")
    if bbox is None and mask is None:
        raise ExpertError("it has neither a bbox nor a region of pixels; give one of them")
    box = mask.box() if bbox is None and mask is not None else _corners(bbox, width, height)
    score = to_score(annotation.get("score", 1.0))
    attributes = annotation.get("attributes")
    named = {k: v for k, v in attributes.items() if isinstance(v, str) and v} if isinstance(attributes, Mapping) else {}
    thing = not crowd and category.get("isthing", 1) not in (0, False)
    if mask is None and thing and not named:
        return Detection(category["name"], score, box)
    return Segment(category["name"], score, box, mask, thing, named)


def _corners(bbox: Any, width: int, height: int) -> tuple[float, float, float, float]:
    x, y, across, down = numbers(bbox, 4, "a bbox")
    return to_box((x, y, x + across, y + down), width, height, "a bbox")


def _written(item: Segment | Detection, width: int, height: int) -> dict[str, Any]:
    x0, y0, x1, y1 = (side * size for side, size in zip(item.box, (width, height) * 2, strict=True))
    mask = item.mask if isinstance(item, Segment) else None
    region = {"segmentation": mask_to_coco(mask, width, height)} if mask is not None else {}
    pixels = sum(mask.counts[1::2]) / (mask.width * mask.height) * width * height if mask else (x1 - x0) * (y1 - y0)
    attributes = item.attributes if isinstance(item, Segment) else {}
    return {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": pixels,
        "iscrowd": 0,
        "score": item.score,
        **region,
        **({"attributes": dict(attributes)} if attributes else {}),
    }
