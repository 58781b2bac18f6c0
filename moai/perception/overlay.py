"""What the experts saw, drawn on the picture, for people to look at.

Knows: Pillow's drawing. Small pictures are enlarged first, so that boxes and labels stay legible; a legend under the
picture lists every expert with what it gave or why it failed, and everything that has no place in the picture.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from moai.errors import ImageError
from moai.perception.panoptic_map import Colour, label_colour, segment_colours
from moai.perception.types import Box, Perception, describe
from moai.perception.verbalize import clean, clean_label

SMALLEST, LARGEST = 512, 2048  # pixels of the longest side of the drawn picture
_MASK_ALPHA = 90  # of 255
_RELATION: Colour = (255, 255, 255)
_TEXT: Colour = (0, 220, 255)
_INK: Colour = (20, 20, 20)
_PAPER: Colour = (250, 250, 250)
_ALARM: Colour = (190, 20, 20)
_KINDS = {"panoptic": "segments", "open_world": "detections", "scene_graph": "relations", "ocr": "texts"}
_MOST_LINES = 30  # of the legend


def draw_overlay(image: Image.Image, perception: Perception, path: str | os.PathLike | None = None) -> Image.Image:
    """Draw a perception on its image.

    Args:
        image: RGB, the one that was perceived.
        perception: masks are tinted, boxes outlined and labelled, relations are arrows between the centres of their
            boxes, lines of text are outlined by their polygons. Relations and texts without a place are in the legend.
        path: where to save the picture as well (PNG or JPEG by its suffix).

    Returns:
        A new RGB image: the picture, longest side 512 to 2048 pixels, and a legend under it.

    Raises:
        ImageError: ``path`` cannot be written.
    """
    scale = min(max(1.0, SMALLEST / max(image.size)), LARGEST / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    picture = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    picture = _tint(picture, perception)
    pen = _Pen(picture)
    for segment, colour in zip(perception.segments, segment_colours(perception.segments), strict=True):
        pen.box(segment.box, colour, f"{clean_label(describe(segment))} {segment.score:.2f}")
    for detection in perception.detections:
        pen.box(detection.box, label_colour(clean_label(detection.label)), f"{detection.label} {detection.score:.2f}")
    for line in perception.texts:
        if line.polygon:
            pen.polygon(line.polygon, _TEXT, f'"{line.text}" {line.score:.2f}')
    for relation in perception.relations:
        if relation.subject_box and relation.object_box:
            pen.arrow(relation.subject_box, relation.object_box, _RELATION, relation.predicate)
    pen.write_labels()
    drawn = _with_legend(picture, _legend(perception))
    if path is not None:
        _save(drawn, Path(path))
    return drawn


def _tint(picture: Image.Image, perception: Perception) -> Image.Image:
    for segment, colour in zip(perception.segments, segment_colours(perception.segments), strict=True):
        if segment.mask is not None:
            alpha = Image.fromarray(segment.mask.decode()).convert("L").resize(picture.size, Image.Resampling.NEAREST)
            picture.paste(colour, mask=alpha.point(lambda value: _MASK_ALPHA if value else 0))
    return picture


class _Pen:
    """Draws outlines at once and labels at the end, each where it covers no other label if there is such a place."""

    def __init__(self, picture: Image.Image) -> None:
        self.draw = ImageDraw.Draw(picture)
        self.width, self.height = picture.size
        self.line = max(2, round(max(picture.size) / 300))
        self.font = ImageFont.load_default(max(12, round(max(picture.size) / 38)))
        self.labels: list[tuple[float, float, float, float, str, Colour]] = []  # anchor box in pixels, text, colour

    def box(self, box: Box, colour: Colour, label: str) -> None:
        x0, y0, x1, y1 = self._pixels(box)
        self.draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=_INK, width=self.line + 2)
        self.draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=colour, width=self.line)
        self.labels.append((x0, y0, x1, y1, label, colour))

    def polygon(self, points: tuple[tuple[float, float], ...], colour: Colour, label: str) -> None:
        corners = [(x * (self.width - 1), y * (self.height - 1)) for x, y in points]
        closed = [*corners, corners[0]]
        self.draw.line(closed, fill=_INK, width=self.line + 2, joint="curve")
        self.draw.line(closed, fill=colour, width=self.line, joint="curve")
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        self.labels.append((min(xs), min(ys), max(xs), max(ys), label, colour))

    def arrow(self, start: Box, end: Box, colour: Colour, label: str) -> None:
        (ax, ay), (bx, by) = self._centre(start), self._centre(end)
        length = math.hypot(bx - ax, by - ay)
        if length < 1:  # the same place: an arrow has no direction, its label still says what it is
            self.labels.append((ax, ay, ax, ay, label, colour))
            return
        head = min(6.0 * self.line, length / 2)
        ux, uy = (bx - ax) / length, (by - ay) / length
        # Arrows keep to the right, so that there and back between two objects are two lines.
        ax, ay, bx, by = (v + shift * head / 2 for v, shift in ((ax, -uy), (ay, ux), (bx, -uy), (by, ux)))
        neck = (bx - ux * head, by - uy * head)
        side = (-uy * head / 2, ux * head / 2)
        tip = [(bx, by), (neck[0] + side[0], neck[1] + side[1]), (neck[0] - side[0], neck[1] - side[1])]
        self.draw.line([(ax, ay), neck], fill=_INK, width=self.line + 2)
        self.draw.line([(ax, ay), neck], fill=colour, width=self.line)
        self.draw.polygon(tip, fill=colour, outline=_INK)
        # At a third of the way: halfway, the labels of there and back would meet.
        third = (ax + (bx - ax) / 3, ay + (by - ay) / 3)
        self.labels.append((*third, *third, label, colour))

    def write_labels(self) -> None:
        placed: list[Box] = []
        for x0, y0, x1, y1, text, colour in self.labels:
            text = _shorten(self.draw, text, self.font, self.width - 4)
            spot = self._spot((x0, y0, x1, y1), text, placed)
            placed.append(spot)
            self.draw.rectangle(spot, fill=colour, outline=_INK)
            ink = _INK if 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2] > 110 else _PAPER
            self.draw.text((spot[0] + 3, (spot[1] + spot[3]) / 2), text, fill=ink, font=self.font, anchor="lm")

    def _spot(self, anchor: Box, text: str, placed: list[Box]) -> Box:
        x0, y0, x1, y1 = anchor
        wide = self.draw.textlength(text, font=self.font) + 6
        high = self.font.size * 1.3
        rows = [y0 - high, y1, y0, y1 - high, *(y0 + step * high for step in range(1, 8))]
        spots = []
        for top in rows:
            left = min(max(0.0, x0), max(0.0, self.width - wide - 1))
            top = min(max(0.0, top), max(0.0, self.height - high - 1))
            spots.append((left, top, left + wide, top + high))
        return min(spots, key=lambda spot: sum(_overlap(spot, other) for other in placed))

    def _pixels(self, box: Box) -> Box:
        across, down = self.width - 1, self.height - 1
        return box[0] * across, box[1] * down, box[2] * across, box[3] * down

    def _centre(self, box: Box) -> tuple[float, float]:
        x0, y0, x1, y1 = self._pixels(box)
        return (x0 + x1) / 2, (y0 + y1) / 2


def _legend(perception: Perception) -> list[tuple[str, Colour]]:
    lines = []
    for source in perception.sources:
        kind = _KINDS.get(source.role)
        count = f": {len(getattr(perception, kind))} {kind}" if kind else ""
        lines.append((f"{source.expert} {source.version} ({source.role}){count}", _INK))
    lines += [(f"{failure.expert}: {failure.reason}", _ALARM) for failure in perception.failures]
    lines += [(f'text "{line.text}"', _INK) for line in perception.texts if not line.polygon]
    lines += [
        (f"{relation.subject} {relation.predicate} {relation.object}", _INK)
        for relation in perception.relations
        if not (relation.subject_box and relation.object_box)
    ]
    lines += [(f"{role}: {text}", _INK) for role, texts in sorted(perception.notes.items()) for text in texts]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], (f"... and {len(lines) - _MOST_LINES} more", _INK)]
    return lines or [("no expert answered", _ALARM)]


def _with_legend(picture: Image.Image, lines: list[tuple[str, Colour]]) -> Image.Image:
    font = ImageFont.load_default(max(12, round(max(picture.size) / 42)))
    step = round(font.size * 1.4)
    width = max(picture.width, SMALLEST)
    lines = [(row, colour) for text, colour in lines for row in _wrap(text, font, width - 12)]
    sheet = Image.new("RGB", (width, picture.height + step * len(lines) + 10), _PAPER)
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for number, (text, colour) in enumerate(lines):
        row = picture.height + 5 + step * number
        draw.text((6, row + step / 2), text, fill=colour, font=font, anchor="lm")
    return sheet


def _wrap(text: str, font: ImageFont.FreeTypeFont, room: float) -> list[str]:
    rows = [""]
    for word in clean(text).split(" "):
        longer = f"{rows[-1]} {word}".strip()
        if rows[-1] and font.getlength(longer) > room:
            rows.append(f"    {word}")
        else:
            rows[-1] = longer if len(rows) == 1 else f"    {longer}"
    return rows


def _shorten(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    stem = shown = clean(text)
    while stem and draw.textlength(shown, font=font) > room:
        stem = stem[: -1 - len(stem) // 8]
        shown = f"{stem}..."
    return shown


def _overlap(one: Box, other: Box) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, across) * max(0.0, down)


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
