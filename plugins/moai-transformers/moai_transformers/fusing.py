"""Convert a panoptic engine's map and rows to regions, with stuff fused: pure functions, numpy only.

Knows: how the engines of transformers number things. Mask2Former counts from 1 with 0 for void, EoMT from 0 with -1;
both return a float map full of -1 when they found nothing. Which number means void is therefore never asked: a
region is what a row names. Fusing is done here, because transformers' own (`label_ids_to_fuse`) gives two segments
the same id when a thing stands between two pieces of stuff.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from moai.errors import ExpertError
from moai.types import Box, Mask, Segment


class Region(NamedTuple):
    """Hold one segment: its class, score and ``(H, W)`` bool mask."""

    label_id: int
    score: float
    mask: np.ndarray


def regions(segmentation: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> list[Region]:
    """Read an engine's result, made without fusing.

    Args:
        segmentation: ``(H, W)`` ids.
        rows: for each segment its ``id``, ``label_id`` and ``score``.

    Returns:
        In the engine's order; a row without a pixel is left out.

    Raises:
        ExpertError: two rows share an id, so that their pixels cannot be told apart.
    """
    ids = [int(row["id"]) for row in rows]
    if len(set(ids)) != len(ids):
        raise ExpertError("the engine gave two segments the same id; run it without label_ids_to_fuse")
    found = [Region(int(r["label_id"]), float(r["score"]), segmentation == i) for i, r in zip(ids, rows, strict=True)]
    return [region for region in found if region.mask.any()]


def fuse(found: Sequence[Region], stuff: Collection[int]) -> list[Region]:
    """Fuse all regions of the same class in ``stuff``: there is one sky. The best score stands for the whole."""
    fused: list[Region] = []
    first: dict[int, int] = {}  # stuff class -> its place in `fused`
    for region in found:
        at = first.get(region.label_id)
        if region.label_id not in stuff or at is None:
            if region.label_id in stuff:
                first[region.label_id] = len(fused)
            fused.append(region)
        else:
            known = fused[at]
            fused[at] = Region(known.label_id, max(known.score, region.score), known.mask | region.mask)
    return fused


def index_map(found: Sequence[Region], size: tuple[int, int]) -> np.ndarray:
    """Draw ``(height, width)`` int32: 0 where nothing was found, ``i + 1`` where ``found[i]`` is."""
    ids = np.zeros(size, dtype=np.int32)
    for number, region in enumerate(found, start=1):
        ids[region.mask] = number
    return ids


def segment(region: Region, names: Mapping[int, str], stuff: Collection[int]) -> Segment:
    """Convert the region to moai's segment; the box is that of the mask's pixels, edges included."""
    score = round(min(max(region.score, 0.0), 1.0), 6)
    name, is_thing = names[region.label_id], region.label_id not in stuff
    return Segment(name, score, box_of(region.mask), Mask.encode(region.mask), is_thing)


def box_of(mask: np.ndarray) -> Box:
    """Compute the normalised box around the pixels of a ``(H, W)`` mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    edges = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    x0, y0, x1, y1 = (round(float(edge), 4) for edge in edges)
    return x0, y0, x1, y1
