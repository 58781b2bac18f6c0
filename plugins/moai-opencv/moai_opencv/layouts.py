"""Read what a detector's output means: boxes, scores and classes, in one of the layouts that exported networks have.

Knows: arrays. Boxes are ``(N, 4)``, ``x0, y0, x1, y1``, in fractions of the network's input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moai_opencv.findings import Findings

Shape = tuple[int, ...]


class Layout(NamedTuple):
    """Describe one layout."""

    written: str
    """Its shape, for messages; C is the number of classes."""
    fits: Callable[[Shape, int], bool]
    """Whether an array of a shape can be it, given the number of classes."""
    read: Callable[[np.ndarray, tuple[int, int]], Findings]
    """The findings in an array, given width and height of the network's input in pixels."""


def _read_ssd(output: np.ndarray, size: tuple[int, int]) -> Findings:
    """Read rows of picture, class, score and box in fractions; the score of unused rows is 0."""
    rows = output.reshape(-1, 7).astype(np.float64)
    rows = rows[rows[:, 2] != 0]
    return Findings(rows[:, 3:], rows[:, 2], rows[:, 1])


def _read_yolo(output: np.ndarray, size: tuple[int, int]) -> Findings:
    """Read columns of centre and size in pixels, and a score per class, of which the best counts."""
    columns = output[0].astype(np.float64)
    (x, y, width, height), scores = columns[:4], columns[4:]
    corners = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    return Findings(corners / np.array([*size, *size]), scores.max(axis=0), scores.argmax(axis=0))


LAYOUTS = {
    "ssd": Layout("1 x 1 x N x 7", lambda shape, classes: len(shape) == 4 and shape[3] == 7, _read_ssd),
    "yolo": Layout("1 x (4 + C) x N", lambda shape, classes: len(shape) == 3 and shape[1] == 4 + classes, _read_yolo),
}
