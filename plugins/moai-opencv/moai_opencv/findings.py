"""Select the findings of one picture: strong enough, each thing once, the best first.

Knows: boxes, scores and class numbers as arrays, and OpenCV's non-maximum suppression; nothing of networks or names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Findings:
    """Hold N findings: ``(N, 4)`` boxes in fractions of a picture, ``(N,)`` scores and ``(N,)`` class numbers."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def rows(self, chosen: np.ndarray) -> Findings:
        """Select the findings at ``chosen``: indices or a bool mask."""
        return Findings(self.boxes[chosen], self.scores[chosen], self.classes[chosen])

    @property
    def finite(self) -> bool:
        """True when every number is one."""
        return all(bool(np.isfinite(array).all()) for array in (self.boxes, self.scores, self.classes))

    def strong(self, min_score: float) -> Findings:
        """Drop those with a lower score, and those without any; the best come first."""
        kept = self.rows((self.scores >= min_score) & (self.scores > 0))
        return kept.rows(np.argsort(-kept.scores, kind="stable"))

    def each_once(self, max_overlap: float, across_classes: bool = False) -> Findings:
        """Of two boxes whose intersection over union is larger, drop the one with the lower score.

        Args:
            max_overlap: 1 drops nothing.
            across_classes: compare boxes of different classes too.
        """
        groups = np.zeros_like(self.classes) if across_classes else self.classes
        chosen = [_suppressed(self, np.flatnonzero(groups == group), max_overlap) for group in np.unique(groups)]
        return self.rows(np.sort(np.concatenate([np.empty(0, dtype=np.int64), *chosen])))


def _suppressed(found: Findings, members: np.ndarray, max_overlap: float) -> np.ndarray:
    """Return those of the indices ``members`` that OpenCV's non-maximum suppression keeps."""
    import cv2

    boxes = found.boxes[members]
    corner_and_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(corner_and_size.tolist(), found.scores[members].tolist(), 0.0, max_overlap)
    return members[np.asarray(kept, dtype=np.int64).reshape(-1)]
