"""Convert a detector's boxes to detections: clipped, normalised, without duplicates, the best first.

Knows: pixel boxes (x0, y0, x1, y1), scores and class ids as numpy arrays; nothing of the engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moai.types import Detection


@dataclass(frozen=True)
class Found:
    """Hold N findings of one picture: ``(N, 4)`` boxes in units of its sides, ``(N,)`` scores, class ids."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def rows(self, keep: np.ndarray) -> Found:
        """Select the findings at ``keep``: indices or a bool mask."""
        return Found(self.boxes[keep], self.scores[keep], self.labels[keep])


def join(parts: Sequence[Found]) -> Found:
    """Join all findings of several passes over the same picture."""
    columns = zip(*((part.boxes, part.scores, part.labels) for part in parts), strict=True)
    return Found(*(np.concatenate(column) for column in columns))


def suppress(found: Found, overlap: float, across_labels: bool = False) -> Found:
    """Suppress overlapping boxes (non-maximum suppression), per label or across all labels; the best first.

    Args:
        found: findings.
        overlap: of two boxes with a larger intersection over union the one with the lower score goes.
        across_labels: also between different labels, as a vocabulary with synonyms needs it.
    """
    import torch
    from torchvision.ops import batched_nms

    groups = np.zeros_like(found.labels) if across_labels else found.labels
    arrays = (np.ascontiguousarray(a) for a in (found.boxes, found.scores, groups))
    keep = batched_nms(*(torch.from_numpy(a) for a in arrays), overlap)
    return found.rows(keep.numpy())


def detections(found: Found, names: Sequence[str], limit: int) -> tuple[Detection, ...]:
    """Convert the ``limit`` best findings, clipped to the picture, to detections; those outside it are left out."""
    order = np.argsort(-found.scores, kind="stable")
    chosen = []
    for i in order:
        x0, y0, x1, y1 = (round(min(max(float(edge), 0.0), 1.0), 4) for edge in found.boxes[i])
        if x0 < x1 and y0 < y1:
            score = round(min(max(float(found.scores[i]), 0.0), 1.0), 6)
            chosen.append(Detection(names[int(found.labels[i])], score, (x0, y0, x1, y1)))
    return tuple(chosen[:limit])
