"""Arrange things on a grid of three by three cells; the arrangements are divided among the splits.

Knows: cells, numbered row by row from 0 to 8, and which two things stand in a relation. An arrangement says which cells
hold a shape and which a word. Each belongs to exactly one of train, validation and test, by its hash, so that no
arrangement of the test scenes occurs in training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

SIDE = 3
CELLS = range(SIDE * SIDE)
STEPS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}  # predicate -> (row, column) step
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
PARTS = ("train", "validation", "test")
SHARES = (0.7, 0.15, 0.15)


class Layout(NamedTuple):
    """Hold cells with a shape and cells with a word, each in ascending order."""

    shapes: tuple[int, ...]
    words: tuple[int, ...]

    @property
    def taken(self) -> tuple[int, ...]:
        """List all cells that hold something."""
        return tuple(sorted(self.shapes + self.words))


class Pair(NamedTuple):
    """Hold two cells: ``subject`` stands in the relation ``predicate`` to ``object``."""

    subject: int
    predicate: str
    object: int


@lru_cache(16384)
def neighbours(taken: tuple[int, ...]) -> tuple[Pair, ...]:
    """List pairs in one row or column with nothing between them, both ways round, in the order of their objects."""
    pairs = []
    for cell in taken:
        for predicate, step in STEPS.items():
            subject = _next(cell, step, taken)
            if subject is not None:
                pairs.append(Pair(subject, predicate, cell))
    return tuple(pairs)


def is_alone(pair: Pair, others: tuple[int, ...]) -> bool:
    """Return whether, of ``others``, only the subject lies on that side of the object, aligned with it or not."""
    axis = 0 if pair.predicate in ("above", "below") else 1
    sign = STEPS[pair.predicate][axis]
    place = _at(pair.object)[axis]
    return [cell for cell in others if (_at(cell)[axis] - place) * sign > 0] == [pair.subject]


def open_pairs(layout: Layout) -> list[Pair]:
    """List pairs for "what shape is left of ..?": no other shape lies on that side of the one that is asked about."""
    return [pair for pair in shape_pairs(layout) if is_alone(pair, layout.shapes)]


def word_pairs(layout: Layout) -> list[Pair]:
    """List pairs for "what word is left of ..?": no other word lies on that side."""
    found = [pair for pair in neighbours(layout.taken) if pair.subject in layout.words and pair.object in layout.shapes]
    return [pair for pair in found if is_alone(pair, layout.words)]


def shape_pairs(layout: Layout) -> list[Pair]:
    """List neighbouring shapes, for yes/no questions."""
    return [pair for pair in neighbours(layout.taken) if {pair.subject, pair.object} <= set(layout.shapes)]


def part_of(layout: Layout) -> str:
    """Find the split that this arrangement belongs to."""
    value = int.from_bytes(hashlib.sha256(repr(tuple(layout)).encode()).digest()[:8]) / 2**64
    for part, share in zip(PARTS, SHARES, strict=True):
        if value < share:
            return part
        value -= share
    return PARTS[-1]


@lru_cache
def layouts(part: str, shapes: int, words: int) -> tuple[Layout, ...]:
    """List every arrangement of so many shapes and words that belongs to ``part`` and gives each kind of question."""
    return tuple(layout for layout in _all(shapes, words) if part_of(layout) == part and _usable(layout))


@lru_cache
def layouts_with(part: str, shapes: int, words: int, first: int, second: int) -> tuple[Layout, ...]:
    """List those of ``layouts`` that have shapes in two given cells."""
    return tuple(layout for layout in layouts(part, shapes, words) if {first, second} <= set(layout.shapes))


def _usable(layout: Layout) -> bool:
    rows = [cell // SIDE for cell in layout.words]
    # Two words in one row would be read as one line.
    return len(set(rows)) == len(rows) and bool(word_pairs(layout)) and bool(open_pairs(layout))


def _all(shapes: int, words: int) -> Iterator[Layout]:
    for some in combinations(CELLS, shapes):
        for rest in combinations([cell for cell in CELLS if cell not in some], words):
            yield Layout(some, rest)


def _next(cell: int, step: tuple[int, int], taken: tuple[int, ...]) -> int | None:
    row, column = _at(cell)
    while True:
        row, column = row + step[0], column + step[1]
        if not (0 <= row < SIDE and 0 <= column < SIDE):
            return None
        if row * SIDE + column in taken:
            return row * SIDE + column


def _at(cell: int) -> tuple[int, int]:
    return divmod(cell, SIDE)
