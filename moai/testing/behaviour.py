"""Check the results of a loaded expert: valid, plain data, equal each time, equal alone and in a batch.

Knows: perceptions and how to compare them.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from PIL import Image

from moai.errors import ExpertError
from moai.expert import Expert
from moai.testing.samples import huge_images
from moai.types import Mask, Perception, Segment, check_perception

TOLERANCE = 1e-3  # of scores and coordinates between two runs that should be equal; batched float kernels differ a bit
MASK_TOLERANCE = 1e-3  # of a mask's pixels, rounded up: those last bits decide between two equal scores of a pixel
BOX_TOLERANCE = 0.01  # of a segment's box and the box around its mask, besides two pixels of the mask


def check_perceive(expert: Expert, images: list[Image.Image], contexts: list[Perception]) -> list[Perception]:
    """Check ``perceive`` of a loaded expert on ``images``, and return its perceptions."""
    before = [image.tobytes() for image in images]
    together = call(expert, images, contexts)
    require([image.tobytes() for image in images] == before, "perceive changes the images it is given")
    same(together, call(expert, images, contexts), "perceive is not deterministic: the same batch twice")
    alone = [call(expert, [image], [context])[0] for image, context in zip(images, contexts, strict=True)]
    same(together, alone, "an image gives another perception in a batch than alone")
    require(call(expert, [], []) == [], "perceive must return [] for no images")
    for image in huge_images():
        call(expert, [image], [contexts[0] if contexts else Perception()])
    if expert.requires and images:
        call(expert, images[:1], [Perception()])  # no expert of the role, or no findings
    for perception in together:
        text = json.dumps(perception.to_dict())
        again = Perception.from_dict(json.loads(text))
        require(again == perception, "a perception does not survive JSON: use plain types")
    return together


def call(expert: Expert, images: list[Image.Image], contexts: list[Perception]) -> list[Perception]:
    """Call ``perceive``, and check that it returns one valid perception per image.

    Raises:
        AssertionError: the image and the reason.
    """
    sizes = ", ".join(f"{image.width}x{image.height}" for image in images)
    try:
        found = expert.perceive(images, contexts)
    except Exception as error:
        raise AssertionError(f"perceive raises on images of {sizes}: {type(error).__name__}: {error}") from error
    require(isinstance(found, list), f"perceive must return a list, not {type(found).__name__}")
    require(len(found) == len(images), f"perceive returned {len(found)} perceptions for {len(images)} images")
    for image, perception in zip(images, found, strict=True):
        try:
            check_perception(perception)
        except ExpertError as error:
            raise AssertionError(f"on an image of {image.width}x{image.height}: {error}") from error
        for segment in perception.segments:
            _check_mask_in_box(segment)
    return found


def same(left: list[Perception], right: list[Perception], what: str) -> None:
    """Require two lists of perceptions to be equal; the AssertionError starts with ``what``.

    Scores and coordinates may differ by ``TOLERANCE``, and masks in ``MASK_TOLERANCE`` of their pixels. The box of a
    segment with a mask, and of a relation beside it, may differ by one pixel of the mask more. All else must be equal.
    """
    for index, (a, b) in enumerate(zip(left, right, strict=True)):
        require(_near_perceptions(a, b), f"{what} (image {index}): {_brief(a)} and then {_brief(b)}")


def require(condition: object, message: str) -> None:
    """Raise AssertionError with ``message`` unless ``condition`` holds; under ``python -O`` too."""
    if not condition:
        raise AssertionError(message)


def _check_mask_in_box(segment: Segment) -> None:
    if segment.mask is None:
        return
    mask = segment.mask.decode()
    require(mask.any(), f"the mask of segment '{segment.label}' is empty; leave the segment out, or its mask")
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    around = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    slack = (2 / width + BOX_TOLERANCE, 2 / height + BOX_TOLERANCE) * 2
    fits = all(abs(a - b) <= most for a, b, most in zip(around, segment.box, slack, strict=True))
    require(
        fits,
        f"the box of segment '{segment.label}' is {segment.box}, and its mask spans "
        f"{tuple(round(float(edge), 4) for edge in around)}; compute the box from the mask",
    )


def _near_perceptions(a: Perception, b: Perception) -> bool:
    if len(a.segments) != len(b.segments):
        return False
    if not all(_near_masks(x.mask, y.mask) for x, y in zip(a.segments, b.segments, strict=True)):
        return False
    pixel = max((1 / min(s.mask.height, s.mask.width) for s in a.segments if s.mask is not None), default=0.0)
    ours, theirs = a.to_dict(), b.to_dict()
    for fields in (ours, theirs):
        for segment in fields["segments"]:
            del segment["mask"]
    moving = ("segments", "relations")  # their boxes follow the masks
    rest = [{name: value for name, value in fields.items() if name not in moving} for fields in (ours, theirs)]
    return _near(*rest) and all(_near(ours[name], theirs[name], pixel) for name in moving)


def _near_masks(a: Mask | None, b: Mask | None) -> bool:
    if a is None or b is None:
        return a is b
    if (a.height, a.width) != (b.height, b.width):
        return False
    return int((a.decode() != b.decode()).sum()) <= math.ceil(MASK_TOLERANCE * a.height * a.width)


def _near(a: Any, b: Any, pixel: float = 0.0, box: bool = False) -> bool:
    """Compare with ``TOLERANCE`` in numbers, and ``pixel`` more in boxes."""
    if isinstance(a, float) and isinstance(b, (int, float)):
        return math.isclose(a, b, abs_tol=TOLERANCE + (pixel if box else 0.0))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_near(a[key], b[key], pixel, box or key.endswith("box")) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_near(x, y, pixel, box) for x, y in zip(a, b, strict=True))
    return a == b


def _brief(perception: Perception) -> str:
    text = json.dumps({key: value for key, value in perception.to_dict().items() if value}, default=str)
    return text if len(text) < 300 else text[:300] + "..."
