"""Plan a scene of `scenes` before a pixel is drawn: figures, words, their places, and the background.

Knows: random draws from a seed, the grid and the size of printed words. Scenes are drawn one by one, each from its own
seed, so scene 17 of a split is the same however many scenes are asked for. Coordinates are pixels of a square picture.

Balance is made here. How many figures share the colour or shape that is counted is drawn first, uniformly from 0 to 4;
the two cells that positions are asked about are drawn next, uniformly; everything else follows from them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from moai_scenes.fonts import FONTS, measure
from moai_scenes.layouts import SIDE, Layout, layouts_with
from moai_scenes.words import COLORS, SHAPES, WORDS

SIZE = 256  # pixels of a picture's side
CELL = SIZE / SIDE
MARGIN = 3.0  # pixels that stay free at the rim and between two things
FIGURE = (42, 60)  # longer side of a figure's box
JITTER = {"figure": 8.0, "word": 4.0}  # how far a centre may lie from its cell's
MAX_WORD = 100.0  # width of a printed word with its plate
WORD = (20, 26)  # font size

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Figure:
    """Describe one coloured shape; ``outline`` is its polygon."""

    color: str
    shape: str
    cell: int
    outline: tuple[Point, ...]
    rgb: tuple[int, int, int]
    rim: bool  # a thin contrasting line around it

    @property
    def name(self) -> str:
        """Name the figure, ``"red circle"``; unique in a scene."""
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Word:
    """Describe one printed word; ``outline`` is the rectangle of its plate, clockwise from the top left corner."""

    text: str
    cell: int
    outline: tuple[Point, ...]
    font: str
    size: int
    angle: float  # degrees, anticlockwise
    plate: bool  # on a plate, or with a contrasting line around each letter
    dark: bool  # dark letters on light, or light on dark


@dataclass(frozen=True)
class Backdrop:
    """Describe a square cut of a photograph or texture: its share, its place, mirrored or not, its brightness."""

    source: str
    share: float
    left: float
    top: float
    mirrored: bool
    gain: float


@dataclass(frozen=True)
class Scene:
    """Describe a scene; ``counted`` is the colour or shape asked for, ``asked`` the two cells whose position is."""

    figures: tuple[Figure, ...]
    words: tuple[Word, ...]
    layout: Layout
    counted: str
    asked: tuple[int, int]
    backdrop: Backdrop

    def at(self, cell: int) -> Figure | Word:
        """Find what stands in a cell."""
        return next(thing for thing in (*self.figures, *self.words) if thing.cell == cell)


def plan_scene(split: str, index: int, seed: int, backdrops: Sequence[str]) -> Scene:
    """Draw scene number ``index`` of a split; ``backdrops`` are the names of the pictures that the split may use."""
    rng = random.Random(f"scenes {split} {seed} {index}")
    attribute = rng.choice((tuple(COLORS), SHAPES))
    counted, count = rng.choice(attribute), rng.randrange(5)
    layout, asked = _draw_layout(rng, split.removesuffix("-unseen"), 4 if count == 4 else rng.choice((3, 4)))
    names = _draw_names(rng, counted, count, len(layout.shapes))
    texts = rng.sample(WORDS[split], len(layout.words))
    while True:  # until nothing touches; most first draws do
        figures = tuple(_draw_figure(rng, *name, cell) for name, cell in zip(names, layout.shapes, strict=True))
        words = tuple(_draw_word(rng, text, cell) for text, cell in zip(texts, layout.words, strict=True))
        if _apart([box_of(thing.outline) for thing in (*figures, *words)]):
            return Scene(figures, words, layout, counted, asked, _draw_backdrop(rng, backdrops))


def box_of(outline: Sequence[Point]) -> Box:
    """Compute ``(x0, y0, x1, y1)`` around points."""
    xs, ys = zip(*outline, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _draw_layout(rng: random.Random, part: str, shapes: int) -> tuple[Layout, tuple[int, int]]:
    words = rng.choice((1, 2))
    while True:  # a few pairs of cells are in no arrangement of a small split
        first, second = rng.sample(range(SIDE * SIDE), 2)
        found = layouts_with(part, shapes, words, *sorted((first, second)))
        if found:
            return rng.choice(found), (first, second)


def _draw_names(rng: random.Random, counted: str, count: int, total: int) -> list[tuple[str, str]]:
    names = [(color, shape) for color in COLORS for shape in SHAPES]
    with_it = rng.sample([name for name in names if counted in name], count)
    without = rng.sample([name for name in names if counted not in name], total - count)
    drawn = with_it + without
    rng.shuffle(drawn)
    return drawn


def _draw_figure(rng: random.Random, color: str, shape: str, cell: int) -> Figure:
    unit = _turned(UNIT[shape], rng.uniform(-12, 12))
    x0, y0, x1, y1 = box_of(unit)
    scale = rng.uniform(*FIGURE) / max(x1 - x0, y1 - y0)
    x, y = _centre(rng, cell, "figure", (x1 - x0) * scale, (y1 - y0) * scale)
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    outline = tuple((x + (px - middle[0]) * scale, y + (py - middle[1]) * scale) for px, py in unit)
    rgb = tuple(min(max(value + rng.randint(-8, 8), 0), 255) for value in COLORS[color])
    return Figure(color, shape, cell, outline, rgb, rng.random() < 0.5)


def _draw_word(rng: random.Random, text: str, cell: int) -> Word:
    font, size, angle = rng.choice(FONTS), rng.randint(*WORD), rng.uniform(-6, 6)
    plate, dark = rng.random() < 0.6, rng.random() < 0.5
    width, height = measure(text, font, size)
    while width > MAX_WORD:
        size -= 1
        width, height = measure(text, font, size)
    corners = _turned(
        tuple((sx * width / 2, sy * height / 2) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))), -angle
    )
    x0, y0, x1, y1 = box_of(corners)
    x, y = _centre(rng, cell, "word", x1 - x0, y1 - y0)
    return Word(text, cell, tuple((x + px, y + py) for px, py in corners), font, size, angle, plate, dark)


def _draw_backdrop(rng: random.Random, names: Sequence[str]) -> Backdrop:
    share, left, top = rng.uniform(0.45, 1.0), rng.random(), rng.random()
    return Backdrop(rng.choice(names), share, left, top, rng.random() < 0.5, rng.uniform(0.75, 1.1))


def _centre(rng: random.Random, cell: int, kind: str, width: float, height: float) -> Point:
    row, column = divmod(cell, SIDE)
    reach = JITTER[kind]
    x = (column + 0.5) * CELL + rng.uniform(-reach, reach)
    y = (row + 0.5) * CELL + rng.uniform(-reach, reach)
    return _inside(x, width / 2), _inside(y, height / 2)


def _inside(value: float, half: float) -> float:
    return min(max(value, half + MARGIN), SIZE - half - MARGIN)


def _apart(boxes: list[Box]) -> bool:
    for index, a in enumerate(boxes):
        for b in boxes[:index]:
            if a[0] < b[2] + MARGIN and b[0] < a[2] + MARGIN and a[1] < b[3] + MARGIN and b[1] < a[3] + MARGIN:
                return False
    return True


def _turned(points: Sequence[Point], degrees: float) -> tuple[Point, ...]:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return tuple((x * c - y * s, x * s + y * c) for x, y in points)


def _ring(count: int, radii: Sequence[float], start: float = -90.0) -> tuple[Point, ...]:
    angles = [math.radians(start + 360 * k / count) for k in range(count)]
    return tuple(
        (radii[k % len(radii)] * math.cos(a), radii[k % len(radii)] * math.sin(a)) for k, a in enumerate(angles)
    )


UNIT = {
    "circle": _ring(72, (1.0,)),
    "square": _ring(4, (1.0,), -45.0),
    "triangle": _ring(3, (1.0,)),
    "star": _ring(10, (1.0, 0.42)),
}
