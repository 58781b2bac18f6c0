"""Perceive a data set: every image once, through the cache; failures are counted and named.

Knows: samples and the perceiver.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from PIL.Image import Image

from moai.expert import Expert
from moai.images import read_image
from moai.perception.running.perceiver import Perceiver
from moai.types import Perception, Sample

log = logging.getLogger("moai")


class Pictures(Sequence):
    """Read images on access, so that a data set need not fit into memory."""

    def __init__(self, sources: dict[str, Any]) -> None:
        self.sources = sources
        self._listed = list(sources.values())

    def __len__(self) -> int:
        return len(self._listed)

    def __getitem__(self, index: int) -> Image:
        return read_image(self._listed[index])


def perceive_samples(
    perceiver: Perceiver, samples: Iterable[Sample], progress: Callable[[int], None] | None = None
) -> dict[str, Perception]:
    """Return image id -> perception; each image is perceived once.

    An expert that gave nothing for some images is logged as a warning with its reason and count.
    """
    pictures = Pictures(_images(samples))
    found = perceiver.perceive(pictures, progress=progress)
    failed = Counter((failure.expert, failure.reason) for perception in found for failure in perception.failures)
    for (expert, reason), count in failed.items():
        log.warning("expert '%s' gave nothing for %d of %d images: %s", expert, count, len(pictures), reason)
    return dict(zip(pictures.sources, found, strict=True))


def read_perceptions(
    folder: str,
    samples: Iterable[Sample],
    experts: Sequence[str | Expert],
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Mapping[str, Perception]:
    """Return image id -> perception of a perceived corpus; each is read when it is asked for.

    Files of another size than when they were perceived are refused; ``moai data check`` compares their hashes.

    Args:
        folder: of ``moai perceive-dataset``.
        samples: whose images are needed.
        experts: names, or experts that are built.
        options: per expert's name.

    Raises:
        CorpusError: the corpus is unfinished, lacks an image, or was made by other experts or of another file.
    """
    from moai.perception.corpus.perceptions import CorpusPerceptions

    images = _images(samples)
    found = CorpusPerceptions(folder, experts, options, images)
    for id, image in images.items():
        found.check_file(id, image)
    found.warn_of_failures()
    return found


def perceive_without(
    perceiver: Perceiver, expert: str, samples: Iterable[Sample], progress: Callable[[int], None] | None = None
) -> dict[str, Perception]:
    """Perceive with all experts but ``expert``; return image id -> perception.

    The others perceive anew, through the cache: an expert that requires the missing one gets less, as it would where
    that expert is not installed. Subtracting the expert's own findings alone would leave, say, relations between
    objects that are no longer found.
    """
    reduced = perceiver.only(other.name for other in perceiver.experts if other.name != expert)
    pictures = Pictures(_images(samples))
    return dict(zip(pictures.sources, reduced.perceive(pictures, progress=progress), strict=True))


def _images(samples: Iterable[Sample]) -> dict[str, Any]:
    """Map image ids to images, of all samples."""
    return {id: image for sample in samples for id, image in zip(sample.image_ids, sample.images, strict=True)}
