"""Find example pictures in packages that are installed, and draw one.

Knows: names of packages and of files in them; none of the packages is imported, and none is needed.
"""

from __future__ import annotations

import functools
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

import moai

THUMBNAIL = 320  # pixels of the longer side
_PICTURES = (  # package, file in it, title
    ("ultralytics", "assets/bus.jpg", "Bus stop"),
    ("skimage", "data/astronaut.png", "Astronaut"),
    ("skimage", "data/coffee.png", "Coffee"),
    ("skimage", "data/chelsea.png", "Cat"),
    ("ultralytics", "assets/zidane.jpg", "Two coaches"),
    ("sklearn", "datasets/images/china.jpg", "Temple"),
    ("skimage", "data/motorcycle_left.png", "Motorcycle"),
    ("skimage", "data/rocket.jpg", "Rocket"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "Grace Hopper"),
)
DRAWN = "shapes"


@dataclass(frozen=True)
class Example:
    """Name an example picture; without a path it is drawn."""

    id: str
    title: str
    path: Path | None = None

    def picture(self) -> Image.Image:
        """Read or draw the picture."""
        return draw_shapes() if self.path is None else moai.read_image(self.path)


@functools.cache
def examples() -> dict[str, Example]:
    """Return the examples that this machine has, by id."""
    found = []
    for package, name, title in _PICTURES:
        spec = importlib.util.find_spec(package)
        folders: Sequence[str] = (spec.submodule_search_locations if spec else None) or ()
        for path in (Path(folder) / name for folder in folders):
            if path.is_file():
                found.append(Example(path.stem, title, path))
                break
    return {one.id: one for one in (*found, Example(DRAWN, "Drawn shapes"))}


@functools.lru_cache(maxsize=64)
def thumbnail(example: str) -> bytes:
    """Return a small JPEG of an example."""
    picture = examples()[example].picture()
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return jpeg(picture)


def jpeg(picture: Image.Image) -> bytes:
    """Return a picture as the bytes of a JPEG file, with its colours as they are."""
    made = io.BytesIO()
    picture.save(made, "JPEG", quality=90, subsampling=0)
    return made.getvalue()


def draw_shapes() -> Image.Image:
    """Draw three shapes in a plain picture, as the data set easy-VQA has them."""
    picture = Image.new("RGB", (480, 320), (236, 238, 242))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((48, 96, 168, 216), fill=(214, 48, 49))
    pen.rectangle((204, 60, 304, 160), fill=(9, 92, 200))
    pen.polygon(((388, 120), (328, 260), (448, 260)), fill=(0, 140, 90))
    return picture
