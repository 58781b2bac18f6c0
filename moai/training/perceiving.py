"""The perceptions of a run's images: all before the first step, from shards, or when their batch is reached.

Knows: the experts and their cache.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

from moai.data.perceive import Pictures, images_of, perceive_samples, read_perceptions, truths_of
from moai.model.processor.experts import build_perceiver
from moai.model.processor.processor import MoaiProcessor
from moai.perception.cache.store import default_store
from moai.perception.running.failure_counts import FailureCounts
from moai.perception.running.perceiver import Perceiver
from moai.training.progress import Progress
from moai.types import Perception, Sample

log = logging.getLogger("moai")

FIX = (
    "raise perception.time_limit where it is slow, make it work (`moai doctor` says what is missing), or leave it out "
    "of perception.experts"
)
Perceptions = Mapping[str, Perception | None]  # image id -> what the experts found


def perceive(
    processor: MoaiProcessor, samples: Iterable[Sample], progress: Progress, shards: str | None = None
) -> Perceptions:
    """Let the processor's experts look at all images, through the cache; or read what they found from shards.

    Of samples without images the truths are the perceptions; without experts there are no others.

    Args:
        processor: with ``experts`` and ``expert_options``.
        samples: whose images are looked at.
        progress: where it is shown.
        shards: the folder of a perceived corpus; None runs the experts.

    Raises:
        CorpusError: the corpus lacks an image, or was made by other experts.
        ExpertError: an expert failed for most images, as in ``FailureCounts``.
    """
    samples = list(samples)
    images = images_of(samples)
    if not processor.experts or not (images or shards):
        return truths_of(samples)
    if shards is not None:
        return read_perceptions(shards, samples, processor.experts, processor.expert_options)
    with progress.bar("perceiving", len(images)) as advance:
        return perceive_samples(_perceiver(processor), samples, advance, fix=FIX)


def perceive_by_batch(
    processor: MoaiProcessor, samples: Sequence[Sample], progress: Progress, shards: str | None = None
) -> Perceptions:
    """Perceive the images of some samples now, and any others when :func:`reach` names them; or read them from shards.

    Args:
        processor, progress, shards: as for :func:`perceive`.
        samples: whose perceptions stay in memory.
    """
    if shards is not None or not processor.experts:
        return perceive(processor, samples, progress, shards)  # which reads any image of the corpus on access
    perceiver = _perceiver(processor)
    with progress.bar("perceiving", len(images_of(samples))) as advance:
        return BatchPerceptions(perceiver, perceive_samples(perceiver, samples, advance, fix=FIX))


class BatchPerceptions(Mapping[str, Perception | None]):
    """Hold perceptions that stay, and those of the batch reached last.

    Args:
        perceiver: of the experts, with their cache.
        held: image id -> perception, which stay.
    """

    def __init__(self, perceiver: Perceiver, held: Perceptions) -> None:
        self.perceiver, self.held = perceiver, held
        self.reached: dict[str, Perception] = {}
        self.counts = FailureCounts(FIX)

    def __getitem__(self, image: str) -> Perception | None:
        return self.held[image] if image in self.held else self.reached[image]

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*self.held, *self.reached])

    def __len__(self) -> int:
        return len(self.held.keys() | self.reached.keys())

    def reach(self, samples: Iterable[Sample]) -> None:
        """Perceive the images of a batch, through the cache; those of the batch before are no longer held.

        Raises:
            ExpertError: an expert failed for most images so far, as in ``FailureCounts``.
        """
        asked = images_of(samples)
        missing = {id: image for id, image in asked.items() if id not in self.held and id not in self.reached}
        kept = {id: self.reached[id] for id in asked if id in self.reached}
        found = self.perceiver.perceive(Pictures(missing)) if missing else []
        self.reached = {**kept, **dict(zip(missing, found, strict=True))}
        for expert, reason in self.counts.count(found):
            log.warning("expert '%s' gives nothing for some images: %s", expert, reason)


def reach(perceptions: Perceptions, samples: Iterable[Sample]) -> None:
    """Make sure that the perceptions of a batch's images are there."""
    if isinstance(perceptions, BatchPerceptions):
        perceptions.reach(samples)


def warn_of_failures(perceptions: Perceptions) -> None:
    """Log how many images experts gave nothing for, of those that were perceived batch by batch."""
    if isinstance(perceptions, BatchPerceptions):
        perceptions.counts.warn()


def _perceiver(processor: MoaiProcessor) -> Perceiver:
    return build_perceiver(processor, processor.experts, default_store())
