"""Generate `raven`: Raven's matrices of drawn figures, with KOSMOS-1's prompt (arXiv 2302.14045, section 4.2).

Knows: rules and figures; nothing of models. The matrix is flattened, and its images are shown one by one: three of a
2 x 2 matrix, four of a row, or eight of a 3 x 3 matrix. One of six candidates completes it. The paper's own fifty items
are no part of this: these are drawn from a seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image, ImageDraw

from moai import IMAGE, Conversation, Turn, read_image
from moai.errors import RecipeError, nearest
from moai.types import Choice, Sample

SPLITS = {"train": 300, "validation": 50, "test": 50}  # items; the paper has 50
LAYOUTS = {3: (2, 2), 4: (1, 5), 8: (3, 3)}  # images that are shown -> rows and columns
WORDS = {3: "three", 4: "four", 8: "eight"}
CANDIDATES = 6
SIDE = 96  # pixels
SHAPES = ("triangle", "square", "circle", "cross", "diamond")
SIZES = (16, 22, 28, 34, 40)  # pixels from the middle
SHADES = (235, 180, 125, 70, 15)
COUNTS = (1, 2, 3, 4, 5)
ATTRIBUTES = {"shape": SHAPES, "size": SIZES, "shade": SHADES, "count": COUNTS}


@dataclass(frozen=True)
class Figure:
    """What one image shows: numbers of values in ``ATTRIBUTES``."""

    shape: int
    size: int
    shade: int
    count: int


@dataclass(frozen=True)
class Item:
    """One matrix: the figures that are shown, the candidates, and which of them is right."""

    shown: tuple[Figure, ...]
    candidates: tuple[Figure, ...]
    right: int


def raven(split: str = "test", items: int | None = None, seed: int = 0) -> list[Sample]:
    """Return the samples of one split.

    Args:
        split: ``"train"`` and ``"validation"`` have a question for each candidate, with the answer Yes or No, half of
            each; ``"test"`` has an item in each sample, answered by the candidate whose "Yes" is the likeliest.
        items: how many matrices; more contain fewer. By default ``SPLITS``.
        seed: of the matrices.

    Raises:
        RecipeError: an unknown split, or fewer than one item.
    """
    if split not in SPLITS:
        raise RecipeError(f"the data set raven has no split '{split}'{nearest(split, SPLITS)}")
    if items is not None and items < 1:
        raise RecipeError(f"raven: items is {items}; give at least 1, or none")
    made: list[Sample] = []
    for number in range(SPLITS[split] if items is None else items):
        rng = random.Random(f"raven {split} {seed} {number}")
        item = draw_item(rng)
        name = f"raven/{split}/{seed}/{number:04d}"
        made += [choosing(item, name)] if split == "test" else judging(item, name, rng)
    return made


def questions(matrix: Sequence[Any], candidates: Sequence[Any]) -> list[Conversation]:
    """Ask of each candidate whether it completes a matrix of one's own; the likeliest "Yes" completes it.

    Args:
        matrix: the images that are there, row by row: paths, bytes, or pictures.
        candidates: the images of which one completes it.

    Raises:
        ImageError: one of them cannot be read.
    """
    shown = tuple(map(read_image, matrix))
    return [Conversation(prompt(len(shown)), (*shown, read_image(candidate))) for candidate in candidates]


def prompt(shown: int) -> tuple[Turn, ...]:
    """Write KOSMOS-1's prompt for ``shown`` images of a matrix and one candidate."""
    begin = f"Here are {WORDS.get(shown, shown)} images:"
    marks = (IMAGE,) * shown
    return (Turn("user", (begin, *marks, "The following image is:", IMAGE, "Is it correct?")),)


def choosing(item: Item, name: str) -> Sample:
    """Build a sample of an item: its candidates are choices, A to F, scored by the probability of "Yes"."""
    figures, shown = (*item.shown, *item.candidates), len(item.shown)
    images = tuple(map(draw, figures))
    choices = tuple(
        Choice(chr(ord("A") + n), prompt(shown), (*range(shown), shown + n), "Yes") for n in range(CANDIDATES)
    )
    asked = (f"Here are {WORDS[shown]} images:", *(IMAGE,) * shown, "Which image follows?", *(IMAGE,) * CANDIDATES)
    whole = Conversation((Turn("user", asked), Turn("assistant", choices[item.right].name)), images)
    ids = tuple(f"{name}/{place}" for place in range(len(images)))
    return Sample(name, whole, ids, kind=f"{shown} images", choices=choices)


def judging(item: Item, name: str, rng: random.Random) -> list[Sample]:
    """Build two questions of an item: the right candidate, and a wrong one."""
    wrong = rng.choice([n for n in range(CANDIDATES) if n != item.right])
    made = []
    for answer, number in (("Yes", item.right), ("No", wrong)):
        images = tuple(map(draw, (*item.shown, item.candidates[number])))
        ids = (*(f"{name}/{place}" for place in range(len(item.shown))), f"{name}/{len(item.shown) + number}")
        whole = Conversation((*prompt(len(item.shown)), Turn("assistant", answer)), images)
        made.append(Sample(f"{name}/{answer}", whole, ids, kind=f"{len(item.shown)} images"))
    return made


def draw_item(rng: random.Random) -> Item:
    """Draw a matrix, in which each attribute stays, moves on from column to column, or changes from row to row."""
    shown = rng.choice(list(LAYOUTS))
    rows, columns = LAYOUTS[shown]
    values: dict[str, list[int]] = {}
    moving = rng.sample(list(ATTRIBUTES), rng.choice((1, 2)))
    for name in ATTRIBUTES:
        first = [rng.randrange(5)] * rows
        step = 0
        if name in moving:
            step = rng.choice((-1, 1))
            low, high = (0, 5 - columns) if step > 0 else (columns - 1, 4)
            first = [rng.randint(low, high)] * rows
        elif rows > 1 and rng.random() < 0.5:
            first = rng.sample(range(5), rows)
        values[name] = [first[row] + step * column for row in range(rows) for column in range(columns)]
    figures = [Figure(*(values[name][place] for name in ATTRIBUTES)) for place in range(rows * columns)]
    right = figures[-1]
    wrong = _others(right, rng)
    candidates = [right, *(next(wrong) for _ in range(CANDIDATES - 1))]
    rng.shuffle(candidates)
    return Item(tuple(figures[:-1]), tuple(candidates), candidates.index(right))


def _others(right: Figure, rng: random.Random) -> Iterator[Figure]:
    """Yield figures that differ from the right one, in one attribute or two, each once."""
    seen = {right}
    while True:
        changed = {name: rng.randrange(5) for name in rng.sample(list(ATTRIBUTES), rng.choice((1, 1, 2)))}
        other = replace(right, **changed)
        if other not in seen:
            seen.add(other)
            yield other


def draw(figure: Figure) -> Image.Image:
    """Draw a figure: its shape as often as it counts, on white."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    pen, count = ImageDraw.Draw(picture), COUNTS[figure.count]
    reach = SIZES[figure.size] if count == 1 else SIZES[figure.size] // 2
    middle = SIDE // 2
    near, far = SIDE // 4 + 2, SIDE - SIDE // 4 - 2
    places = {
        1: [(middle, middle)],
        2: [(near, middle), (far, middle)],
        3: [(middle, near), (near, far), (far, far)],
        4: [(near, near), (far, near), (near, far), (far, far)],
        5: [(near, near), (far, near), (near, far), (far, far), (middle, middle)],
    }
    for x, y in places[count]:
        _shape(pen, SHAPES[figure.shape], x, y, reach, (SHADES[figure.shade],) * 3)
    return picture


def _shape(pen: ImageDraw.ImageDraw, shape: str, x: int, y: int, r: int, colour: tuple[int, int, int]) -> None:
    black = (0, 0, 0)
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), colour, black)
    elif shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), colour, black)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], colour, black)
    elif shape == "diamond":
        pen.polygon([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], colour, black)
    else:
        t = max(2, r // 3)
        around = [
            (-t, -r),
            (t, -r),
            (t, -t),
            (r, -t),
            (r, t),
            (t, t),
            (t, r),
            (-t, r),
            (-t, t),
            (-r, t),
            (-r, -t),
            (-t, -t),
        ]
        pen.polygon([(x + a, y + b) for a, b in around], colour, black)
