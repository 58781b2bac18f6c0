"""Cut backgrounds of `scenes` from the photographs and textures in scikit-image's package.

Knows: which file serves which split. No file serves two, and the two halves of the stereo pair are one scene and serve
train together. Files are read where the package lies; scikit-image itself is not imported and fetches nothing.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

from PIL import Image

from moai import read_image
from moai.errors import AssetError
from moai_scenes.plan import SIZE, Backdrop

SOURCES = {
    "train": (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "coffee.png",
        "grass.png",
        "ihc.png",
        "motorcycle_left.png",
        "motorcycle_right.png",
    ),
    "validation": ("chelsea.png", "gravel.png", "retina.jpg"),
    "test": ("rocket.jpg", "coins.png", "hubble_deep_field.jpg", "moon.png"),
}


def sources(split: str) -> tuple[str, ...]:
    """List the pictures that a split may use; the unseen-word splits share those of their own base."""
    return SOURCES[split.removesuffix("-unseen")]


def cut(backdrop: Backdrop) -> Image.Image:
    """Return the background as a new RGB picture of `SIZE` x `SIZE` pixels."""
    picture = _read(backdrop.source)
    side = backdrop.share * min(picture.size)
    left, top = (picture.width - side) * backdrop.left, (picture.height - side) * backdrop.top
    box = (left, top, left + side, top + side)
    small = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    if backdrop.mirrored:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return small.point(lambda value: min(round(value * backdrop.gain), 255))


@lru_cache
def folder() -> Path:
    """Find the folder of scikit-image's pictures.

    Raises:
        AssetError: scikit-image is not installed.
    """
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise AssetError("the data set scenes needs the pictures of scikit-image: pip install scikit-image")
    return Path(next(iter(found.submodule_search_locations))) / "data"


@lru_cache
def _read(name: str) -> Image.Image:
    path = folder() / name
    if not path.is_file():
        raise AssetError(f"this scikit-image comes without {name}: pip install -U scikit-image")
    return read_image(path)
