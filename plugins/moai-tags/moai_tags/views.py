"""Cut out of a picture what a classifier gets: its middle or a part, at two scales each.

Knows: pixels. ImageNet's classifiers were trained and tested on the middle of pictures. What only one of two scales
shows is often an accident, and convinces half as much (the README has the figures).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from moai.types import Box

MARGINS = (1.2, 1.6)  # sides of the two views of a part, in longer sides of its box
LEAST = 24  # pixels of the picture that a view of a part shows at least


def views(image: Image.Image, side: int, part: float) -> np.ndarray:
    """Return the two views of an RGB picture of any size.

    Args:
        image: the picture.
        side: of a view, in pixels.
        part: of the picture's shorter side that the closer view takes, as in the classifier's own preprocessing; the
            wider view takes all of it.

    Returns:
        ``(2, side, side, 3)`` float32 in [0, 1].
    """
    middle = image.width / 2, image.height / 2
    return np.stack([_square(image, side, middle, taken * min(image.size)) for taken in (part, 1.0)])


def part_views(image: Image.Image, box: Box, side: int) -> np.ndarray:
    """Return two square views of a part of the picture, with a little and with more of what is around it.

    Args:
        image: the picture.
        box: the part, in fractions of the picture.
        side: of a view, in pixels.

    Returns:
        ``(2, side, side, 3)`` float32 in [0, 1].
    """
    x0, y0, x1, y1 = box
    longer = max((x1 - x0) * image.width, (y1 - y0) * image.height)
    middle = (x0 + x1) / 2 * image.width, (y0 + y1) / 2 * image.height
    return np.stack([_square(image, side, middle, max(longer * margin, LEAST)) for margin in MARGINS])


def whole(image: Image.Image, side: int, unit: int, longest: int) -> np.ndarray:
    """Return the whole picture, its shorter side ``side`` pixels and both multiples of ``unit``.

    Returns:
        ``(height, width, 3)`` float32 in [0, 1]; a side of more than ``longest`` pixels is made as short as that.
    """
    factor = side / min(image.size)
    size = [min(max(round(length * factor / unit), side // unit) * unit, longest) for length in image.size]
    return _pixels(image, (size[0], size[1]), (0, 0, *image.size))


def _square(image: Image.Image, side: int, middle: Sequence[float], taken: float) -> np.ndarray:
    """Return a square of ``taken`` pixels around ``middle``, moved into the picture and no larger than it."""
    taken = min(taken, *image.size)
    left, top = (min(max(at - taken / 2, 0.0), length - taken) for at, length in zip(middle, image.size, strict=True))
    return _pixels(image, (side, side), (left, top, left + taken, top + taken))


def _pixels(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    # The gap shrinks a large picture by whole factors first, which takes a fraction of the time.
    view = image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    return np.asarray(view, dtype=np.float32) / 255
