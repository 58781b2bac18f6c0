"""Perceive images given as paths or pictures, chunk by chunk; one that cannot be read does not stop the others.

Knows: images and the perceiver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from moai.data.perceive import Pictures
from moai.errors import ImageError
from moai.images import read_image
from moai.perception.running.perceiver import Perceiver
from moai.types import Perception

if TYPE_CHECKING:
    from moai.training.progress import Progress

CHUNK = 64  # images held in memory at a time; any number may be given


@dataclass(frozen=True)
class PerceivedImage:
    """Hold an image with its perception, or the error where it cannot be read."""

    image: Image | None
    perception: Perception | None
    error: ImageError | None = None


def perceive_images(
    perceiver: Perceiver, images: Sequence[Any], *, chunk: int = CHUNK, progress: Progress | None = None
) -> Iterator[PerceivedImage]:
    """Perceive any number of images; yield one result for each, in order.

    Args:
        perceiver: of the experts that perceive them.
        images: what ``moai.images.read_image`` takes.
        chunk: images that each expert perceives before the next chunk is read. Up to ``CHUNK`` they are held in memory;
            a larger one is read again when it is needed.
        progress: where a bar per chunk is shown; None shows none.
    """
    for start in range(0, len(images), chunk):
        yield from _perceive_chunk(perceiver, images, range(start, min(start + chunk, len(images))), progress)


def _perceive_chunk(
    perceiver: Perceiver, images: Sequence[Any], indices: range, progress: Progress | None
) -> Iterator[PerceivedImage]:
    in_memory = len(indices) <= CHUNK
    readable: dict[int, Any] = {}
    errors: dict[int, ImageError] = {}
    for index in indices:
        try:
            image = read_image(images[index])
            readable[index] = image if in_memory else images[index]
        except ImageError as error:
            errors[index] = error
    pictures = list(readable.values()) if in_memory else Pictures(readable)
    title = f"perceiving {indices[0] + 1}-{indices[-1] + 1} of {len(images)}"
    with progress.bar(title, len(readable)) if progress is not None else nullcontext() as advance:
        perceptions = dict(zip(readable, perceiver.perceive(pictures, progress=advance), strict=True))
    for index in indices:
        if index in errors:
            yield PerceivedImage(None, None, errors[index])
        else:
            image = readable[index] if in_memory else read_image(readable[index])
            yield PerceivedImage(image, perceptions[index])
