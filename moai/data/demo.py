"""Draw a small picture with shapes and printed words, to try experts without a data set.

Knows: Pillow. The same pixels come out every time; nothing is read from disk or drawn at random.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE = (320, 240)  # width, height
WORDS = "EXIT 42"
_SCALE = 4  # drawn larger and shrunk, for smooth edges
_PAPER = (245, 243, 238)


def demo_picture() -> Image.Image:
    """Draw a sign that says `WORDS` over a yellow circle inside a blue square, a red triangle and a brown circle.

    Returns:
        An RGB picture, 320 x 240 pixels.
    """
    image = Image.new("RGB", (SIZE[0] * _SCALE, SIZE[1] * _SCALE), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.rectangle(_scaled(60, 16, 260, 76), fill=(0, 110, 50))
    draw.rectangle(_scaled(24, 124, 114, 214), fill=(0, 0, 255))
    draw.ellipse(_scaled(44, 144, 94, 194), fill=(255, 255, 0))
    draw.polygon(_scaled(170, 120, 215, 214, 125, 214), fill=(255, 0, 0))
    draw.ellipse(_scaled(232, 138, 304, 210), fill=(165, 42, 42))
    image = image.resize(SIZE, Image.Resampling.BOX)
    # Words are drawn at their final size: shrunk letters are paler, and an OCR expert is less sure of them.
    ImageDraw.Draw(image).text((160, 46), WORDS, font=ImageFont.load_default(40), fill=_PAPER, anchor="mm")
    return image


def save_demo(path: Path) -> Image.Image:
    """Save the picture into a PNG file, whose folder is made where it is missing, and return the picture."""
    picture = demo_picture()
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return picture


def _scaled(*values: int) -> list[int]:
    return [value * _SCALE for value in values]
