"""Perceive a data set: every image once, through the cache; failures are counted and named.

Knows: samples and the perceiver. Of a sample without images its truths are the perception, and no expert runs. An
expert that fails for most images ends the run.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from PIL.Image import Image

from moai.errors import DataError, RecipeError
from moai.expert import Expert
from moai.images import read_image
from moai.perception.running.failure_counts import FailureCounts
from moai.perception.running.perceiver import Perceiver
from moai.types import Perception, Sample


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
    perceiver: Perceiver,
    samples: Iterable[Sample],
    progress: Callable[[int], None] | None = None,
    *,
    fix: str,
) -> dict[str, Perception]:
    """Return image id -> perception; each image is perceived once.

    An expert that gave nothing for some images is logged as a warning with its reason and count.

    Args:
        perceiver: of the experts.
        samples: whose images are perceived.
        progress: called with a number of images that are done.
        fix: what to do about an expert that fails for most images, as in ``FailureCounts``.

    Raises:
        DataError: as for :func:`truths_of`.
        ExpertError: an expert failed for most images, as in ``FailureCounts``.
    """
    samples = list(samples)
    return {**truths_of(samples), **_perceived(perceiver, images_of(samples), progress, fix)}


def _perceived(
    perceiver: Perceiver, images: Mapping[str, Any], progress: Callable[[int], None] | None, fix: str
) -> dict[str, Perception]:
    """Perceive images batch by batch, so that an expert that fails for most of them is known early."""
    counts, found = FailureCounts(fix), {}
    rest = iter(images.items())
    # Experts that take turns perceive all images before the next one is loaded.
    size = perceiver.batch_size if perceiver.max_memory is None else max(1, len(images))
    while batch := dict(islice(rest, size)):
        found.update(zip(batch, perceiver.perceive(Pictures(batch), progress=progress), strict=True))
        counts.count([found[id] for id in batch])
    counts.check()
    counts.warn()
    return found


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
        CorpusError: the corpus is unfinished, lacks an image, was made by other experts or of another file, or an
            expert failed for most of its images.
        DataError: as for :func:`truths_of`.
    """
    from moai.perception.corpus.perceptions import CorpusPerceptions

    samples = list(samples)
    truths, images = truths_of(samples), images_of(samples)
    found = CorpusPerceptions(folder, experts, options, images)
    for id, image in images.items():
        found.check_file(id, image)
    found.check_failures()
    return ChainMap(truths, found) if truths else found  # type: ignore[arg-type]  # which is only read


def perceive_without(
    perceiver: Perceiver,
    expert: str,
    samples: Iterable[Sample],
    progress: Callable[[int], None] | None = None,
    *,
    fix: str,
) -> dict[str, Perception]:
    """Perceive with all experts but ``expert``; return image id -> perception.

    The others perceive anew, through the cache: an expert that requires the missing one gets less, as it would where
    that expert is not installed. Subtracting the expert's own findings alone would leave, say, relations between
    objects that are no longer found.

    Raises:
        RecipeError: a sample without images, which no expert perceives.
        ExpertError: another expert failed for most images, as in :func:`perceive_samples`.
    """
    samples = list(samples)
    if told := next((sample.id for sample in samples if sample.perceived), None):
        raise RecipeError(
            f"'without:{expert}' needs images, and sample '{told}' has none: its truth is its perception; "
            "leave the condition out"
        )
    reduced = perceiver.only(other.name for other in perceiver.experts if other.name != expert)
    return _perceived(reduced, images_of(samples), progress, fix)


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
