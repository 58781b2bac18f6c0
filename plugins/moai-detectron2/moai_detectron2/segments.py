"""Convert detectron2's panoptic output to segments: pure functions, numpy only.

Knows: how detectron2 numbers things. The map is int32, 0 is void, segments count from 1; classes count from 0 for
things and for stuff separately, so a row's `category_id` means nothing without its `isthing`. Only things have a
score there; stuff gets the mean probability of its class over its pixels, computed from the semantic branch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moai.errors import ExpertError
from moai.types import Box, Mask, Segment

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Names:
    """Hold class names by `category_id`, from the metadata of the data set that the model was trained on."""

    things: tuple[str, ...]
    stuff: tuple[str, ...]

    def of(self, row: Mapping[str, Any]) -> str:
        """Name one row of `segments_info`."""
        names, number = self.things if row["isthing"] else self.stuff, int(row["category_id"])
        if not 0 <= number < len(names):
            kind = "thing" if row["isthing"] else "stuff"
            raise ExpertError(f"the model found {kind} class {number}, and its metadata names only {len(names)}")
        return names[number]


def with_scores(panoptic: np.ndarray, rows: Rows, logits: np.ndarray) -> list[dict[str, Any]]:
    """Add a score to each row of stuff.

    Args:
        panoptic: (H, W) ids.
        rows: detectron2's `segments_info`.
        logits: (classes, H, W) of the semantic branch.

    Returns:
        The rows in plain types: ``id``, ``isthing``, ``category_id``, ``score``.
    """
    plain = []
    for row in rows:
        number, score = int(row["category_id"]), row.get("score")
        if score is None:
            there = logits[:, panoptic == row["id"]].astype(np.float64)  # (classes, pixels)
            powers = np.exp(there - there.max(0)) if there.size else np.ones((len(logits), 1))
            score = (powers[number] / powers.sum(0)).mean()
        plain.append(
            {"id": int(row["id"]), "isthing": bool(row["isthing"]), "category_id": number, "score": float(score)}
        )
    return plain


def segments(panoptic: np.ndarray, rows: Rows, names: Names) -> tuple[Segment, ...]:
    """Convert the rows to segments, in their order; a row without a pixel is left out.

    Raises:
        ExpertError: two rows with one id, an id that means void, or a class without a name.
    """
    ids = [int(row["id"]) for row in rows]
    if len(set(ids)) != len(ids) or any(number < 1 for number in ids):
        raise ExpertError(f"detectron2 gave segments the ids {ids}; each must have its own, from 1")
    found = []
    for number, row in zip(ids, rows, strict=True):
        mask = panoptic == number
        if mask.any():
            score = round(min(max(float(row["score"]), 0.0), 1.0), 6)
            found.append(Segment(names.of(row), score, _around(mask), Mask.encode(mask), bool(row["isthing"])))
    return tuple(found)


def _around(mask: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    edges = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    x0, y0, x1, y1 = (round(float(edge), 4) for edge in edges)
    return x0, y0, x1, y1
