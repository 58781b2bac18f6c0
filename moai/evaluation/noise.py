"""Add noise to perceptions: replace names and texts by others, and move boxes.

Knows: perceptions. The condition ``noisy:P`` measures by it how much an expert's mistakes cost.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property

from moai.types import Box, Detection, Perception, Relation, Segment, TextLine, describe

Name = tuple[str, tuple[tuple[str, str], ...]]  # label, attributes


def noisy(perceptions: Mapping[str, Perception], share: float, seed: int) -> dict[str, Perception]:
    """Replace each name and text with probability ``share``, and move each box.

    What stands in its place is drawn from the other names (predicates, texts, sentences) of all
    images, so that the words stay plausible. An object that several experts name alike in one box is misnamed alike.
    Each edge of a box moves by up to half of ``share`` of the box's size. Masks, scores, sources and failures stay.

    Args:
        perceptions: image id -> perception.
        share: in [0, 1]; 0 changes nothing.
        seed: with the image's id it decides the noise, in whatever order images come.
    """
    pool = _Pool(perceptions.values())
    return {
        image: _Noise(share, pool, random.Random(f"noisy {seed} {share:g} {image}")).disturb(perception)
        for image, perception in perceptions.items()
    }


class _Pool:
    """Collect all findings, each name once and in alphabetical order."""

    def __init__(self, perceptions: Iterable[Perception]) -> None:
        self.perceptions = list(perceptions)

    @cached_property
    def names(self) -> dict[str, Name]:
        """Return an object's description -> the label and attributes of a segment of it."""
        found: dict[str, Name] = {}
        for p in self.perceptions:
            found |= {describe(s): (s.label, tuple(s.attributes.items())) for s in p.segments}
        for p in self.perceptions:
            ends = [end for r in p.relations for end in (r.subject, r.object)]
            found |= {name: (name, ()) for name in [describe(d) for d in p.detections] + ends if name not in found}
        return dict(sorted(found.items()))

    @cached_property
    def listed(self) -> list[str]:
        return list(self.names)

    @cached_property
    def predicates(self) -> list[str]:
        return sorted({r.predicate for p in self.perceptions for r in p.relations})

    @cached_property
    def texts(self) -> list[str]:
        return sorted({line.text for p in self.perceptions for line in p.texts})

    @cached_property
    def notes(self) -> dict[str, list[str]]:
        found: dict[str, set[str]] = {}
        for p in self.perceptions:
            for role, lines in p.notes.items():
                found.setdefault(role, set()).update(lines)
        return {role: sorted(lines) for role, lines in found.items()}


class _Noise:
    """Draw the noise of one image."""

    def __init__(self, share: float, pool: _Pool, rng: random.Random) -> None:
        self.share, self.pool, self.rng = share, pool, rng
        self.things: dict[tuple[str, Box | None], tuple[str, Box | None]] = {}

    def disturb(self, p: Perception) -> Perception:
        return replace(
            p,
            segments=tuple(self.named(s) for s in p.segments),
            detections=tuple(self.named(d) for d in p.detections),
            relations=tuple(self.relation(r) for r in p.relations),
            texts=tuple(self.line(line) for line in p.texts),
            notes={role: tuple(self.word(t, self.pool.notes[role]) for t in lines) for role, lines in p.notes.items()},
        )

    def thing(self, name: str, box: Box | None) -> tuple[str, Box | None]:
        if (name, box) not in self.things:
            self.things[name, box] = (self.word(name, self.pool.listed), self.moved(box))
        return self.things[name, box]

    def named(self, item: Segment | Detection) -> Segment | Detection:
        name, box = self.thing(describe(item), item.box)
        label, attributes = self.pool.names[name] if hasattr(item, "attributes") else (name, ())
        return replace(item, label=label, box=box, **({"attributes": dict(attributes)} if attributes else {}))

    def relation(self, r: Relation) -> Relation:
        subject, subject_box = self.thing(r.subject, r.subject_box)
        target, object_box = self.thing(r.object, r.object_box)
        predicate = self.word(r.predicate, self.pool.predicates)
        boxes = {"subject_box": subject_box, "object_box": object_box}
        return replace(r, subject=subject, predicate=predicate, object=target, **boxes)

    def line(self, line: TextLine) -> TextLine:
        text = self.word(line.text, self.pool.texts)
        if not line.polygon:
            return replace(line, text=text)
        across, down = zip(*line.polygon, strict=True)
        x, y = (self.rng.uniform(-1, 1) * self.share / 2 * (max(side) - min(side)) for side in (across, down))
        return replace(line, text=text, polygon=tuple((_unit(a + x), _unit(b + y)) for a, b in line.polygon))

    def word(self, own: str, pool: list[str]) -> str:
        if self.rng.random() >= self.share or len(pool) < 2:
            return own
        drawn = self.rng.randrange(len(pool) - 1)
        return pool[drawn + (drawn >= bisect_left(pool, own))]  # any but its own

    def moved(self, box: Box | None) -> Box | None:
        if box is None:
            return None
        sizes = (box[2] - box[0], box[3] - box[1]) * 2
        edges = [_unit(e + self.rng.uniform(-1, 1) * self.share / 2 * s) for e, s in zip(box, sizes, strict=True)]
        return (min(edges[::2]), min(edges[1::2]), max(edges[::2]), max(edges[1::2]))


def _unit(value: float) -> float:
    return min(1.0, max(0.0, value))
