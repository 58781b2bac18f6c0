"""Convert scores of queries to objects and relations between them: pure functions, numpy only.

Knows: PSGTR's output. Each query names a subject, a predicate and an object of its own, so the person who rides and
the person who wears are found twice; here they become one. OpenPSG draws all masks first and compares those; here
queries are chosen by score first, so that only what is kept need be drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moai.types import Box
from moai_psgtr.names import is_thing

Raw = Mapping[str, np.ndarray]
MOST = 100  # pairs of query and predicate that are considered, the best first; as published


@dataclass(frozen=True)
class Rules:
    """Hold the least scores, and the overlap from which two findings of one class are one object."""

    min_score: float
    min_object_score: float
    overlap: float
    mask_threshold: float


@dataclass(frozen=True)
class Triplet:
    """Hold one query's finding: scores in [0, 1], classes and predicate as numbers."""

    query: int
    labels: tuple[int, int]  # subject, object
    scores: tuple[float, float]
    predicate: int
    score: float  # of the predicate


@dataclass
class Thing:
    """Hold one object, found once or several times; `mask` holds logits, (h, w)."""

    label: int
    score: float
    box: Box
    mask: np.ndarray | None


def choose(raw: Raw, rules: Rules) -> list[Triplet]:
    """Select the triplets whose scores suffice, the best predicate first.

    Args:
        raw: logits ``subject`` and ``object`` (Q, C), "nothing" last, and ``predicate`` (Q, P), "no relation" first.
        rules: the least scores.
    """
    shares = [softmax(raw[role])[:, :-1] for role in ("subject", "object")]
    predicates = softmax(raw["predicate"])[:, 1:]
    found = []
    for flat in np.argsort(-predicates, axis=None, kind="stable")[:MOST]:
        query, predicate = divmod(int(flat), predicates.shape[1])
        labels = tuple(int(share[query].argmax()) for share in shares)
        scores = tuple(float(share[query, label]) for share, label in zip(shares, labels, strict=True))
        score = float(predicates[query, predicate])
        if score >= rules.min_score and min(scores) >= rules.min_object_score:
            found.append(Triplet(query, labels, scores, predicate, score))
    return found


def queries_of(triplets: Sequence[Triplet]) -> list[int]:
    """List the queries whose masks are needed, each once, in order."""
    return list(dict.fromkeys(triplet.query for triplet in triplets))


def unite(triplets: Sequence[Triplet], raw: Raw, rules: Rules) -> tuple[list[Thing], list[tuple[int, int]]]:
    """Make one object of the findings of the same one.

    Two findings of a class are one object when their masks, or without masks their boxes, overlap by more than
    ``rules.overlap``; of stuff there is one per picture. A triplet's own subject and object stay two things.

    Returns:
        The objects, and for each triplet the places of its subject and object among them.
    """
    found = [
        (triplet.scores[side], index, side) for index, triplet in enumerate(triplets) for side in (0, 1)
    ]  # the surest first, so that its box stands for the object
    things: list[Thing] = []
    places: dict[tuple[int, int], int] = {}
    for score, index, side in sorted(found, key=lambda item: -item[0]):
        triplet = triplets[index]
        new = Thing(triplet.labels[side], score, _box(raw, triplet.query, side), _mask(raw, triplet.query, side))
        partner = places.get((index, 1 - side))
        place = next((p for p, thing in enumerate(things) if p != partner and _same(thing, new, rules)), None)
        if not is_thing(new.label):
            place = next((p for p, thing in enumerate(things) if thing.label == new.label), None)
        if place is None:
            place = len(things)
            things.append(new)
        elif new.mask is not None and not is_thing(new.label):
            things[place].mask = np.maximum(things[place].mask, new.mask)
        places[index, side] = place
    return things, [(places[index, 0], places[index, 1]) for index in range(len(triplets))]


def areas(things: Sequence[Thing], threshold: float) -> list[np.ndarray]:
    """Compute bool masks without overlap: a pixel is in the surest mask above ``threshold``; some may be empty."""
    if not things:
        return []
    logits = np.stack([thing.mask for thing in things])
    best = logits.argmax(0)
    inside = logits.max(0) > np.log(threshold / (1 - threshold))
    return [inside & (best == place) for place in range(len(things))]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Compute the softmax over the last axis, in double precision."""
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def corners(box: np.ndarray) -> Box:
    """Convert (cx, cy, w, h) to (x0, y0, x1, y1), clipped to the picture."""
    cx, cy, w, h = (float(value) for value in box)
    edges = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    x0, y0, x1, y1 = (round(min(max(edge, 0.0), 1.0), 4) for edge in edges)
    return x0, y0, x1, y1


def _same(one: Thing, other: Thing, rules: Rules) -> bool:
    if one.label != other.label:
        return False
    if one.mask is None or other.mask is None:
        return _overlap(one.box, other.box) > rules.overlap
    least = np.log(rules.mask_threshold / (1 - rules.mask_threshold))
    first, second = one.mask > least, other.mask > least
    either = np.count_nonzero(first | second)
    return either > 0 and np.count_nonzero(first & second) / either > rules.overlap


def _overlap(one: Box, other: Box) -> float:
    across = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    down = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas_ = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return across * down / (sum(areas_) - across * down) if across * down > 0 else float(one == other)


def _box(raw: Raw, query: int, side: int) -> Box:
    return corners(raw[("subject_box", "object_box")[side]][query])


def _mask(raw: Raw, query: int, side: int) -> np.ndarray | None:
    if "masks" not in raw:
        return None
    place = int(np.flatnonzero(raw["mask_queries"] == query)[0])
    return raw["masks"][place, side]
