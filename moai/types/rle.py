"""Read and write masks as COCO does: run lengths as a list or a string, and polygons.

Knows: COCO's format, as pycocotools implements it; polygons cover the same pixels to the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moai.errors import ExpertError
from moai.types.findings import Mask
from moai.types.pixels import is_list, short, to_number

MAX_PIXELS = 89_478_485  # of a mask, as of an image
MAX_OUTLINE = 10_000_000  # fifths of a pixel: the length of all outlines of a mask
_UPSAMPLED = 5  # points per pixel along an outline


def mask_from_coco(segmentation: Any, width: int, height: int) -> Mask | None:
    """Read the ``segmentation`` of a COCO annotation.

    Args:
        segmentation: polygons ``[[x, y, x, y, ..], ..]`` in pixels, or run lengths ``{"size": [h, w], "counts": ..}``,
            which are a list or COCO's string.
        width, height: of the picture, for polygons.

    Returns:
        The mask; None where it covers no pixel.

    Raises:
        ExpertError: neither of these, or runs that do not add up to the size.
    """
    if isinstance(segmentation, dict):
        mask = _mask_of_runs(segmentation)
        return mask if any(mask.counts[1::2]) else None
    if not is_list(segmentation) or not len(segmentation):
        raise ExpertError(f"a segmentation is a list of polygons, or size and counts, not {short(segmentation)}")
    _check_size(height, width)
    inside = np.zeros(height * width, dtype=bool)
    length = 0
    for polygon in segmentation:
        points = _points(polygon, width, height)
        length += int(_UPSAMPLED * np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum())
        if length > MAX_OUTLINE:
            raise ExpertError("the outline of a segmentation is too long to be drawn; give run lengths")
        inside |= _fill(points, width, height)
    return Mask.encode(inside.reshape((height, width), order="F")) if inside.any() else None


def mask_to_coco(mask: Mask, width: int, height: int) -> dict[str, Any]:
    """Write a mask as COCO's compressed run lengths ``{"size": [h, w], "counts": str}``, in the picture's size."""
    return {"size": [height, width], "counts": compress(mask.resized(width, height).counts)}


def compress(counts: Sequence[int]) -> str:
    """Write run lengths as COCO's string: differences to the run before the last, five bits to a character."""
    text = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits, value = value & 0x1F, value >> 5
            more = value != (-1 if bits & 0x10 else 0)
            text.append(chr(48 + (bits | 0x20 if more else bits)))
    return "".join(text)


def decompress(text: str) -> list[int]:
    """Read the run lengths of COCO's string.

    Raises:
        ExpertError: a character that does not belong to it, or its end is missing.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ExpertError(f"run lengths hold {character!r}, which COCO's strings do not; write them again")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (bits & 0x10) << (shift - 4)  # a set sign bit: the number is negative
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ExpertError("a string of run lengths ends in the middle of a number; write it again")
    return counts


def _mask_of_runs(given: dict[str, Any]) -> Mask:
    size, counts = given.get("size"), given.get("counts")
    if not is_list(size) or len(size) != 2:
        raise ExpertError(f"the size of run lengths is [height, width], not {short(size)}")
    height, width = (int(to_number(value, "a size of run lengths")) for value in size)
    _check_size(height, width)
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    if isinstance(counts, str):
        runs = decompress(counts)
    elif is_list(counts):
        runs = [int(to_number(count, "a run length")) for count in counts]
    else:
        raise ExpertError(f"run lengths are a list or a string, not {short(counts)}")
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ExpertError(f"run lengths add up to {sum(runs)} and not to {height} x {width}; write them again")
    return Mask(height, width, tuple(runs))


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ExpertError(f"a mask of {height} x {width} pixels; at least 1 and at most {MAX_PIXELS:,} can be read")


def _points(polygon: Any, width: int, height: int) -> NDArray[np.float64]:
    """Return the corners of a polygon, ``(n, 2)``."""
    if not is_list(polygon) or len(polygon) < 6 or len(polygon) % 2:
        raise ExpertError(f"a polygon is a list x, y, x, y, .. of at least three points, not {short(polygon)}")
    points = np.array([to_number(value, "a number of a polygon") for value in polygon]).reshape(-1, 2)
    if np.abs(points).max() > 2 * max(width, height) + 100:
        raise ExpertError(f"a polygon leads far out of the {width} x {height} picture")
    return points


def _fill(points: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    """Return which pixels a polygon covers, column by column, as pycocotools' ``rleFrPoly`` does."""
    corners = np.trunc(_UPSAMPLED * points + 0.5).astype(np.int64)
    across, down = (np.concatenate(parts) for parts in zip(*map(_edge, corners, np.roll(corners, -1, axis=0))))
    moved = np.flatnonzero(across[1:] != across[:-1]) + 1
    column = (np.minimum(across[moved], across[moved - 1]) + 0.5) / _UPSAMPLED - 0.5
    # The outline crosses a column of pixels where its points step over the column's middle.
    crosses = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    row = (np.minimum(down[moved], down[moved - 1]) + 0.5) / _UPSAMPLED - 0.5
    row = np.ceil(row.clip(0, height))
    places = (column * height + row)[crosses].astype(np.int64)
    return np.cumsum(np.bincount(places, minlength=height * width + 1))[: height * width] % 2 == 1


def _edge(start: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the points from one corner to the next, one for each step of its longer side."""
    (x0, y0), (x1, y1) = start, end
    wide = abs(x1 - x0) >= abs(y1 - y0)
    flipped = x0 > x1 if wide else y0 > y1
    if flipped:
        x0, y0, x1, y1 = x1, y1, x0, y0
    steps = np.arange((x1 - x0 if wide else y1 - y0) + 1)[:: -1 if flipped else 1]
    if wide:
        slope = (y1 - y0) / (x1 - x0) if x1 > x0 else 0.0
        return steps + x0, (y0 + slope * steps + 0.5).astype(np.int64)
    slope = (x1 - x0) / (y1 - y0)
    return (x0 + slope * steps + 0.5).astype(np.int64), steps + y0
