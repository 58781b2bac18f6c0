"""Draw a scene that nobody has seen: things with boxes, lines of print, and tags of the whole picture.

Knows: random draws from a seed. Balance is made here: how many of one name there are is drawn uniformly from 1 to 6,
and the third by third of the picture in which one thing stands is drawn uniformly; everything else follows from them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moai.types import Box
from moai_words.names import Name, Vocabulary, is_kind_of, same, vocabulary
from moai_words.printed import draw_line

SIZES = ((640, 480), (480, 640), (640, 427), (640, 360), (600, 600))  # width and height of pictures
COLORS = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink", "purple", "grey")
EMPTY, PERSON, COLORED, PRINTED, TAGGED = 0.1, 0.35, 0.12, 0.4, 0.6  # shares of scenes
COCO, OWN = 0.5, 0.85  # up to the first share a name is one of COCO's, up to the second one of names.txt
NAMES = (1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5)  # how many different names a scene has
MOST = 12  # things


@dataclass(frozen=True)
class Thing:
    """Describe a thing that stands in the picture."""

    name: Name
    box: Box
    score: float
    color: str = ""

    @property
    def label(self) -> str:
        """What a detector calls it."""
        return f"{self.color} {self.name.text}".strip()


@dataclass(frozen=True)
class Line:
    """Describe a line of print."""

    text: str
    box: Box
    score: float


@dataclass(frozen=True)
class Scene:
    """Describe a scene; ``counted`` is the name whose number was drawn, ``placed`` the thing whose cell was."""

    size: tuple[int, int]
    things: tuple[Thing, ...]
    lines: tuple[Line, ...]
    tags: tuple[Name, ...]
    counted: Name | None
    placed: str


def draw_scene(rng: random.Random, part: str) -> Scene:
    """Draw a scene from the names and words of a part."""
    known, size = vocabulary(part), rng.choice(SIZES)
    lines = tuple(_lines(rng, part)) if rng.random() < PRINTED else ()
    if rng.random() < EMPTY:
        tags = tuple(_tags(rng, known, ())) if rng.random() < 0.3 else ()
        return Scene(size, (), lines, tags, None, "")
    names = _names(rng, known)
    counted, placed = names[0], names[-1] if len(names) > 1 else None
    numbers = {name.text: 1 if name is placed else rng.choice((1, 1, 1, 1, 2, 2, 3)) for name in names}
    numbers[counted.text] = rng.choice((1, 1, 2, 3, 4, 5, 6)) if placed is None else rng.choice((1, 2, 3, 4, 5, 6))
    things: list[Thing] = []
    for name in names[::-1]:
        cell = rng.randrange(9) if name is placed or (placed is None and numbers[name.text] == 1) else None
        for _ in range(min(numbers[name.text], MOST - len(things))):
            things.append(Thing(name, _box(rng, things, cell), _score(rng)))
    if rng.random() < COLORED:
        things = _colored(rng, things, counted if len(names) > 1 else None)
    asked = next((thing.label for thing in things if thing.name is (placed or counted)), "")
    rng.shuffle(things)
    tags = tuple(_tags(rng, known, names)) if rng.random() < TAGGED else ()
    return Scene(size, tuple(things), lines, tags, counted, asked)


def around(rng: random.Random, x: float, y: float, width: float, height: float) -> Box:
    """Cut a box around a point to the picture; a box is at least a fiftieth of the picture wide and high."""
    width, height = max(width, 0.02), max(height, 0.02)
    x, y = min(max(x, 0.01), 0.99), min(max(y, 0.01), 0.99)
    x0, y0 = max(x - width / 2, 0.0), max(y - height / 2, 0.0)
    return round(x0, 4), round(y0, 4), round(min(x + width / 2, 1.0), 4), round(min(y + height / 2, 1.0), 4)


def pick(rng: random.Random, known: Vocabulary) -> Name:
    """Draw a name, of COCO's in half of the draws."""
    drawn = rng.random()
    if known.coco and drawn < COCO:
        return rng.choice(known.coco)
    return rng.choice(known.tags if known.tags and drawn >= OWN else known.rest)


def _names(rng: random.Random, known: Vocabulary) -> list[Name]:
    """Draw different names; half of those after the first are related to one before. None may mean another."""
    person = known.names.get("person")
    found = [person] if person is not None and rng.random() < PERSON else [pick(rng, known)]
    wanted = rng.choice(NAMES)
    for _ in range(50):
        if len(found) >= wanted:
            break
        near = known.near_to(rng.choice(found)) if rng.random() < 0.5 else []
        name = rng.choice(near) if near and rng.random() < 0.8 else pick(rng, known)
        if not any(same(name, other) for other in found):
            found.append(name)
    rng.shuffle(found)
    return found


def _box(rng: random.Random, things: Sequence[Thing], cell: int | None) -> Box:
    width, height = _sides(rng)
    if cell is not None:
        row, column = divmod(cell, 3)
        x, y = (column + rng.uniform(0.05, 0.95)) / 3, (row + rng.uniform(0.05, 0.95)) / 3
        # A box is cut at the picture's rim, which may move its centre; so it ends there.
        return around(rng, x, y, min(width, 2 * x, 2 - 2 * x), min(height, 2 * y, 2 - 2 * y))
    if not things or rng.random() < 0.4:
        return around(rng, rng.uniform(0.05, 0.95), rng.uniform(0.1, 0.9), width, height)
    return _beside(rng, rng.choice(things).box, width, height)


def _beside(rng: random.Random, other: Box, width: float, height: float) -> Box:
    """Draw a box that overlaps another, stands on it, lies in it, touches it, or stands apart from it."""
    x0, y0, x1, y1 = other
    wide, high, x, y = x1 - x0, y1 - y0, (x0 + x1) / 2, (y0 + y1) / 2
    how = rng.random()
    if how < 0.3:
        return around(rng, x + rng.uniform(-0.6, 0.6) * wide, y + rng.uniform(-0.6, 0.6) * high, width, height)
    if how < 0.5:  # on it
        width, height = min(width, wide), min(height, 1.2 * high)
        foot = y0 + rng.uniform(0.05, 0.5) * high
        return around(rng, x + rng.uniform(-0.3, 0.3) * wide, foot - height / 2, width, height)
    if how < 0.6:  # in it
        scale = rng.uniform(0.2, 0.6)
        reach = 0.45 * (1 - scale)
        at = x + rng.uniform(-reach, reach) * wide, y + rng.uniform(-reach, reach) * high
        return around(rng, *at, scale * wide, scale * high)
    gap = rng.choice((0.0, rng.uniform(0.0, 0.15)))
    side = rng.choice((-1, 1))
    if how < 0.8:  # beside it
        return around(rng, x + side * ((wide + width) / 2 + gap), y + rng.uniform(-0.3, 0.3) * high, width, height)
    down = rng.choice((-1, 1)) * ((high + height) / 2 + rng.uniform(0.0, 0.15))
    return around(rng, x + side * ((wide + width) / 2 + gap), y + down, width, height)


def _sides(rng: random.Random) -> tuple[float, float]:
    size, aspect = math.exp(rng.uniform(math.log(0.08), math.log(0.7))), math.exp(rng.gauss(0, 0.35))
    return min(size * aspect, 0.98), min(size / aspect, 0.98)


def _score(rng: random.Random) -> float:
    return round(rng.uniform(0.5, 1.0), 3)


def _colored(rng: random.Random, things: list[Thing], counted: Name | None) -> list[Thing]:
    """Give the things of some names a colour each, as an open-vocabulary detector that is asked for colours does."""
    colors = {t.name.text: t.name is not counted and rng.random() < 0.8 for t in things}
    return [replace(t, color=rng.choice(COLORS)) if colors[t.name.text] else t for t in things]


def _lines(rng: random.Random, part: str) -> list[Line]:
    """Draw lines of print, on one sign or apart."""
    count = rng.choice((1, 1, 1, 1, 1, 2, 2, 2, 3, 4))
    height = rng.uniform(0.03, 0.12)
    x, y = rng.uniform(0.15, 0.85), rng.uniform(0.1, 0.85)
    one_sign = rng.random() < 0.5
    lines = []
    for number in range(count):
        text = draw_line(rng, part)
        if not one_sign:
            x, y = rng.uniform(0.15, 0.85), rng.uniform(0.05, 0.95)
        width = min(0.5 * height * len(text), 0.95)
        at = y + 1.3 * number * height if one_sign else y
        lines.append(Line(text, around(rng, min(max(x, width / 2), 1 - width / 2), at, width, height), _score(rng)))
    return lines


def _tags(rng: random.Random, known: Vocabulary, names: Sequence[Name]) -> list[Name]:
    """Draw tags: of what is there or of its kind, of what resembles it, or, as classifiers err, of anything.

    A kind comes before what is of that kind: "cat, Egyptian cat".
    """
    found: list[Name] = []
    for _ in range(rng.choice((1, 1, 2))):
        base = rng.choice(names) if names and rng.random() < 0.8 else None
        choices = [] if base is None else [tag for tag in known.near_to(base) if is_kind_of(tag, base)]
        if base is not None and not choices:
            choices = [base, *known.close_to(base)]
        tag = rng.choice(choices) if choices else rng.choice(known.tags or known.rest)
        if tag.text == "person" or any(same(tag, other) for other in found):  # a person is no class of ImageNet's
            continue
        kind = known.names.get(tag.kind) if tag.kind != "person" and rng.random() < 0.6 else None
        found += [tag] if kind is None or kind in found else [kind, tag]
    return found[:3]
