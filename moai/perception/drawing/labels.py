"""Place labels next to their objects, without overlap.

Knows: rectangles on a canvas. A label goes to the nearest free place around its object, with a line to it when there is
a gap. A label without a free place becomes a number, which the caller lists under the picture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import ImageDraw

from moai.perception.drawing.fonts import Fonts
from moai.perception.drawing.panoptic_map import Colour
from moai.perception.words.formatting import clean
from moai.types import Box

INK: Colour = (20, 20, 20)
PAPER: Colour = (250, 250, 250)
_REACH = 0.3  # of the longer side: a label farther from its object than this is less useful than a number on it
_LONGEST = 0.45  # of the canvas' width
_MOST_WORDS = 100  # labels in words; more are unreadable, and the search for free places would take seconds
_LARGE = 0.3  # of the canvas: what is larger may be covered by labels, its own as well as others
_HIDING = 8.0  # label heights that a label may rather stand away than hide things of others altogether


class Label(NamedTuple):
    """Hold the text of a label, its rectangle in pixels, and its colour."""

    anchor: Box
    text: str
    colour: Colour


def write_labels(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], labels: list[Label], fonts: Fonts, height: int
) -> list[tuple[int, str]]:
    """Write the labels on a canvas of ``size`` (width, height) with letters of ``height`` pixels.

    The labels of small things are placed first, since they have the least choice, and those of points last. A label
    covers no other, and not the thing that it names unless that is large.

    Returns:
        ``(number, text)`` of the labels that found no place: the number stands in the picture.
    """
    placed: list[Box] = []
    numbered: list[tuple[int, str]] = []
    writing: list[tuple[Box, str, Label]] = []
    small = list(dict.fromkeys(label.anchor for label in labels if _area(label.anchor) < _LARGE * size[0] * size[1]))
    for label in sorted(labels, key=lambda label: _area(label.anchor) or float("inf")):
        text = shorten(fonts, label.text, height, size[0] * _LONGEST)
        spot = None
        if len(writing) < _MOST_WORDS:
            spot = _free_spot(label.anchor, _extent(fonts, text, height), size, placed, small)
        if spot is None:
            numbered.append((len(numbered) + 1, label.text))
            text = str(len(numbered))
            spot = _least_covering(label.anchor, _extent(fonts, text, height), size, placed)
        placed.append(spot)
        writing.append((spot, text, label))
    for spot, _, label in writing:  # lines first, so that no line crosses a word
        _lead(draw, spot, label)
    for spot, text, label in writing:
        shown, font = fonts.fit(text, height)
        draw.rectangle(spot, fill=label.colour, outline=INK)
        draw.text((spot[0] + 3, (spot[1] + spot[3]) / 2), shown, fill=ink_on(label.colour), font=font, anchor="lm")
    return numbered


def ink_on(colour: Colour) -> Colour:
    """Choose the ink: dark on light colours, light on dark ones."""
    return INK if 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2] > 110 else PAPER


def shorten(fonts: Fonts, text: str, height: int, room: float) -> str:
    """Cut the text, with dots, to one line of ``room`` pixels."""
    stem = shown = clean(text)
    while stem and width_of(fonts, shown, height) > room:
        stem = stem[: -1 - len(stem) // 8]
        shown = f"{stem}..."
    return shown


def width_of(fonts: Fonts, text: str, height: int) -> float:
    """Measure the text on one line, in pixels."""
    shown, font = fonts.fit(text, height)
    return font.getlength(shown)


def _extent(fonts: Fonts, text: str, height: int) -> tuple[float, float]:
    return width_of(fonts, text, height) + 6, height * 1.35


def _free_spot(
    anchor: Box, extent: tuple[float, float], size: tuple[int, int], placed: list[Box], small: list[Box]
) -> Box | None:
    """Find the best spot that covers no label and not its own thing: near that, and not over small things of others."""
    near = _fitting(_beside(anchor, extent), extent, size)
    spots = np.concatenate([near, _fitting(_around(extent, size), extent, size)])
    distances = _distances(spots, anchor)
    free = (_covered(spots, placed) == 0) & (distances <= _REACH * max(size))
    if 0 < _area(anchor) < _LARGE * size[0] * size[1]:
        free &= _covered(spots, [anchor], margin=-1) == 0
    spots = spots[free]
    if not len(spots):
        return None
    hidden = _hidden(spots, small)
    return tuple(spots[np.argmin(distances[free] / extent[1] + _HIDING * hidden)].tolist())  # of equals the first


def _least_covering(anchor: Box, extent: tuple[float, float], size: tuple[int, int], placed: list[Box]) -> Box:
    wide, high = extent
    x, y = (anchor[0] + anchor[2] - wide) / 2, (anchor[1] + anchor[3] - high) / 2
    steps = [(x + i * wide, y + j * high) for j in (0, -1, 1, -2, 2) for i in (0, -1, 1, -2, 2)]
    spots = _inside(np.array([*_beside(anchor, extent), *steps]), extent, size)
    return tuple(spots[np.argmin(_covered(spots, placed))].tolist())


def _beside(anchor: Box, extent: tuple[float, float]) -> list[tuple[float, float]]:
    """List the top left corners of spots at the edges of a rectangle, outside and inside."""
    (x0, y0, x1, y1), (wide, high) = anchor, extent
    across = (x0, x1 - wide, (x0 + x1 - wide) / 2)
    return [(x, y) for y in (y0 - high, y1, y0, y1 - high) for x in across] + [
        (x, y) for x in (x1, x0 - wide) for y in (y0, y1 - high, (y0 + y1 - high) / 2)
    ]


def _around(extent: tuple[float, float], size: tuple[int, int]) -> list[tuple[float, float]]:
    wide, high = extent
    return [(x, y) for y in np.arange(0, size[1] - high, high / 2) for x in np.arange(0, size[0] - wide, wide / 4)]


def _fitting(corners: list[tuple[float, float]], extent: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Make ``(N, 4)`` spots at these corners, moved into the canvas; the moved ones last."""
    if not corners:
        return np.zeros((0, 4))
    spots = np.array([(x, y, x + extent[0], y + extent[1]) for x, y in corners])
    pushed = _inside(spots[:, :2], extent, size)
    return pushed[np.argsort(np.abs(pushed - spots).max(axis=1) > 0, kind="stable")]


def _inside(corners: np.ndarray, extent: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    room = np.maximum(0.0, np.array(size) - np.array(extent) - 1)
    low = np.clip(corners, 0.0, room)
    return np.concatenate([low, low + np.array(extent)], axis=1)


def _covered(spots: np.ndarray, placed: list[Box], margin: float = 1) -> np.ndarray:
    """Return, ``(N,)``, the square pixels of other rectangles that each spot covers, with a margin around these."""
    if not placed:
        return np.zeros(len(spots))
    others = np.array(placed)
    low = np.maximum(spots[:, None, :2], others[:, :2] - margin)
    high = np.minimum(spots[:, None, 2:], others[:, 2:] + margin)
    return np.clip(high - low, 0, None).prod(axis=2).sum(axis=1)


def _hidden(spots: np.ndarray, things: list[Box]) -> np.ndarray:
    """Return, ``(N,)``, which share of each thing, or of a spot that is smaller, is hidden, all summed."""
    if not things:
        return np.zeros(len(spots))
    others = np.array(things)
    low, high = np.maximum(spots[:, None, :2], others[:, :2] + 1), np.minimum(spots[:, None, 2:], others[:, 2:] - 1)
    both = np.clip(high - low, 0, None).prod(axis=2)
    of_spots, of_things = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (spots, others))
    return (both / np.maximum(np.minimum(of_spots[:, None], of_things), 1.0)).sum(axis=1)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _distances(spots: np.ndarray, anchor: Box) -> np.ndarray:
    """Return, ``(N,)``, the pixels between each spot and the anchor; 0 where they touch."""
    gap = np.maximum(np.array(anchor[:2]) - spots[:, 2:], spots[:, :2] - np.array(anchor[2:]))
    return np.hypot(*np.clip(gap, 0, None).T)


def _lead(draw: ImageDraw.ImageDraw, spot: Box, label: Label) -> None:
    if _distances(np.array([spot]), label.anchor)[0] <= 3:
        return
    x, y = (spot[0] + spot[2]) / 2, (spot[1] + spot[3]) / 2
    near = (min(max(x, label.anchor[0]), label.anchor[2]), min(max(y, label.anchor[1]), label.anchor[3]))
    draw.line([(x, y), near], fill=INK, width=3)
    draw.line([(x, y), near], fill=label.colour, width=1)
