"""Measure the rules that merge findings: constructed scenes of which it is known what is one thing.

``python benchmarks/merging.py`` prints the tables of docs/verbalization.md. No expert runs: a segmenter, a detector, an
engine of OCR and tags are imitated, with names by synonyms, boxes that are off, things that are missed and visible
parts of things that others hide.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field, replace

import click

from moai.perception.words.merging import bears_text, merge_findings
from moai.perception.words.token_budget import FIELDS, facts_of, verbalize_within
from moai.types import Box, Detection, Perception, Segment, Source, TextLine, merge_duplicates

NAMES = (
    ("person", "woman", "man"), ("couch", "sofa"), ("tv", "monitor"), ("car", "red car", "taxi"), ("dog", "puppy"),
    ("dining table", "table"), ("cell phone", "mobile phone"), ("chair",), ("cup", "mug"), ("bicycle", "bike"),
    ("bus",), ("bottle",), ("book",), ("potted plant", "plant"),
)  # fmt: skip
SIGNS, OTHERS = ("sign", "street sign", "poster", "bottle", "book"), ("person", "wall", "car", "dog", "tree")
OFF = 1.1  # no two boxes overlap as much
THRESHOLDS = [(overlap, OFF) for overlap in (OFF, 0.9, 0.7, 0.5, 0.3)]
THRESHOLDS += [(0.9, 0.4), *((0.7, partly) for partly in (0.6, 0.5, 0.4, 0.3, 0.2, 0.1))]  # and in pairs, less
WORDS = ("STOP", "NO PARKING", "EXIT 12", "Milk", "5 km", "OPEN", "Rue de Lyon")


@dataclass
class Scene:
    """Hold findings, and the number of the thing that each is of, by the finding's score, which no two share."""

    perception: Perception
    thing: dict[float, int] = field(default_factory=dict)


def draw(rng: random.Random) -> Scene:
    """Draw a scene of two to ten things in groups of one name, seen by a segmenter and a detector."""
    things: list[tuple[tuple[str, ...], Box]] = []
    for _ in range(rng.randint(1, 3)):
        names, box = rng.choice(NAMES), _box(rng)
        things.append((names, box))
        for _ in range(rng.choice((0, 0, 1, 2, 3))):  # others of the name beside it, in front of it, or in its box
            things.append((names, _neighbour(rng, box)))
    scene = Scene(Perception())
    segments, detections = [], []
    for number, (names, box) in enumerate(things):
        if rng.random() < 0.85:
            score = rng.uniform(0.3, 1)
            scene.thing[score] = number
            segments.append(Segment(rng.choice(names[:2]), score, _visible(rng, _off(rng, box)), source="segmenter"))
        if rng.random() < 0.85:
            score = rng.uniform(0.3, 1)
            scene.thing[score] = number
            detections.append(Detection(rng.choice(names), score, _off(rng, box), source="detector"))
    scene.perception = Perception(segments=tuple(segments), detections=tuple(detections))
    return scene


def objects(rng: random.Random, scenes: int, overlap: float, partly: float) -> tuple[float, float, float]:
    """Return, in per cent, scenes with as many objects as there are, things said twice, and things lost."""
    right = twice = lost = things = 0
    for _ in range(scenes):
        scene = draw(rng)
        merged = merge_duplicates(scene.perception, overlap, partly)
        there = set(scene.thing.values())
        # A merged finding keeps its box, by which it is found again in the scene.
        before = {item.box: scene.thing[item.score] for item in _items(scene.perception)}
        said = [before[item.box] for item in _items(merged)]
        right += len(said) == len(there)
        twice += len(said) - len(set(said))
        lost += len(there - set(said))
        things += len(there)
    return 100 * right / scenes, 100 * twice / things, 100 * lost / things


def texts(rng: random.Random, scenes: int, within: float) -> tuple[float, float]:
    """Return, in per cent, lines on a sign that are said of it, and lines elsewhere that are said of none."""
    hits = on = misses = off = 0
    for _ in range(scenes):
        sign = _box(rng, 0.15, 0.5)
        word, written = rng.choice(WORDS), rng.random() < 0.5
        if written:
            line, score = _within(rng, sign), 0.9
        else:
            line, score = _beside(rng, sign), 0.8
        x0, y0, x1, y1 = _off(rng, line)
        text = TextLine(word, score, ((x0, y0), (x1, y0), (x1, y1), (x0, y1)))
        found = (Detection(rng.choice(SIGNS), 0.7, _off(rng, sign)), Detection(rng.choice(OTHERS), 0.7, _box(rng)))
        merged = merge_findings(Perception(detections=found, texts=(text,)), within=within)
        said = not merged.texts
        assert all(bears_text(item) for item in merged.detections if word in item.label)
        on, hits = on + written, hits + (written and said)
        off, misses = off + (not written), misses + (not written and said)
    return 100 * hits / on, 100 * (1 - misses / off)


def within_budget(rng: random.Random, scenes: int, budget: int, strongest: bool) -> tuple[float, float]:
    """Return, in per cent, true facts that are kept, and facts kept that are true, where scores tell them apart."""
    kept_true = true = kept = 0
    for _ in range(scenes):
        scene, truth = Perception(sources=(Source("d", "open_world", "1"),)), {}
        for name, kind in FIELDS.items():
            facts = []
            for number in range(rng.randint(2, 6)):
                right = rng.random() < 0.6
                score = min(1.0, max(0.0, rng.gauss(0.75 if right else 0.45, 0.15)))
                truth[score] = right
                box, label = _box(rng), f"{rng.choice(rng.choice(NAMES))} {number}"
                if name == "ocr":
                    facts.append(TextLine(rng.choice(WORDS), score, ((box[0], box[1]), (box[2], box[3]), box[:2])))
                elif name == "panoptic":
                    facts.append(Segment(label, score, box))
                elif name == "open_world":
                    facts.append(Detection(label, score, box))
            scene = replace(scene, **{kind: tuple(facts)})
        words = verbalize_within(scene, budget, str.split, style="compact", strongest=strongest)
        gone = {fact.fact.score for fact in words.dropped}
        left = [fact.fact.score for fact in facts_of(scene) if fact.fact.score not in gone]
        kept_true += sum(truth[score] for score in left)
        true += sum(truth.values())
        kept += len(left)
    return 100 * kept_true / true, 100 * kept_true / max(1, kept)


def _items(perception: Perception) -> list[Segment | Detection]:
    return [*perception.segments, *perception.detections]


def _box(rng: random.Random, low: float = 0.08, high: float = 0.6) -> Box:
    width, height = rng.uniform(low, high), rng.uniform(low, high)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return x, y, x + width, y + height


def _neighbour(rng: random.Random, box: Box) -> Box:
    """Draw another thing of the name: beside it and reaching into it, or smaller and wholly in front of it."""
    width, height = box[2] - box[0], box[3] - box[1]
    if rng.random() < 0.3:
        return _within(rng, box, 0.3, 0.75)
    aside = rng.uniform(0.3, 1.1) * rng.choice((-1, 1)) * width
    scale, down = rng.uniform(0.8, 1.2), rng.uniform(-0.2, 0.2) * height
    return _clip((box[0] + aside, box[1] + down, box[0] + aside + width * scale, box[1] + down + height * scale))


def _off(rng: random.Random, box: Box) -> Box:
    """Move each side by a few per cent of the box, as an expert's own way of drawing boxes does."""
    width, height = box[2] - box[0], box[3] - box[1]
    sides = [side + rng.gauss(0, 0.05) * size for side, size in zip(box, (width, height, width, height), strict=True)]
    return _clip(tuple(sides))


def _visible(rng: random.Random, box: Box) -> Box:
    """Cut a quarter of all boxes to a visible part of the thing."""
    if rng.random() > 0.25:
        return box
    keep, side = rng.uniform(0.35, 0.9), rng.randrange(4)
    cut = list(box)
    size = (box[2] - box[0], box[3] - box[1])[side % 2]
    cut[side] += (1 - keep) * size * (1 if side < 2 else -1)
    return cut[0], cut[1], cut[2], cut[3]


def _within(rng: random.Random, box: Box, low: float = 0.2, high: float = 0.95) -> Box:
    width, height = ((box[2] - box[0]) * rng.uniform(low, high), (box[3] - box[1]) * rng.uniform(low, high))
    x, y = rng.uniform(box[0], box[2] - width), rng.uniform(box[1], box[3] - height)
    return x, y, x + width, y + height


def _beside(rng: random.Random, box: Box) -> Box:
    """Draw a line of text that is not on the thing, half of the time one that begins on it."""
    line = _box(rng, 0.05, 0.3)
    if rng.random() < 0.5:
        width = line[2] - line[0]
        x = box[2] - rng.uniform(0.0, 0.6) * width
        line = (x, rng.uniform(box[1], box[3]), x + width, 0.0)
        line = (line[0], line[1], line[2], line[1] + 0.05)
    elif box[0] < (line[0] + line[2]) / 2 < box[2] and box[1] < (line[1] + line[3]) / 2 < box[3]:
        return _beside(rng, box)
    return _clip(line)


def _clip(box: tuple[float, ...]) -> Box:
    x0, y0, x1, y1 = (min(1.0, max(0.0, side)) for side in box)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


@click.command()
@click.option("--scenes", default=2000, show_default=True, help="Constructed scenes of each row.")
@click.option("--seed", default=0, show_default=True)
def main(scenes: int, seed: int) -> None:
    """Print how good the rules are for several thresholds."""
    logging.disable(logging.WARNING)  # each perception that is cut says so
    print("| overlap | partly | objects counted right | said twice | lost |\n| --- | --- | --- | --- | --- |")
    for overlap, partly in THRESHOLDS:
        right, twice, lost = objects(random.Random(seed), scenes, overlap, partly)
        print(f"| {_shown(overlap)} | {_shown(partly)} | {right:.1f} % | {twice:.1f} % | {lost:.1f} % |")
    print("\n| share of a line in the box | on a sign, said of it | elsewhere, said of none |\n| --- | --- | --- |")
    for within in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        hits, rest = texts(random.Random(seed), scenes, within)
        print(f"| {within} | {hits:.1f} % | {rest:.1f} % |")
    print("\n| tokens | order | true facts kept | kept facts that are true |\n| --- | --- | --- | --- |")
    for budget in (15, 25, 35):
        for strongest in (False, True):
            kept, true = within_budget(random.Random(seed), scenes // 10, budget, strongest)
            print(f"| {budget} | {'strongest' if strongest else 'by role'} | {kept:.1f} % | {true:.1f} % |")


def _shown(threshold: float) -> str:
    return "off" if threshold > 1 else str(threshold)


if __name__ == "__main__":
    main()
