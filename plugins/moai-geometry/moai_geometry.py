"""Relate what other experts found by its place in the plane: a scene graph without weights.

Knows: boxes, masks and their arrangement in the plane. Its words are *inside*, *on*, *touching*, *next to*, *left of*,
*right of*, *above* and *below*. Depth, actions and possession are unknown here, so there is never "in front of" or
"holding". Objects are drawn on a small grid (masks where there are masks, boxes elsewhere) and all pairs are
compared at once. Lines of text are objects too, named by their text. With ``aligned_only`` it compares boxes alone
and names each object's nearest neighbours in its row and column; with ``every_pair`` it gives every pair of boxes a
phrase, overlapping and diagonal ones too, and keeps the strongest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from moai_geometry_pairs import every_pair, turned
from PIL import Image
from pydantic import Field

import moai
from moai import Expert, Options
from moai.types import Box, Mask, Perception, Relation, describe

GRID = 160  # cells along the longer side of the picture: contact is decided on it, and finer changes little
REACH = 2  # cells within which two objects touch, about one part in a hundred of the picture
SAME = 0.8  # box overlap (IoU) from which two findings are one object, found by two experts
ENCLOSED = 0.7  # share of an object's rim that lies in the other: then it is inside
SUPPORTED = 0.5  # share of the cells just below an object that belong to the other: then it is on it
FULL_SIDE = 4.0  # share of the rim in contact, times this, is the score: about 1 for a square that shares a side
ALIGNED = 0.5  # share of the smaller object's extent that two must have in common to stand in one row or column
INTO = 0.25  # share of the smaller object's extent by which neighbours in a row may reach into each other
NEAR = 0.25  # gap, relative to the mean size of the two, up to which things side by side are "next to"
PREDICATES = ("inside", "on", "touching", "next to", "left of", "right of", "above", "below")


class Thing(NamedTuple):
    """Describe an object to relate: its name, box, mask if known, and whether it can be a subject (stuff cannot)."""

    name: str
    box: Box
    mask: Mask | None = None
    countable: bool = True


class Geometry(Expert):
    """Relate objects by geometry; `score` measures how clearly the arrangement fits the word (see `relate`)."""

    name = "geometry"
    role = "scene_graph"
    version = "2"
    requires = ("panoptic", "open_world", "ocr")
    install = "pip install moai-geometry"
    licence = "Apache-2.0"

    class Options(Options):
        per_subject: int = Field(2, ge=1)
        """At most this many relations with the same subject, the best first."""
        max_relations: int = Field(20, ge=1)
        """At most this many relations per picture, the best first."""
        min_score: float = Field(0.3, ge=0, le=1)
        """Relations with a lower score are left out."""
        max_objects: int = Field(60, ge=2)
        """Only this many objects are compared, those with the largest boxes."""
        texts: bool = True
        """Lines of text take part, by their words; with false, only what panoptic and open-world experts found."""
        aligned_only: bool = False
        """Say only left of and above, between nearest neighbours in one row or column; `per_subject` has no part in
        it, and `max_relations` keeps the nearest."""
        both_ways: bool = False
        """With `aligned_only` or `every_pair`: say "b right of a" beside "a left of b", and so on for every side."""
        every_pair: bool = False
        """Compare boxes alone, each with each of another name: inside, on, overlapping (with the side, where it is
        clear), or one of eight sides such as "above left of"; `max_relations` keeps the strongest, and `per_subject`
        has no part in it."""

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Relate what `context` holds; of a picture only the proportions are used."""
        return [self.to_perception(perceived, image.size) for image, perceived in zip(images, context, strict=True)]

    def to_perception(self, perceived: Perception, size: tuple[int, int]) -> Perception:
        """Relate the objects of a perception; ``size`` is the picture's (width, height). A pure function."""
        things = collect(perceived, self.options.max_objects, self.options.texts)
        if len(things) < 2:
            return Perception()
        if self.options.every_pair:
            return Perception(relations=tuple(self._every_pair(things, size)))
        if self.options.aligned_only:
            return Perception(relations=tuple(self._aligned(things, size)))
        codes, scores = relate(things, size)
        chosen = best(scores, self.options.per_subject, self.options.min_score)[: self.options.max_relations]
        relations = [_relation(things[i], things[j], PREDICATES[codes[i, j]], scores[i, j]) for i, j in chosen]
        return Perception(relations=tuple(relations))

    def _aligned(self, things: Sequence[Thing], size: tuple[int, int]) -> list[Relation]:
        options = self.options
        found = [pair for pair in neighbours(things, size) if pair[3] >= options.min_score]
        kept = sorted(found, key=lambda pair: pair[4])[: options.max_relations]
        chosen = [pair[:4] for pair in kept]
        if options.both_ways:
            # In PREDICATES, right of follows left of, and below follows above.
            chosen = [each for i, j, code, score, _ in kept for each in ((i, j, code, score), (j, i, code + 1, score))]
            chosen = chosen[: options.max_relations]
        ordered = sorted(chosen, key=lambda pair: (pair[1], pair[2]))
        return [_relation(things[i], things[j], PREDICATES[code], score) for i, j, code, score in ordered]

    def _every_pair(self, things: Sequence[Thing], size: tuple[int, int]) -> list[Relation]:
        boxes = np.array([thing.box for thing in things]) * np.tile(np.array(size) / max(size), 2)
        pairs = every_pair([t.name for t in things], boxes.tolist(), [t.countable for t in things])
        pairs = [pair for pair in pairs if pair.score >= self.options.min_score]
        if self.options.both_ways:
            pairs = [each for pair in pairs for each in (pair, turned(pair)) if each is not None]
        kept = pairs[: self.options.max_relations]
        return [_relation(things[i], things[j], predicate, score) for i, predicate, j, score in kept]


def collect(perceived: Perception, limit: int, texts: bool = True) -> list[Thing]:
    """Collect the objects of a perception, one entry each: a detection that is already a segment is dropped.

    Lines of text come last, and stay even where something else fills the same box: a sign is not what it says.
    """
    lines = [Thing(line.text, _bounds(line.polygon)) for line in perceived.texts if texts and line.polygon]
    return _objects(perceived, limit) + lines[:limit]


def _objects(perceived: Perception, limit: int) -> list[Thing]:
    things = [Thing(describe(s), s.box, s.mask, s.is_thing) for s in perceived.segments]
    things += [Thing(d.label, d.box) for d in perceived.detections]
    if len(things) > limit:
        large = sorted(range(len(things)), key=lambda k: -_area(things[k].box))[:limit]
        things = [things[k] for k in sorted(large)]
    if not things:
        return []
    same = _overlap(np.array([thing.box for thing in things])) >= SAME
    kept: list[int] = []
    for index in range(len(things)):
        if not same[index, kept].any():
            kept.append(index)
    return [things[index] for index in kept]


def relate(things: Sequence[Thing], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Compare all pairs of N things.

    Returns:
        ``(N, N)`` indices into `PREDICATES` and ``(N, N)`` scores in [0, 1]; row is subject, column is object. A
        pair has a score in one direction only: the contained, supported or smaller thing is the subject.
        *inside*: share of the rim that is enclosed. *on*: share of the lower edge that is supported (of a thing
        enclosed by stuff: share of the rim). *touching*: length of the contact, about 1 for a full side. *next to* and
        the four directions: 1 for close and exactly aligned, down to a half on the diagonal, and again down to a half
        across the picture.
    """
    width, height = (round(GRID * side / max(size)) for side in size)
    grid = _draw(things, max(width, 1), max(height, 1))
    boxes = np.array([thing.box for thing in things]) * np.tile(np.array(size) / max(size), 2)
    inside, on, touching = _contacts(grid)
    area = grid.sum((1, 2))
    smaller = (area[:, None] < area) | ((area[:, None] == area) & np.triu(np.ones((len(things),) * 2, bool)))
    enclosed = (inside >= ENCLOSED) & smaller
    supported = (on >= SUPPORTED) & ~enclosed & ~enclosed.T
    touches = (touching >= 0.3) & ~enclosed & ~supported
    side, direction, near = _directions(boxes)
    codes = np.select([enclosed, supported, touches, near], [0, 1, 2, 3], direction)
    scores = np.select([enclosed, supported, touches], [inside, on, touching], side)

    countable = np.array([thing.countable for thing in things])
    stuff = countable[:, None] & ~countable  # a picture is on a wall, not inside it; nothing is left of the sky
    codes[stuff & enclosed] = PREDICATES.index("on")
    first = enclosed | supported
    keep = np.where(first | first.T, first & ~(first.T & ~smaller), np.where(stuff, touches, smaller))
    keep &= countable[:, None]
    np.fill_diagonal(keep, False)
    return codes, np.clip(np.where(keep, scores, 0), 0, 1)


def neighbours(things: Sequence[Thing], size: tuple[int, int]) -> list[tuple[int, int, int, float, float]]:
    """Find nearest neighbours in a row or column, by boxes; stuff has no part in it.

    Returns:
        ``(subject, object, index into PREDICATES, score, gap)``, where the subject is left of or above the object and
        neither has anything nearer on that side. The score is the share of the smaller one's extent that they have in
        common across; the gap is in parts of the picture's longer side.
    """
    boxes = np.array([thing.box for thing in things]) * np.tile(np.array(size) / max(size), 2)
    countable = np.array([thing.countable for thing in things])
    found = []
    for axis, predicate in ((0, "left of"), (1, "above")):
        low, high = boxes[:, axis], boxes[:, axis + 2]
        across = _common(boxes[:, 1 - axis], boxes[:, 3 - axis])
        gap = low[None, :] - high[:, None]  # (N, N): from the far edge of i to the near edge of j
        room = -INTO * np.minimum((high - low)[:, None], high - low)
        ahead = (low + high)[:, None] < (low + high)
        near = np.where((across >= ALIGNED) & (gap >= room) & ahead & countable & countable[:, None], gap, np.inf)
        mutual = np.isfinite(near) & (near == near.min(1, keepdims=True)) & (near == near.min(0))
        code = PREDICATES.index(predicate)
        found += [(int(i), int(j), code, float(across[i, j]), float(gap[i, j])) for i, j in np.argwhere(mutual)]
    return found


def best(scores: np.ndarray, per_subject: int, least: float) -> list[tuple[int, int]]:
    """Select ``(subject, object)`` of the best pairs, the best first; equal scores keep the order of the objects."""
    pairs: list[tuple[int, int]] = []
    for i, row in enumerate(scores):
        order = np.argsort(-row, kind="stable")[:per_subject]
        pairs += [(i, int(j)) for j in order if row[j] >= least and row[j] > 0]
    return sorted(pairs, key=lambda pair: -scores[pair])


def _relation(subject: Thing, object_: Thing, predicate: str, score: float) -> Relation:
    return Relation(subject.name, predicate, object_.name, round(float(score), 4), subject.box, object_.box)


def _bounds(polygon: Sequence[tuple[float, float]]) -> Box:
    xs, ys = zip(*polygon, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _common(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Compute ``(N, N)`` in [0, 1]: overlap of all pairs of ``(N,)`` intervals, as a share of the shorter one."""
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    return np.clip(shared / np.maximum(np.minimum((high - low)[:, None], high - low), 1e-9), 0, 1)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(boxes: np.ndarray) -> np.ndarray:
    """Compute intersection over union of all pairs of ``(N, 4)`` boxes."""
    low = np.maximum(boxes[:, None, :2], boxes[:, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return shared / np.maximum(area[:, None] + area - shared, 1e-9)


def _draw(things: Sequence[Thing], width: int, height: int) -> np.ndarray:
    """Draw each thing on the grid, at least one cell of it: ``(N, height, width)`` bool."""
    grid = np.zeros((len(things), height, width), dtype=bool)
    for layer, thing in zip(grid, things, strict=True):
        x0, y0, x1, y1 = np.array(thing.box) * (width, height, width, height)
        x0, y0 = min(int(x0 + 0.5), width - 1), min(int(y0 + 0.5), height - 1)
        x1, y1 = max(int(x1 + 0.5), x0 + 1), max(int(y1 + 0.5), y0 + 1)
        layer[y0:y1, x0:x1] = True if thing.mask is None else _sample(thing.mask, x0, y0, x1, y1, width, height)
        if not layer.any():
            layer[(y0 + y1) // 2, (x0 + x1) // 2] = True
    return grid


def _sample(mask: Mask, x0: int, y0: int, x1: int, y1: int, width: int, height: int) -> np.ndarray:
    """Sample the mask at the cell centres of a part of the grid, without decoding the whole mask."""
    column = ((np.arange(x0, x1) + 0.5) / width * mask.width).astype(int)
    row = ((np.arange(y0, y1) + 0.5) / height * mask.height).astype(int)
    run = np.searchsorted(np.cumsum(mask.counts), column * mask.height + row[:, None], side="right")
    return run % 2 == 1  # runs alternate, the first is outside


def _contacts(grid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute ``(N, N)`` shares: rim of i enclosed by j; lower edge of i supported by j; contact of i and j."""
    count, height, _ = grid.shape
    wide = grid.copy()
    below = np.zeros_like(grid)
    for step in range(1, REACH + 1):
        wide[:, step:] |= grid[:, :-step]
        wide[:, :-step] |= grid[:, step:]
        below[:, step:] |= grid[:, :-step]
    tall = wide.copy()
    for step in range(1, REACH + 1):
        wide[:, :, step:] |= tall[:, :, :-step]
        wide[:, :, :-step] |= tall[:, :, step:]
    rim = wide & ~grid
    bottom = height - 1 - np.argmax(grid.any(2)[:, ::-1], axis=1)
    below &= ~grid & (np.arange(height) >= bottom[:, None])[:, :, None]
    cells = _pack(grid)
    enclosed = _shared(_pack(rim), cells) / np.maximum(rim.sum((1, 2)), 1)[:, None]
    supported = _shared(_pack(below), cells) / np.maximum(below.sum((1, 2)), 1)[:, None]
    return enclosed, supported, np.clip(FULL_SIDE * np.maximum(enclosed, enclosed.T), 0, 1)


def _pack(grid: np.ndarray) -> np.ndarray:
    bits = np.packbits(grid.reshape(len(grid), -1), axis=1)
    return np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)


def _shared(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Count cells in common, ``(N, N)``. Counting bits is exact and, unlike a matrix product, starts no threads."""
    return np.stack([np.bitwise_count(columns & row).sum(1, dtype=np.int64) for row in rows])


def _directions(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score, predicate index and "close, side by side" of all pairs of ``(N, 4)`` boxes in square units."""
    size = boxes[:, 2:] - boxes[:, :2]
    delta = (boxes[:, None, :2] + boxes[:, None, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2  # centre of i minus j's
    mean = np.maximum((size[:, None] + size) / 2, 1e-6)
    gap = np.abs(delta) - mean  # (N, N, 2); negative where the two overlap along the axis
    horizontal = gap[..., 0] >= gap[..., 1]
    free = np.clip(gap, 0, None)
    apart = free.sum(-1)
    clear = np.where(apart > 0, free.max(-1) / np.maximum(apart, 1e-9), 0.5 * np.abs(delta / mean).max(-1).clip(0, 1))
    score = clear * (1 - 0.5 * np.minimum(np.hypot(free[..., 0], free[..., 1]) / np.sqrt(2), 1))
    codes = np.where(horizontal, np.where(delta[..., 0] < 0, 4, 5), np.where(delta[..., 1] < 0, 6, 7))
    level = -gap[..., 1] >= 0.5 * np.minimum(size[:, None, 1], size[:, 1])  # side by side
    near = (gap[..., 0] >= 0) & level & (gap[..., 0] <= NEAR * mean.mean(-1))
    return score, codes, near


@moai.hookimpl
def register_experts(register) -> None:
    """Register the class."""
    register(Geometry)
