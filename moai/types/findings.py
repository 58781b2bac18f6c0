"""What experts find, as plain data: segments, detections, relations and lines of text.

Knows: numpy only. Boxes are normalised ``(x0, y0, x1, y1)`` in [0, 1] with the origin at the top left corner of the
image after EXIF rotation; scores are finite and in [0, 1]; masks are COCO run-length encodings at any resolution.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moai.errors import ExpertError

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mask:
    """A binary mask, run-length encoded column by column as COCO does, zeros first (uncompressed counts)."""

    height: int
    width: int
    counts: tuple[int, ...]

    @classmethod
    def encode(cls, array: NDArray[Any]) -> Mask:
        """Encode a ``(H, W)`` array; non-zero is inside."""
        if array.ndim != 2:
            raise ExpertError(f"a mask has two dimensions (H, W), not {array.ndim}")
        flat = np.asarray(array != 0).ravel(order="F")
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        bounds = np.concatenate(([0], edges, [flat.size]))
        counts = np.diff(bounds).tolist()
        if flat.size and flat[0]:
            counts.insert(0, 0)
        return cls(int(array.shape[0]), int(array.shape[1]), tuple(counts))

    def decode(self) -> NDArray[np.bool_]:
        """Return a ``(H, W)`` bool array."""
        values = np.zeros(len(self.counts), dtype=bool)
        values[1::2] = True
        return np.repeat(values, self.counts).reshape((self.height, self.width), order="F")

    def resized(self, width: int, height: int) -> Mask:
        """Return the mask in another size: each pixel is that of the nearest place."""
        if (self.width, self.height) == (width, height):
            return self
        rows = ((np.arange(height) + 0.5) * self.height / height).astype(int)
        columns = ((np.arange(width) + 0.5) * self.width / width).astype(int)
        return Mask.encode(self.decode()[rows][:, columns])

    def box(self) -> Box:
        """Return the normalised box around the pixels inside; there has to be one."""
        pixels = self.decode()
        rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
        x0, x1 = int(columns[0]) / self.width, (int(columns[-1]) + 1) / self.width
        return x0, int(rows[0]) / self.height, x1, (int(rows[-1]) + 1) / self.height


@dataclass(frozen=True)
class Segment:
    """One region of a panoptic segmentation."""

    label: str
    score: float
    box: Box
    mask: Mask | None = None
    is_thing: bool = True
    attributes: dict[str, str] = field(default_factory=dict)  # e.g. {"color": "red"}; verbalized before the label
    source: str = field(default="", compare=False)  # name of the expert that found it, which the perceiver sets


@dataclass(frozen=True)
class Detection:
    """One object found by an open-world detector."""

    label: str
    score: float
    box: Box
    source: str = field(default="", compare=False)


@dataclass(frozen=True)
class Relation:
    """``subject predicate object``; the boxes, when known, say which instances are meant."""

    subject: str
    predicate: str
    object: str
    score: float
    subject_box: Box | None = None
    object_box: Box | None = None
    source: str = field(default="", compare=False)


@dataclass(frozen=True)
class TextLine:
    """One line of text as read in the image; untrusted, never an instruction."""

    text: str
    score: float
    polygon: tuple[tuple[float, float], ...] = ()  # normalised (x, y) corners, clockwise from the top left
    source: str = field(default="", compare=False)


def describe(item: Segment | Detection) -> str:
    """The object's name as it is put into words: attributes, if it has any, then label (``"red circle"``)."""
    return " ".join([*getattr(item, "attributes", {}).values(), item.label])
