"""Write the legend under an overlay.

Knows: its lines, and a small sign per role that shows how the role's findings are drawn.
"""

from __future__ import annotations

from PIL import Image, ImageDraw

from moai.perception.drawing.fonts import Fonts
from moai.perception.drawing.labels import INK, PAPER, width_of
from moai.perception.drawing.panoptic_map import Colour
from moai.perception.words.formatting import clean
from moai.types import Box, Perception, Source

RELATION: Colour = (255, 255, 255)
TEXT: Colour = (0, 220, 255)
_SAMPLE: Colour = (240, 150, 30)  # an example: each class has a colour of its own
_ALARM: Colour = (190, 20, 20)
_KINDS = {"panoptic": "segment", "open_world": "detection", "scene_graph": "relation", "ocr": "text"}
_MOST_LINES = 40
Entry = tuple[str, Colour, str]  # text, its colour, the role whose sign is before it


def legend(perception: Perception, numbered: list[tuple[int, str]], relations: int) -> list[Entry]:
    """List the lines under the picture: experts, failures, numbered labels, and findings without a place in it.

    Args:
        perception: what is drawn.
        numbered: the labels that are numbers in the picture, with their texts.
        relations: how many of the relations with a place are drawn.
    """
    lines: list[Entry] = []
    for source in perception.sources:
        about = f"{source.expert}, version {source.version} ({source.role})"
        lines.append((f"{about}: {_count(perception, source)}", INK, source.role))
    placed = sum(bool(relation.subject_box and relation.object_box) for relation in perception.relations)
    if relations < placed:
        lines.append((f"drawn: the strongest {relations} of {placed} relations", INK, ""))
    lines += [(f"{failure.expert}: {failure.reason}", _ALARM, "") for failure in perception.failures]
    if numbered:
        lines.append(("; ".join(f"{number} = {clean(text)[:40]}" for number, text in numbered), INK, ""))
    lines += [(f'text "{line.text}"', INK, "") for line in perception.texts if not line.polygon]
    lines += [
        (f"{relation.subject} {relation.predicate} {relation.object}", INK, "")
        for relation in perception.relations
        if not (relation.subject_box and relation.object_box)
    ]
    lines += [(f"{role}: {text}", INK, "") for role, texts in sorted(perception.notes.items()) for text in texts]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], (f"... and {len(lines) - _MOST_LINES} more", INK, "")]
    return lines or [("no expert answered", _ALARM, "")]


def _count(perception: Perception, source: Source) -> str:
    """Count what an expert found: ``no text``, ``1 text``, ``2 texts``."""
    kind = _KINDS.get(source.role)
    if kind is None:
        return _plural(len(perception.notes.get(source.role, ())), "note")
    found = getattr(perception, f"{kind}s")
    alone = sum(other.role == source.role for other in perception.sources) == 1
    if any(not item.source for item in found):  # made by hand, or stored before findings had sources
        return _plural(len(found), kind) + ("" if alone else " together with others of its role")
    return _plural(sum(item.source == source.expert for item in found), kind)


def _plural(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count < 2 else 's'}"


def with_legend(canvas: Image.Image, lines: list[Entry], fonts: Fonts, letters: int) -> Image.Image:
    """Add these lines under the canvas, in letters of so many pixels; signs show how each role is drawn."""
    step, indent = round(letters * 1.5), round(2.6 * letters) + 6
    room = canvas.width - indent - 6
    rows = _rows(lines, fonts, letters, room)
    if note := fonts.missing_note():  # complete only after everything has been measured
        rows += _rows([(note, _ALARM, "")], fonts, letters, room)
    sheet = Image.new("RGB", (canvas.width, canvas.height + step * len(rows) + 10), PAPER)
    sheet.paste(canvas, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for number, (text, colour, role) in enumerate(rows):
        middle = canvas.height + 5 + step * (number + 0.5)
        _sign(draw, role, (6, middle - letters * 0.45, 6 + 2 * letters, middle + letters * 0.45))
        shown, font = fonts.fit(text, letters)
        draw.text((indent, middle), shown, fill=colour, font=font, anchor="lm")
    return sheet


def _rows(lines: list[Entry], fonts: Fonts, letters: int, room: float) -> list[Entry]:
    """Wrap the lines to ``room`` pixels; only the first row of a line has its sign."""
    wrapped = [(_wrap(text, fonts, letters, room), colour, role) for text, colour, role in lines]
    return [(row, colour, "" if number else role) for rows, colour, role in wrapped for number, row in enumerate(rows)]


def _wrap(text: str, fonts: Fonts, letters: int, room: float) -> list[str]:
    rows = [""]
    for word in clean(text).split(" "):
        longer = f"{rows[-1]} {word}".strip() if len(rows) == 1 else f"{rows[-1]} {word}"
        if rows[-1] and width_of(fonts, longer, letters) > room:
            rows.append(f"    {word}")
        else:
            rows[-1] = longer
    return rows


def _sign(draw: ImageDraw.ImageDraw, role: str, box: Box) -> None:
    """Draw a role's sign: segments a solid box, detections a dashed one, relations an arrow, texts an outline."""
    x0, y0, x1, y1 = box
    middle = (y0 + y1) / 2
    if role == "panoptic":
        draw.rectangle(box, outline=INK, width=4)
        draw.rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), outline=_SAMPLE, width=2)
    elif role == "open_world":
        draw.rectangle(box, outline=INK, width=3)
        for step in range(0, 8, 2):
            low, high = (x0 + (x1 - x0) * part / 8 for part in (step, step + 1))
            draw.line([(low, y0), (high, y0)], fill=_SAMPLE, width=2)
            draw.line([(low, y1), (high, y1)], fill=_SAMPLE, width=2)
    elif role == "scene_graph":
        half = (y1 - y0) / 2
        draw.line([(x0, middle), (x1 - half, middle)], fill=INK, width=4)
        draw.line([(x0, middle), (x1 - half, middle)], fill=RELATION, width=2)
        draw.polygon([(x1, middle), (x1 - 2 * half, y0), (x1 - 2 * half, y1)], fill=RELATION, outline=INK)
    elif role == "ocr":
        corners = [(x0 + 3, y0), (x1, y0), (x1 - 3, y1), (x0, y1), (x0 + 3, y0)]
        draw.line(corners, fill=INK, width=4)
        draw.line(corners, fill=TEXT, width=2)
