"""Load the fonts in which `scenes` prints words: matplotlib's DejaVu files and the one inside Pillow.

Knows: font files and the size of a printed word.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from moai.errors import AssetError

PILLOW = "Pillow"
FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSansMono-Bold.ttf",
    PILLOW,
)
DETAIL = 4  # words are measured and drawn this many times larger, then shrunk: smooth, and free of hinting
PAD = (6, 4)  # pixels of plate to the left and right of a word, and above and below


@lru_cache(256)
def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Load one of `FONTS` at ``size`` pixels times `DETAIL`.

    Raises:
        AssetError: matplotlib does not hold the file, or Pillow was built without FreeType.
    """
    try:
        if name == PILLOW:
            font = ImageFont.load_default(size * DETAIL)
        else:
            import matplotlib

            font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size * DETAIL)
    except (OSError, ImportError) as error:
        raise AssetError(
            f"scenes: the font {name} cannot be loaded ({error}); reinstall pillow and matplotlib"
        ) from None
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise AssetError("scenes: this Pillow cannot scale fonts; install one that is built with FreeType")
    return font


@lru_cache(8192)
def measure(text: str, font: str, size: int) -> tuple[float, float]:
    """Measure width and height in pixels of a word with its plate."""
    left, top, right, bottom = load_font(font, size).getbbox(text)
    return (right - left) / DETAIL + 2 * PAD[0], (bottom - top) / DETAIL + 2 * PAD[1]
