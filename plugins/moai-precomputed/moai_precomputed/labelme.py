"""Read LabelMe: one JSON file per picture, with polygons, rectangles, circles and masks."""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import moai
from moai.errors import ExpertError, MoaiError
from moai.types import Mask, Perception, to_number
from moai_precomputed.index import Entry, name_parts, size_of

MAX_BYTES = 2**29  # of one file, which holds the picture itself as well
CIRCLE = 64  # corners of a circle's outline


def read_folder(folder: Path, name: str) -> Iterator[Entry]:
    """List the pictures that a folder's JSON files describe, folders of any depth included.

    Raises:
        ExpertError: there are none, or one cannot be read.
    """
    found = False
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for file in sorted(one for one in files if one.lower().endswith(".json") and not one.startswith(".")):
            path = Path(place) / file
            inside = path.relative_to(folder)
            found = True
            yield entry_of(_parse(path), path, name, f"{name}/{inside.as_posix()}", inside.parent.parts)
    if not found:
        raise ExpertError(f"the folder {name} has no JSON files; LabelMe writes one for each picture")


def entry_of(data: Any, path: Path, file: str, where: str, folder: tuple[str, ...]) -> Entry:
    """Make the entry of one file.

    Args:
        data: what was parsed.
        path: of the file, which is parsed again when the picture is perceived: it may hold the picture itself.
        file, where: as in ``Entry``.
        folder: of the file, in the folder that was given; the picture's name begins in it.
    """
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        raise ExpertError(f"{where} is no LabelMe file; it lacks 'shapes'")
    stamp = _stamp(path)

    def read(width: int, height: int) -> Perception:
        if _stamp(path) != stamp:
            raise ExpertError("the file has changed since it was opened; start again")
        return to_perception(_parse(path), width, height)

    return Entry(file, where, name_parts(data.get("imagePath"), where, folder), "", read)


def to_perception(data: dict[str, Any], width: int, height: int) -> Perception:
    """Convert a LabelMe file: polygons of one label and one group are one object; lines and points have boxes only."""
    size = size_of((data.get("imageWidth"), data.get("imageHeight")), width, height)
    annotations: dict[Any, dict[str, Any]] = {}
    for number, shape in enumerate(data["shapes"]):
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
            raise ExpertError(f"shape {number} has no label")
        try:
            annotation = _annotation(shape, *size)
        except (MoaiError, TypeError) as error:
            raise ExpertError(f"shape {number} ('{shape['label']:.40}'): {error}") from error
        group = shape.get("group_id")
        key = (shape["label"], group) if isinstance(group, int) and _outlined(annotation) else number
        if key in annotations:
            annotations[key]["segmentation"] += annotation["segmentation"]
            annotations[key].pop("bbox", None)
        else:
            annotations[key] = {**annotation, "id": number, "category_id": shape["label"]}
    labels = {one["category_id"] for one in annotations.values()}
    return Perception.from_coco(annotations.values(), [{"id": label, "name": label} for label in labels], *size)


def _outlined(annotation: dict[str, Any]) -> bool:
    return isinstance(annotation.get("segmentation"), list)


def _annotation(shape: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    given = shape.get("points")
    if not isinstance(given, list) or not given or not all(isinstance(p, list) and len(p) == 2 for p in given):
        raise ExpertError(f"its points are a list of [x, y], not {given!r:.60}")
    points = [(to_number(x, "a number of a point"), to_number(y, "a number of a point")) for x, y in given]
    kind = shape.get("shape_type") or "polygon"
    if kind == "circle":
        if len(points) != 2:
            raise ExpertError("a circle is its centre and a point on it")
        (x, y), radius = points[0], math.dist(*points)
        steps = [2 * math.pi * step / CIRCLE for step in range(CIRCLE)]
        points = [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in steps]
    xs, ys = zip(*points)
    bbox = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    if kind == "mask":
        return _pasted(shape.get("mask"), points, width, height)
    if kind in ("polygon", "circle"):
        if len(points) < 3:
            raise ExpertError(f"a polygon has at least three points, not {len(points)}")
        return {"segmentation": [[number for point in points for number in point]], "bbox": bbox}
    return {"bbox": bbox}


def _pasted(encoded: Any, points: list[tuple[float, float]], width: int, height: int) -> dict[str, Any]:
    """Decode a mask, a PNG that lies at the first of two points, into a segmentation of the whole picture."""
    try:
        small = np.asarray(moai.read_image(base64.b64decode(encoded, validate=True)).convert("L")) > 0
    except (binascii.Error, ValueError, TypeError) as error:
        raise ExpertError("its mask is no PNG in base64") from error
    x, y = (int(math.floor(number)) for number in points[0])
    whole = np.zeros((height, width), dtype=bool)
    left, top = max(0, x), max(0, y)
    part = small[top - y :, left - x :][: max(0, height - top), : max(0, width - left)]
    if not part.any():
        raise ExpertError("its mask has no pixel in the picture")
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    mask = Mask.encode(whole)
    return {"segmentation": {"size": [height, width], "counts": list(mask.counts)}}


def _parse(path: Path) -> Any:
    try:
        if os.path.getsize(path) > MAX_BYTES:
            raise ExpertError(f"{path.name} has more than {MAX_BYTES:,} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExpertError(f"{path.name} cannot be read: {error.strerror or error}; check the file") from error
    except (ValueError, RecursionError) as error:
        raise ExpertError(f"{path.name} is no JSON ({str(error)[:120]}); write it again") from error


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise ExpertError(f"{path.name} cannot be read: {error.strerror or error}; check the file") from error
    return status.st_mtime_ns, status.st_size
