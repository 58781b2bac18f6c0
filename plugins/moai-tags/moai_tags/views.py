"""Cut out of a picture what a classifier gets: its middle, at two scales.

Knows: pixels. ImageNet's classifiers were trained and tested on the middle of pictures. What only one of two scales
shows is often an accident, and convinces half as much (the README has the figures).
"""

from __future__ import annotations

import numpy as np
from PIL import Image


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
    return np.stack([_middle(image, side, part * min(image.size)), _middle(image, side, float(min(image.size)))])


def _middle(image: Image.Image, side: int, taken: float) -> np.ndarray:
    left, top = (image.width - taken) / 2, (image.height - taken) / 2
    # The gap shrinks a large picture by whole factors first, which takes a fraction of the time.
    box, gap = (left, top, left + taken, top + taken), 3.0
    view = image.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=gap)
    return np.asarray(view, dtype=np.float32) / 255
