"""Choose fonts for the text of any script.

Knows: the installed fonts and their characters (matplotlib finds the fonts and reads their tables). ASCII is drawn in
Pillow's own font. Characters that no font has are drawn as "?" and listed in the legend.
"""

from __future__ import annotations

import functools
import logging
import unicodedata
from collections.abc import Iterable

from PIL import ImageFont

log = logging.getLogger("moai")
Font = ImageFont.FreeTypeFont
# Families that hold many scripts, tried in this order; then every other font of the system.
_PREFERRED = ("DejaVu Sans", "Noto Sans CJK", "Noto Sans", "Source Han", "Arial Unicode", "WenQuanYi", "Droid Sans")
# Their glyphs are pictures of one size, or one placeholder for all characters of a script.
_UNFIT = ("emoji", "lastresort", "last resort")


class Fonts:
    """Choose a font per text, and collect the characters that no font has."""

    def __init__(self) -> None:
        self.missing: set[str] = set()

    def fit(self, text: str, size: int) -> tuple[str, Font]:
        """Return the text with "?" for missing characters, and a font of ``size`` pixels for it."""
        text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")  # would reorder the line
        if text.isascii():
            return text, _sized(None, size)
        path, lacking = _best(frozenset(map(ord, text)))
        self.missing |= {chr(code) for code in lacking}
        return "".join("?" if ord(letter) in lacking else letter for letter in text), _sized(path, size)

    def missing_note(self) -> str:
        """Write the legend's sentence about the characters drawn as "?"; empty when there are none."""
        if not self.missing:
            return ""
        scripts = sorted({unicodedata.name(letter, "unnamed").split()[0] for letter in self.missing})
        shown = ", ".join(scripts[:6]) + (", ..." if len(scripts) > 6 else "")
        return f'"?" stands for characters that no installed font has ({shown}); install one, such as Noto Sans CJK'


@functools.lru_cache(maxsize=256)
def _best(needed: frozenset[int]) -> tuple[str | None, frozenset[int]]:
    """Find the first font with all of the characters, or the one that lacks the fewest, and those it lacks."""
    best, fewest = None, frozenset(code for code in needed if code > 127)  # Pillow's own font counts as ASCII only
    for path in _paths():
        lacking = needed - _characters(path)
        if len(lacking) < len(fewest):
            best, fewest = path, lacking
        if not fewest:
            break
    return best, fewest


@functools.lru_cache(maxsize=1)
def _paths() -> tuple[str, ...]:
    from matplotlib import font_manager

    found = {font.fname: font for font in font_manager.fontManager.ttflist if _is_plain(font)}
    return tuple(sorted(found, key=lambda path: _preference(found[path])))


def _is_plain(font) -> bool:
    name = f"{font.name} {font.fname}".lower()
    return font.style == "normal" and font.fname.lower().endswith((".ttf", ".ttc", ".otf")) and not _any(_UNFIT, name)


def _any(parts: Iterable[str], name: str) -> bool:
    return any(part in name for part in parts)


def _preference(font) -> tuple:
    rank = next((rank for rank, family in enumerate(_PREFERRED) if font.name.startswith(family)), len(_PREFERRED))
    bold = font.weight not in (400, "normal", "regular", "book", "roman")
    return rank, bold, len(font.name), font.stretch != "normal", font.fname


@functools.cache
def _characters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(path, 12)  # Pillow cannot draw every font that matplotlib reads
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError) as error:
        log.debug("font '%s' cannot be read: %s", path, error)
        return frozenset()


@functools.lru_cache(maxsize=64)
def _sized(path: str | None, size: int) -> Font:
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)
