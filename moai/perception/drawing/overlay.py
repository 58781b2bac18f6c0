"""Draw a perception on its picture.

Knows: Pillow's drawing. Small pictures are enlarged first, and narrow ones get a margin, so that boxes and labels stay
legible. A legend under the picture lists every expert with its findings or its failure, the sign of each role, and all
findings that have no place in the picture.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from moai.errors import ImageError
from moai.perception.drawing.fonts import Fonts
from moai.perception.drawing.labels import INK, PAPER, Label, write_labels
from moai.perception.drawing.legend import RELATION, TEXT, legend, with_legend
from moai.perception.drawing.panoptic_map import Colour, label_colour, resize_nearest, segment_colours
from moai.perception.words.formatting import clean, clean_label
from moai.types import Box, Perception, Relation, Segment, TextLine, describe

SMALLEST, LARGEST = 512, 2048  # pixels of the longest side of the drawn picture
_LEAST_HEIGHT = 12  # of the canvas, in letters: a strip of a few pixels leaves no room for labels
RELATIONS = 5  # drawn where no other number is given
_SAME_PLACE = 0.7  # intersection over union, from which two lines of equal text are one


def draw_overlay(
    image: Image.Image,
    perception: Perception,
    path: str | os.PathLike | None = None,
    relations: int = RELATIONS,
    *,
    with_lines: bool = True,
) -> Image.Image:
    """Draw a perception on its image.

    Args:
        image: RGB, the one that was perceived.
        perception: masks are outlined, segments without one have a solid box, detections a dashed one, relations are
            arrows between their boxes, lines of text are outlined by their polygons. Nothing is tinted. Labels cover
            neither each other nor the thing that they name, unless it fills most of the picture: one without a free
            place is a number, explained in the legend. Relations and texts without a place are in the legend.
        path: where to save the picture as well (PNG or JPEG by its suffix).
        relations: how many are drawn, those with the highest scores; the legend says how many there are.
        with_lines: whether the legend is written under the picture.

    Returns:
        A new RGB image: the picture, longest side 512 to 2048 pixels, on a canvas of at least 512 pixels' width, and
        a legend under it. Characters that no installed font has are drawn as "?", and the legend lists them.

    Raises:
        ImageError: ``path`` cannot be written.
    """
    scale = min(max(1.0, SMALLEST / max(image.size)), LARGEST / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    letters = max(12, round(math.sqrt(size[0] * size[1]) / 46), round(max(size) / 70))
    picture = _outlined(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), perception, _line(letters))
    canvas = Image.new("RGB", (max(size[0], SMALLEST), max(size[1], _LEAST_HEIGHT * letters)), PAPER)
    canvas.paste(picture, (0, 0))
    fonts = Fonts()
    pen = _Pen(ImageDraw.Draw(canvas), size, letters)
    drawn_relations = strongest(perception, relations)
    _draw_all(pen, perception, drawn_relations)
    numbered = write_labels(pen.draw, canvas.size, pen.labels, fonts, letters)
    drawn = _without_empty_margin(canvas, size[1])
    if with_lines:
        drawn = with_legend(drawn, legend(perception, numbered, len(drawn_relations)), fonts, letters)
    if path is not None:
        _save(drawn, Path(path))
    return drawn


def _without_empty_margin(canvas: Image.Image, height: int) -> Image.Image:
    """Crop the canvas after its last row with anything on it, to at least ``height`` pixels."""
    used = np.flatnonzero((np.asarray(canvas) != PAPER).any(axis=(1, 2)))
    return canvas.crop((0, 0, canvas.width, min(canvas.height, max(height, int(used.max(initial=0)) + 4))))


def strongest(perception: Perception, most: int) -> list[Relation]:
    """Choose the relations with a place that have the highest scores, at most one between two places."""
    chosen: list[Relation] = []
    placed = [relation for relation in perception.relations if relation.subject_box and relation.object_box]
    for relation in sorted(placed, key=lambda relation: -relation.score):
        ends = (relation.subject_box, relation.object_box)
        itself = relation.subject == relation.object and _overlap(*ends) >= _SAME_PLACE  # read by two experts
        if not itself and not any(_same_ends(ends, (o.subject_box, o.object_box)) for o in chosen):
            chosen.append(relation)
    return chosen[: max(0, most)]


def _same_ends(ends: tuple[Box, Box], others: tuple[Box, Box]) -> bool:
    """Return whether two relations are between the same two places, in either direction."""
    return any(
        _overlap(ends[0], one) >= _SAME_PLACE and _overlap(ends[1], other) >= _SAME_PLACE
        for one, other in (others, others[::-1])
    )


def _draw_all(pen: _Pen, perception: Perception, relations: list[Relation]) -> None:
    for segment, colour in zip(perception.segments, segment_colours(perception.segments), strict=True):
        label = f"{clean_label(describe(segment))} {segment.score:.2f}"
        if segment.mask is not None:
            pen.label(segment.box if segment.is_thing else _middle(segment), colour, label)
        else:
            pen.box(segment.box, colour, label)
    for detection in perception.detections:
        name = clean_label(detection.label)
        pen.box(detection.box, label_colour(name), f"{name} {detection.score:.2f}", dashed=True)
    for line in _distinct(perception.texts):
        pen.polygon(line.polygon, TEXT, f'"{clean(line.text)}" {line.score:.2f}')
    for relation in relations:
        label = f"{clean(relation.predicate)} {relation.score:.2f}"
        pen.arrow(relation.subject_box, relation.object_box, RELATION, label)


def _distinct(texts: tuple[TextLine, ...]) -> list[TextLine]:
    """Choose the lines with a place; of those that two experts read alike in one place the surest."""
    chosen: list[TextLine] = []
    for line in sorted((line for line in texts if line.polygon), key=lambda line: -line.score):
        box = bounds(line.polygon)
        if not any(line.text == o.text and _overlap(box, bounds(o.polygon)) >= _SAME_PLACE for o in chosen):
            chosen.append(line)
    return [line for line in texts if line in chosen]


def bounds(polygon: tuple[tuple[float, float], ...]) -> Box:
    """Compute the box around a polygon."""
    xs, ys = [x for x, _ in polygon], [y for _, y in polygon]
    return min(xs), min(ys), max(xs), max(ys)


def _overlap(a: Box, b: Box) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(0.0, wide) * max(0.0, high)
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - inside
    return inside / both if both > 0 else 0.0


def _outlined(picture: Image.Image, perception: Perception, line: int) -> Image.Image:
    """Outline the masks with a line of so many pixels inside, and a dark one outside; the rest keeps its colours."""
    for segment, colour in zip(perception.segments, segment_colours(perception.segments), strict=True):
        if segment.mask is None:
            continue
        inside = _smoothed(resize_nearest(segment.mask.decode(), picture.height, picture.width), line)
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if not rows.size:
            continue
        top, left = max(0, rows[0] - line - 2), max(0, columns[0] - line - 2)
        part = inside[top : rows[-1] + line + 3, left : columns[-1] + line + 3]
        core, grown = part, part
        for _ in range(line):
            core = _shrunk(core)
        for _ in range(max(1, line // 2)):
            grown = ~_shrunk(~grown)
        for ink, where in ((INK, grown & ~part), (colour, part & ~core)):
            picture.paste(ink, (int(left), int(top)), Image.fromarray(where.astype(np.uint8) * 255))
    return picture


def _smoothed(inside: np.ndarray, radius: int) -> np.ndarray:
    """Leave out specks and frayed edges, whose outlines would hide the picture; a mask of nothing else stays."""
    blurred = Image.fromarray(inside.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(radius))
    smooth = np.asarray(blurred) > 127
    return smooth if smooth.sum() > inside.sum() / 2 else inside


def _shrunk(inside: np.ndarray) -> np.ndarray:
    """Remove the cells that have a neighbour outside; the picture's border is no rim."""
    padded = np.pad(inside, 1, mode="edge")
    return inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _middle(segment: Segment) -> Box:
    """Return a point of the mask, as a box: the middle of the longest run of its middle row."""
    inside = segment.mask.decode()
    rows = np.flatnonzero(inside.any(axis=1))
    if not rows.size:
        return segment.box
    row = rows[rows.size // 2]
    edges = np.flatnonzero(np.diff(np.concatenate(([0], inside[row], [0])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    widest = np.argmax(ends - starts)
    x = (starts[widest] + ends[widest]) / 2 / inside.shape[1]
    y = (row + 0.5) / inside.shape[0]
    return x, y, x, y


class _Pen:
    """Draw shapes given in normalised coordinates, and collect their labels in pixels."""

    def __init__(self, draw: ImageDraw.ImageDraw, size: tuple[int, int], letters: int) -> None:
        self.draw, (self.width, self.height) = draw, size
        self.line = _line(letters)
        self.labels: list[Label] = []

    def label(self, box: Box, colour: Colour, text: str) -> None:
        self.labels.append(Label(self._pixels(box), text, colour))

    def box(self, box: Box, colour: Colour, label: str, dashed: bool = False) -> None:
        x0, y0, x1, y1 = pixels = self._pixels(box)
        x1, y1 = max(x0, x1), max(y0, y1)
        self.draw.rectangle((x0, y0, x1, y1), outline=INK, width=self.line + (0 if dashed else 2))
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
        if dashed:
            for start, end in zip(corners, corners[1:], strict=False):
                self._dashes(start, end, colour)
        else:
            self.draw.rectangle((x0, y0, x1, y1), outline=colour, width=self.line)
        self.labels.append(Label(pixels, label, colour))

    def polygon(self, points: tuple[tuple[float, float], ...], colour: Colour, label: str) -> None:
        corners = [(x * (self.width - 1), y * (self.height - 1)) for x, y in points]
        closed = [*corners, corners[0]]
        self.draw.line(closed, fill=INK, width=self.line + 2, joint="curve")
        self.draw.line(closed, fill=colour, width=self.line, joint="curve")
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        self.labels.append(Label((min(xs), min(ys), max(xs), max(ys)), label, colour))

    def arrow(self, start: Box, end: Box, colour: Colour, label: str) -> None:
        (ax, ay), (bx, by) = self._ends(start, end)
        length = math.hypot(bx - ax, by - ay)
        if length < 1:  # the same place: an arrow would have no direction, so only its label is drawn
            self.labels.append(Label((ax, ay, ax, ay), label, colour))
            return
        head = min(6.0 * self.line, length / 2)
        ux, uy = (bx - ax) / length, (by - ay) / length
        # Arrows keep to the right, so that there and back between two objects are two lines.
        ax, ay, bx, by = (v + shift * head / 2 for v, shift in ((ax, -uy), (ay, ux), (bx, -uy), (by, ux)))
        neck = (bx - ux * head, by - uy * head)
        side = (-uy * head / 2, ux * head / 2)
        tip = [(bx, by), (neck[0] + side[0], neck[1] + side[1]), (neck[0] - side[0], neck[1] - side[1])]
        self.draw.line([(ax, ay), neck], fill=INK, width=self.line + 2)
        self.draw.line([(ax, ay), neck], fill=colour, width=self.line)
        self.draw.polygon(tip, fill=colour, outline=INK)
        # At a third of the way: halfway, the labels of there and back would meet.
        third = (ax + (bx - ax) / 3, ay + (by - ay) / 3)
        self.labels.append(Label((*third, *third), label, colour))

    def _ends(self, start: Box, end: Box) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the ends of an arrow: on the boxes' edges, or at their centres where one box reaches the other's."""
        a, b = self._centre(start), self._centre(end)
        out, into = _leaving(self._pixels(start), a, b), _leaving(self._pixels(end), b, a)
        apart = math.dist(a, out) + math.dist(b, into) < 0.8 * math.dist(a, b)
        return (out, into) if apart else (a, b)

    def _dashes(self, start: tuple[float, float], end: tuple[float, float], colour: Colour) -> None:
        length, dash = math.dist(start, end), 5.0 * self.line
        (ax, ay), (bx, by) = start, end
        for index in range(int(length / dash) + 1):
            if index % 2 == 0:
                low, high = (min(1.0, (index + step) * dash / max(length, 1e-9)) for step in (0, 1))
                ends = [(ax + (bx - ax) * part, ay + (by - ay) * part) for part in (low, high)]
                self.draw.line(ends, fill=colour, width=self.line)

    def _pixels(self, box: Box) -> Box:
        across, down = self.width - 1, self.height - 1
        return box[0] * across, box[1] * down, box[2] * across, box[3] * down

    def _centre(self, box: Box) -> tuple[float, float]:
        x0, y0, x1, y1 = self._pixels(box)
        return (x0 + x1) / 2, (y0 + y1) / 2


def _line(letters: int) -> int:
    """Return the width of lines beside letters of so many pixels."""
    return max(2, round(letters / 7))


def _leaving(box: Box, centre: tuple[float, float], to: tuple[float, float]) -> tuple[float, float]:
    """Return where a line from a box's centre to another point leaves the box."""
    dx, dy = to[0] - centre[0], to[1] - centre[1]
    half = ((box[2] - box[0]) / 2, (box[3] - box[1]) / 2)
    parts = [side / abs(step) for side, step in zip(half, (dx, dy), strict=True) if abs(step) > 1e-9]
    part = min([1.0, *parts])
    return centre[0] + part * dx, centre[1] + part * dy


def _save(drawn: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(path)
    except ValueError as error:
        raise ImageError(f"cannot tell a picture format from '{path}'; end the name in .png or .jpg") from error
    except OSError as error:
        raise ImageError(
            f"cannot write the overlay '{path}': {error.strerror or error}; choose another path"
        ) from error
