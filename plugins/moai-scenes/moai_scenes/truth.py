"""Make the ground truth of a scene of `scenes`: the perception that perfect experts would return.

Knows: the same names, predicates and order that the experts `shapes`, `geometry`, `tally` and an OCR engine give:
figures and words from top to bottom, relations between neighbours in one row or column, and counts.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from moai.types import Box, Mask, Perception, Relation, Segment, Source, TextLine
from moai_scenes.layouts import neighbours
from moai_scenes.plan import SIZE, Figure, Point, Scene, Word, box_of
from moai_scenes.words import NUMBERS, SHAPES

GRID = 64  # cells of a mask's side
SOURCES = tuple(Source("truth", role, "1") for role in ("panoptic", "scene_graph", "ocr"))
COUNT = Source("truth", "count", "1")
ONE_WAY = ("left of", "above")


def truth_of(scene: Scene, both_ways: bool = False, counts: bool = False) -> Perception:
    """Make the perception of a scene; each neighbourhood is a relation once (*left of*, *above*), or from both sides.

    With ``counts`` it also says how many figures share a colour or a shape.
    """
    figures = sorted(scene.figures, key=lambda figure: figure.cell)
    words = sorted(scene.words, key=lambda word: word.cell)
    order = [thing.cell for thing in (*figures, *words)]  # relations come in the order of their objects
    pairs = [pair for pair in neighbours(scene.layout.taken) if both_ways or pair.predicate in ONE_WAY]
    pairs.sort(key=lambda pair: order.index(pair.object))
    relations = []
    for pair in pairs:
        subject, object_ = scene.at(pair.subject), scene.at(pair.object)
        ends = (_box(subject.outline), _box(object_.outline))
        relations.append(Relation(_name(subject), pair.predicate, _name(object_), 1.0, *ends))
    return Perception(
        segments=tuple(_segment(figure) for figure in figures),
        relations=tuple(relations),
        texts=tuple(TextLine(word.text, 1.0, _unit(word.outline)) for word in words),
        notes={"count": _counts(figures)} if counts else {},
        sources=(*SOURCES, COUNT) if counts else SOURCES,
    )


def _counts(figures: list[Figure]) -> tuple[str, ...]:
    """Count figures, ``two circles.``, ``one red.``: the highest first; colour and shape of one figure together."""
    sharing: dict[frozenset[int], list[str]] = {}
    for word in dict.fromkeys(word for figure in figures for word in (figure.color, figure.shape)):
        where = frozenset(i for i, figure in enumerate(figures) if word in (figure.color, figure.shape))
        sharing.setdefault(where, []).append(f"{word}s" if word in SHAPES and len(where) > 1 else word)
    ranked = sorted(sharing.items(), key=lambda item: -len(item[0]))
    return tuple(f"{NUMBERS[len(where)]} {' '.join(words)}." for where, words in ranked)


def _segment(figure: Figure) -> Segment:
    mask = Image.new("1", (GRID, GRID))
    ImageDraw.Draw(mask).polygon([(x * GRID / SIZE, y * GRID / SIZE) for x, y in figure.outline], fill=1)
    attributes = {"color": figure.color}
    return Segment(figure.shape, 1.0, _box(figure.outline), Mask.encode(np.asarray(mask)), True, attributes)


def _name(thing: Figure | Word) -> str:
    return thing.text if isinstance(thing, Word) else thing.name


def _box(outline: tuple[Point, ...]) -> Box:
    return tuple(round(value / SIZE, 4) for value in box_of(outline))


def _unit(outline: tuple[Point, ...]) -> tuple[Point, ...]:
    return tuple((round(x / SIZE, 4), round(y / SIZE, 4)) for x, y in outline)
