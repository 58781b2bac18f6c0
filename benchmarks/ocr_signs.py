"""Character error rate of the OCR experts on 50 rendered signs and on a photographed page.

    python benchmarks/ocr_signs.py rapidocr easyocr
    python benchmarks/ocr_signs.py easyocr:rotations=90,180,270 --only turned

Knows: how the signs are drawn. Each has one text and one of eight fonts (matplotlib's DejaVu family and the one inside
Pillow) and is shown under every condition. The rate is the edit distance over all signs divided by the number of
characters on them; upper and lower case differ, and words that are found apart are joined by a space. The page is
scikit-image's `data.page()`, a photograph.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from moai.expert import Expert
from moai.perception.words.reading_order import reading_order
from moai.plugins import registry
from moai.types import Perception, TextLine

SIZE = (256, 256)  # pixels; square, so that a turned sign costs what an upright one costs
TEXTS = """STOP|EXIT 42|Platform 7|NO PARKING|Gate B12|One Way|Main Street 118|OPEN 9-17|Café Central|Fire Exit|
Pay Here|SALE -50%|Zone 30|Push to open|Room 204|Way Out|Tickets|Mind the gap|Keep left|KM 250|Do not enter|Hospital|
Taxi stand|Bus 38 North|PULL|Danger 400 V|Wet Floor|Private|School|Detour|Max. 2.1 m|Airport 5 km|Library|Lift 3|
Please wait|Staff only|Self service|Quiet zone|No smoking|Bakery since 1921|Toll 4,50|Level -2|Reception|Cash only|
Track 11|Ring the bell|EMERGENCY|Beware of dog|Speed limit 80|Car wash""".replace("\n", "").split("|")
FACES = ("Sans", "Sans-Bold", "Sans-Oblique", "Serif", "Serif-Bold", "SansMono", "SansMono-Bold")
PAGE = (
    "Region-based segmentation\nLet us first determine markers of the coins and the\n"
    "background. These markers are pixels that we can label\nunambiguously as either object or background. Here,\n"
    "the markers are found at the two extreme parts of the\nhistogram of grey values:\n"
    ">>> markers = np.zeros_like(coins)"
)
PAGE_ROWS = 181  # below, the photograph cuts through a line
# name -> ink, paper, degrees counter-clockwise, font size, what is done to the picture at last
CONDITIONS: dict[str, tuple[str, str, int, int, Callable[[Image.Image], Image.Image]]] = {
    "black on white": ("black", "white", 0, 30, lambda image: image),
    "low contrast": ("#a8a8a8", "#c8c8c8", 0, 30, lambda image: image),
    "yellow on blue": ("#ffd800", "#0b3d91", 0, 30, lambda image: image),
    "small (14 px)": ("black", "white", 0, 14, lambda image: image),
    "blur and noise": ("black", "white", 0, 30, lambda image: worn(image)),
    "turned 15": ("black", "white", 15, 30, lambda image: image),
    "turned 90": ("black", "white", 90, 30, lambda image: image),
    "turned 180": ("black", "white", 180, 30, lambda image: image),
}


def draw(number: int, condition: str) -> Image.Image:
    """One sign under one condition."""
    ink, paper, degrees, height, finish = CONDITIONS[condition]
    image = Image.new("RGB", SIZE, paper)
    pen = ImageDraw.Draw(image)
    text, font = TEXTS[number], face(number, height)
    if pen.textlength(text, font) > SIZE[0] * 0.9:
        font = face(number, int(height * SIZE[0] * 0.9 / pen.textlength(text, font)))
    pen.text((SIZE[0] / 2, SIZE[1] / 2), text, font=font, fill=ink, anchor="mm")
    return finish(image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=paper))


def face(number: int, height: int) -> ImageFont.FreeTypeFont:
    """The font of a sign; every eighth has Pillow's own."""
    if number % (len(FACES) + 1) == len(FACES):
        return ImageFont.load_default(height)
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(folder / f"DejaVu{FACES[number % (len(FACES) + 1)]}.ttf", height)


def worn(image: Image.Image) -> Image.Image:
    """Out of focus, and grainy."""
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(2)), dtype=float)
    noise = np.random.default_rng(0).normal(0, 25, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def spoken(seen: Perception, size: tuple[int, int], degrees: float) -> str:
    """What was read, in the order that it has on the upright sign."""
    turned = [TextLine(line.text, line.score, upright(line.polygon, size, degrees)) for line in seen.texts]
    return " ".join(line.text for line in reading_order(turned))


def upright(polygon: Sequence[tuple[float, float]], size: tuple[int, int], degrees: float):
    """A polygon, turned back about the middle of the picture; in pixels."""
    angle, points = math.radians(degrees), []
    for x, y in polygon:
        right, down = (x - 0.5) * size[0], (y - 0.5) * size[1]
        across = right * math.cos(angle) - down * math.sin(angle)
        points.append((across, right * math.sin(angle) + down * math.cos(angle)))
    return tuple(points)


def distance(left: str, right: str) -> int:
    """Levenshtein's: the fewest insertions, deletions and substitutions."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def rates(read: Sequence[str], true: Sequence[str]) -> str:
    """``CER, CER without spaces`` in per cent, as a cell of a table."""
    figures = []
    for strip in (str, lambda text: text.replace(" ", "")):
        pairs = [(strip(a), strip(b)) for a, b in zip(read, true, strict=True)]
        wrong = sum(distance(a, b) for a, b in pairs)
        figures.append(f"{100 * wrong / sum(len(b) for _, b in pairs):.1f}")
    return f"{figures[0]} ({figures[1]})"


def measure(expert: Expert, count: int, conditions: Sequence[str]) -> Iterator[tuple[str, str]]:
    """``(condition, rates)`` one after another, the photographed page, and the mean seconds per sign."""
    spent = 0.0
    for condition in conditions:
        images = [draw(number, condition) for number in range(count)]
        start = time.perf_counter()
        seen = expert.perceive(images, [Perception()] * count)
        spent += time.perf_counter() - start
        read = [spoken(one, image.size, CONDITIONS[condition][2]) for one, image in zip(seen, images, strict=True)]
        yield condition, rates(read, TEXTS[:count])
    yield "page()", page(expert)
    yield "seconds per sign", f"{spent / (count * len(conditions)):.2f}"


def page(expert: Expert) -> str:
    """Rates on the photographed page."""
    import skimage.data

    image = Image.fromarray(skimage.data.page()[:PAGE_ROWS]).convert("RGB")
    (seen,) = expert.perceive([image], [Perception()])
    return rates([spoken(seen, image.size, 0)], [PAGE.replace("\n", " ")])


def build(wanted: str) -> Expert:
    """``name`` or ``name:rotations=90,180,270``, loaded."""
    name, _, option = wanted.partition(":")
    key, _, values = option.partition("=")
    options = {key: [int(value) for value in values.split(",")]} if key else {}
    expert = registry().get_expert(name)(**options)
    expert.load("cpu")
    return expert


def main() -> None:
    """Print a table per expert: CER in per cent, in brackets without spaces."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experts", nargs="+", help="for instance rapidocr easyocr:rotations=90,180,270")
    parser.add_argument("--count", type=int, default=len(TEXTS), help="the first so many signs")
    parser.add_argument("--only", default="", help="conditions whose name starts so, for instance turned")
    arguments = parser.parse_args()
    conditions = [name for name in CONDITIONS if name.startswith(arguments.only)]
    for wanted in arguments.experts:
        print(f"| condition | {wanted} |\n| --- | --- |", flush=True)
        for row in measure(build(wanted), arguments.count, conditions):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
