"""Perceive a data set: every image once, through the cache; failures are counted and named.

Knows: samples and the perceiver. Of a sample without images its truths are the perception, and no expert runs.
"""

from __future__ import annotations

import logging
from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from PIL.Image import Image

from moai.errors import DataError, RecipeError
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

    Raises:
        DataError: as for :func:`truths_of`.
    """
    samples = list(samples)
    truths, pictures = truths_of(samples), Pictures(images_of(samples))
    found = perceiver.perceive(pictures, progress=progress)
    failed = Counter((failure.expert, failure.reason) for perception in found for failure in perception.failures)
    for (expert, reason), count in failed.items():
        log.warning("expert '%s' gave nothing for %d of %d images: %s", expert, count, len(pictures), reason)
    return {**truths, **dict(zip(pictures.sources, found, strict=True))}


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
        DataError: as for :func:`truths_of`.
    """
    from moai.perception.corpus.perceptions import CorpusPerceptions

    samples = list(samples)
    truths, images = truths_of(samples), images_of(samples)
    found = CorpusPerceptions(folder, experts, options, images)
    for id, image in images.items():
        found.check_file(id, image)
    found.warn_of_failures()
    return ChainMap(truths, found) if truths else found  # type: ignore[arg-type]  # which is only read


def perceive_without(
    perceiver: Perceiver, expert: str, samples: Iterable[Sample], progress: Callable[[int], None] | None = None
) -> dict[str, Perception]:
    """Perceive with all experts but ``expert``; return image id -> perception.

    The others perceive anew, through the cache: an expert that requires the missing one gets less, as it would where
    that expert is not installed. Subtracting the expert's own findings alone would leave, say, relations between
    objects that are no longer found.

    Raises:
        RecipeError: a sample without images, which no expert perceives.
    """
    samples = list(samples)
    if told := next((sample.id for sample in samples if sample.perceived), None):
        raise RecipeError(
            f"'without:{expert}' needs images, and sample '{told}' has none: its truth is its perception; "
            "leave the condition out"
        )
    reduced = perceiver.only(other.name for other in perceiver.experts if other.name != expert)
    pictures = Pictures(images_of(samples))
    return dict(zip(pictures.sources, reduced.perceive(pictures, progress=progress), strict=True))


def images_of(samples: Iterable[Sample]) -> dict[str, Any]:
    """Map image ids to images, of all samples that have images."""
    shown = (sample for sample in samples if sample.images)
    return {id: image for sample in shown for id, image in zip(sample.image_ids, sample.images, strict=True)}


def truths_of(samples: Sequence[Sample]) -> dict[str, Perception]:
    """Map ids to the truths that serve as perception, of all samples that have no images.

    Raises:
        DataError: an id that an image has as well.
    """
    truths = {id: truth for sample in samples for id, truth in sample.perceived.items()}
    both = sorted(truths.keys() & images_of(samples).keys()) if truths else ()
    if both:
        raise DataError(f"'{both[0]}' names an image of one sample and a truth without an image of another; rename one")
    return truths


def perceptions_of(sample: Sample, perceptions: Mapping[str, Perception | None]) -> list[Perception | None]:
    """List a sample's perceptions: of each image what the experts found, or its truths where it has no image."""
    own = sample.perceived
    return [own[id] if id in own else perceptions.get(id) for id in sample.image_ids]
