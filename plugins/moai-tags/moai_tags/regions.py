"""Find where in a picture a tag is likely: regions of a map of scores, and which of them show one place.

Knows: arrays and boxes. A map has a score for each window of ``WINDOW`` x ``WINDOW`` cells of a picture that is divided
into cells; a region is given by the middle cells of its windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moai.types import Box

WINDOW = 3  # cells
PEAK = 0.5  # the score that some window of a region has at least
SHARE = 0.5  # of its region's best, which each window has at least
SAME_PLACE = 0.5  # intersection over union from which two regions are one place


@dataclass(frozen=True)
class Region:
    """Hold a region: the tag that is likely there, its best score and a box in fractions of the picture."""

    tag: str
    score: float
    box: Box  # around the middle cells of its windows
    reach: Box  # the same, to the picture's edge where the outermost window belongs to it


def find_regions(maps: Mapping[str, np.ndarray]) -> list[Region]:
    """Return the regions of each tag's ``(rows, columns)`` map of scores, the strongest first."""
    found = [region for tag, scores in maps.items() if scores.max() >= PEAK for region in _regions(tag, scores)]
    return sorted(found, key=lambda region: -region.score)


def places(found: Sequence[Region]) -> list[list[Region]]:
    """Group regions, the strongest first, by place: each overlaps the first of its group."""
    groups: list[list[Region]] = []
    for region in found:
        group = next((group for group in groups if _overlap(group[0].box, region.box) >= SAME_PLACE), None)
        if group is None:
            groups.append([region])
        else:
            group.append(region)
    return groups


def union(boxes: Sequence[Box]) -> Box:
    """Return the box around all boxes."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _regions(tag: str, scores: np.ndarray) -> Iterator[Region]:
    left = scores.copy()
    while left.max() >= PEAK:
        peak = np.unravel_index(int(left.argmax()), left.shape)
        cells = _connected(left >= SHARE * left[peak], (int(peak[0]), int(peak[1])))
        rows, columns = np.nonzero(cells)
        x0, x1, left_end, right_end = _edges(columns, scores.shape[1])
        y0, y1, top, bottom = _edges(rows, scores.shape[0])
        yield Region(tag, float(left[peak]), (x0, y0, x1, y1), (left_end, top, right_end, bottom))
        left[cells] = -1.0


def _edges(windows: np.ndarray, count: int) -> tuple[float, float, float, float]:
    """Return where the middle cells of windows begin and end, and the same with the edges of the picture."""
    cells, middle = count + WINDOW - 1, WINDOW // 2
    first, last = int(windows.min()), int(windows.max())
    begin, end = (first + middle) / cells, (last + middle + 1) / cells
    return begin, end, begin if first else 0.0, end if last < count - 1 else 1.0


def _connected(mask: np.ndarray, start: tuple[int, int]) -> np.ndarray:
    """Return the part of a mask that is connected with ``start``, over corners too."""
    part = np.zeros_like(mask)
    waiting = [start]
    while waiting:
        row, column = waiting.pop()
        if not (0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]) or part[row, column] or not mask[row, column]:
            continue
        part[row, column] = True
        waiting += [(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return part


def _overlap(one: Box, other: Box) -> float:
    across = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    down = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return across * down / (sum(areas) - across * down)
