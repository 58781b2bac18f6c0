"""Convert a picture to what a network reads, and its boxes back to fractions of the picture.

Knows: pixels and OpenCV's resizing; nothing of networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

GREY = 114  # of the margins, as the YOLO family is trained with


@dataclass(frozen=True)
class Placement:
    """Hold where the picture lies in a network's input, in fractions of the input: its corner and its size."""

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0

    def undo(self, boxes: np.ndarray) -> np.ndarray:
        """Convert ``(N, 4)`` boxes, fractions of the input, to fractions of the picture; beyond its edge is kept."""
        corner = np.array([self.left, self.top] * 2)
        return (boxes - corner) / np.array([self.width, self.height] * 2)


@dataclass(frozen=True)
class NetworkInput:
    """Describe what a network reads: its size, and its numbers, which are ``(pixel - mean) * scale``."""

    width: int
    height: int
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # red, green, blue
    rgb: bool = True  # the order of the channels; else blue comes first
    fit: Literal["stretch", "pad"] = "stretch"

    def blob(self, image: Image.Image) -> tuple[np.ndarray, Placement]:
        """Convert an RGB picture of any size to ``(1, 3, height, width)`` float32, and say where it lies in it."""
        pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        width, height = self._size_of(*image.size)
        left, top = (self.width - width) // 2, (self.height - height) // 2
        canvas = np.full((self.height, self.width, 3), GREY, dtype=np.uint8)
        canvas[top : top + height, left : left + width] = resized(pixels, width, height)
        numbers = (canvas.astype(np.float32) - np.float32(self.mean)) * np.float32(self.scale)
        ordered = numbers if self.rgb else numbers[:, :, ::-1]
        placement = Placement(left / self.width, top / self.height, width / self.width, height / self.height)
        return np.ascontiguousarray(ordered.transpose(2, 0, 1)[None]), placement

    def _size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return how large a picture is in the input, in pixels."""
        if self.fit == "stretch":
            return self.width, self.height
        factor = min(self.width / width, self.height / height)
        return max(round(width * factor), 1), max(round(height * factor), 1)


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize by OpenCV's bilinear interpolation; a picture over twice that size is averaged to twice the size before.

    Bilinear interpolation alone reads four pixels for each one that it makes, and skips most of a large picture.
    """
    import cv2

    now = pixels.shape[1], pixels.shape[0]
    twice = min(now[0], 2 * width), min(now[1], 2 * height)
    if twice != now:
        pixels = cv2.resize(pixels, twice, interpolation=cv2.INTER_AREA)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
