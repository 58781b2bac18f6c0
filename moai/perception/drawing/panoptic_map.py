"""Draw the panoptic map: segments as a picture, which the vision encoder turns into auxiliary tokens.

Knows: the colours of classes and instances. The hue comes from the label alone, so a class has one hue in every image,
whatever its place in the list; instances of a class differ in brightness and saturation. The map uses the full range
from 0 to 255, since a darkened one is nearly uniform after the normalisation of photographs.
"""

from __future__ import annotations

import colorsys
import hashlib
import math

import numpy as np

from moai.perception.words.formatting import clean_label
from moai.types import Box, Perception, Segment

Colour = tuple[int, int, int]
# (saturation, value) of the first, second, ... instance of a class; the first spans the full range.
_SHADES = ((1.0, 1.0), (0.55, 1.0), (1.0, 0.65), (0.55, 0.65), (0.3, 1.0), (1.0, 0.45))


def render_map(perception: Perception, height: int, width: int) -> np.ndarray:
    """Draw the segments of a perception.

    Args:
        perception: its ``segments`` are drawn; one without a mask as its box.
        height: of the map, in pixels.
        width: of the map, in pixels.

    Returns:
        uint8 ``(height, width, 3)``, RGB; black where no segment is. Small segments lie over large ones and things
        over stuff. A segment never vanishes: one thinner than a pixel of the map fills its box.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a panoptic map needs at least 1 x 1 pixels, not {height} x {width}")
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    layers = []
    for segment, colour in zip(perception.segments, segment_colours(perception.segments), strict=True):
        inside = _region(segment, height, width)
        layers.append((segment.is_thing, -int(inside.sum()), inside, colour))
    for _, _, inside, colour in sorted(layers, key=lambda layer: layer[:2]):
        canvas[inside] = colour
    return canvas


def segment_colours(segments: tuple[Segment, ...]) -> list[Colour]:
    """Choose one RGB colour per segment: hue by label, shade by its number among the segments of that label."""
    counts: dict[str, int] = {}
    colours = []
    for segment in segments:
        label = clean_label(segment.label)
        number = counts.get(label, 0)
        counts[label] = number + 1
        colours.append(label_colour(label, number))
    return colours


def label_colour(label: str, number: int = 0) -> Colour:
    """Choose the RGB colour of instance ``number`` of a class; the same in every process and on every machine."""
    digest = hashlib.sha256(label.encode("utf-8", "replace")).digest()
    hue = int.from_bytes(digest[:4], "big") / 2**32
    saturation, value = _SHADES[number % len(_SHADES)]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def resize_nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Sample a ``(h, w)`` array at the centres of ``height`` x ``width`` pixels."""
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(np.intp)
    return mask[rows[:, None], columns[None, :]]


def _region(segment: Segment, height: int, width: int) -> np.ndarray:
    if segment.mask is not None:
        inside = resize_nearest(segment.mask.decode(), height, width)
        if inside.any():
            return inside
    return _box_region(segment.box, height, width)


def _box_region(box: Box, height: int, width: int) -> np.ndarray:
    left, right = _span(box[0], box[2], width)
    top, bottom = _span(box[1], box[3], height)
    inside = np.zeros((height, width), dtype=bool)
    inside[top:bottom, left:right] = True
    return inside


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """Compute first and last-plus-one pixel between two normalised coordinates: at least one pixel, inside the map."""
    first = min(int(low * size), size - 1)
    return first, max(first + 1, min(math.ceil(high * size), size))
