"""Draw a scene of `scenes`: the background, then figures and words with smooth edges.

Knows: Pillow. Figures are flat; where a figure would hardly stand out from the background, it gets a rim.
"""

from __future__ import annotations

import io
import math

from PIL import Image, ImageDraw, ImageStat

from moai_scenes.backdrops import cut
from moai_scenes.fonts import DETAIL, load_font, measure
from moai_scenes.plan import Figure, Scene, Word, box_of

QUALITY = 92  # of the JPEG files
RIM = 1.5  # pixels
STROKE = 2  # pixels of the line around letters without a plate
DISTINCT = 110.0  # RGB distance between a figure and its surroundings below which it always gets a rim
DARK, LIGHT = (18, 18, 22), (248, 248, 244)


def render(scene: Scene) -> bytes:
    """Return the picture as a JPEG file, 256 x 256 pixels."""
    picture = cut(scene.backdrop)
    for figure in scene.figures:
        _draw_figure(picture, figure)
    for word in scene.words:
        _draw_word(picture, word)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def _draw_figure(picture: Image.Image, figure: Figure) -> None:
    box = box_of(figure.outline)
    background = ImageStat.Stat(picture.crop(tuple(round(value) for value in box))).mean
    near = math.dist(background, figure.rgb) < DISTINCT
    left, top = int(box[0]) - 3, int(box[1]) - 3
    size = (math.ceil(box[2]) + 3 - left, math.ceil(box[3]) + 3 - top)
    points = [((x - left) * DETAIL, (y - top) * DETAIL) for x, y in figure.outline]
    if figure.rim or near:
        rim = LIGHT if sum(background) < 3 * 128 else DARK
        _stamp(picture, points, size, (left, top), rim, round(2 * RIM * DETAIL))
    _stamp(picture, points, size, (left, top), figure.rgb, 0)


def _stamp(picture, points, size, corner, rgb, line: int) -> None:
    """Fill a polygon, grown by half of ``line``; the points and the line are `DETAIL` times larger than pixels."""
    mask = Image.new("L", (size[0] * DETAIL, size[1] * DETAIL))
    pen = ImageDraw.Draw(mask)
    pen.polygon(points, fill=255)
    if line:
        pen.line([*points, *points[:2]], fill=255, width=line, joint="curve")
    picture.paste(rgb, corner, mask.resize(size, Image.Resampling.BOX))


def _draw_word(picture: Image.Image, word: Word) -> None:
    ink, ground = (DARK, LIGHT) if word.dark else (LIGHT, DARK)
    font = load_font(word.font, word.size)
    width, height = (round(value * DETAIL) for value in measure(word.text, word.font, word.size))
    # The ground's colour everywhere: turning and shrinking then blend the rim with it and not with black.
    patch = Image.new("RGBA", (width, height), (*ground, 0))
    pen = ImageDraw.Draw(patch)
    if word.plate:
        pen.rounded_rectangle((0, 0, width - 1, height - 1), 3 * DETAIL, (*ground, 255))
    left, top, right, bottom = font.getbbox(word.text)
    corner = ((width - right - left) / 2, (height - bottom - top) / 2)
    line = 0 if word.plate else STROKE * DETAIL
    pen.text(corner, word.text, (*ink, 255), font, stroke_width=line, stroke_fill=(*ground, 255))
    patch = patch.rotate(word.angle, Image.Resampling.BICUBIC, expand=True, fillcolor=(*ground, 0))
    patch = patch.resize((round(patch.width / DETAIL), round(patch.height / DETAIL)), Image.Resampling.BOX)
    x0, y0, x1, y1 = box_of(word.outline)
    corner = (round((x0 + x1 - patch.width) / 2), round((y0 + y1 - patch.height) / 2))
    picture.paste(patch, corner, patch)
