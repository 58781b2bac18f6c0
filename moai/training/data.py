"""What a training run learns from: the samples of its sources, and what the experts see in their images.

Knows: sources of data and the experts; nothing of the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from moai.data.check import Examiner
from moai.data.context_fit import ContextFit
from moai.data.perceive import perceive_samples, read_perceptions
from moai.data.quarantine import LeftOut, leave_out
from moai.data.samples import draw
from moai.data.sources import open_sources
from moai.model.processor.processor import MoaiProcessor
from moai.recipe.sections import Data
from moai.training.progress import Progress
from moai.types import Perception, Sample

Seen = Mapping[str, Perception | None]  # image id -> what the experts saw


def samples_of(data: Data, split: str, limit: int | None = None, *, seed: int = 0, epoch: int = 0) -> Sequence[Sample]:
    """Open the samples of one split of the recipe's data; they are read on access.

    Args:
        data: the section of the recipe.
        split: name of the split.
        limit: at most so many, drawn at random and always the same; a larger limit contains a smaller one.
        seed, epoch: of a mixture by weight.

    Raises:
        RecipeError: a format or data set does not take its options, or the split is empty.
        DataError: a file cannot be read.
    """
    samples = open_sources(data.sources, split, data.train_split, seed=seed, epoch=epoch)
    return draw(samples, limit)


class Prepared(NamedTuple):
    """Samples of a split as a run uses them, and the rows that it leaves out."""

    samples: ContextFit
    left_out: list[LeftOut]


def prepare_samples(
    data: Data, split: str, processor: MoaiProcessor, limit: int | None = None, *, seed: int = 0, epoch: int = 0
) -> Prepared:
    """Open a split without the bad rows that the recipe tolerates, each sample fitted into the host's context.

    Where the recipe tolerates any, all rows and images are read first; else a bad row stops the run where it is read.

    Raises:
        RecipeError, DataError: as for :func:`samples_of`, or more rows are bad than the recipe tolerates.
    """
    samples = samples_of(data, split, seed=seed, epoch=epoch)
    good, bad = leave_out(samples, data.tolerate, Examiner(processor, data.too_long))
    return Prepared(ContextFit(draw(good, limit), processor, data.too_long), bad)


class SampleTable(NamedTuple):
    """What a run's plan needs of each sample, and a hash of them all."""

    answer_types: list[str]
    lengths: list[int]  # tokens
    pairs: list[tuple[str, str]]  # question and answer
    digest: str  # SHA-256 of ids, image ids and texts


def read_table(processor: MoaiProcessor, samples: Sequence[Sample]) -> SampleTable:
    """Read every sample once."""
    types, lengths, pairs, digest = [], [], [], hashlib.sha256()
    for sample in samples:
        types.append(sample.kind)
        lengths += processor.lengths([sample.conversation])
        pairs.append((sample.question, sample.answer))
        turns = [(turn.role, [str(part) for part in turn.content]) for turn in sample.conversation.turns]
        about = [sample.id, sample.image_ids, sample.kind, sample.conversation.loss, turns]
        digest.update(json.dumps(about).encode() + b"\n")
    return SampleTable(types, lengths, pairs, digest.hexdigest())


def perceive(processor, samples: Sequence[Sample], progress: Progress, shards: str | None = None) -> Seen:
    """Let the processor's experts look at all images, through the cache; or read what they found from shards.

    Args:
        processor: with ``experts`` and ``expert_options``.
        samples: whose images are looked at.
        progress: where it is shown.
        shards: the folder of a perceived corpus; None runs the experts.

    Raises:
        CorpusError: the corpus lacks an image, or was made by other experts.
    """
    if shards is not None:
        return read_perceptions(shards, samples, processor.experts, processor.expert_options)
    from moai.perception.cache.store import default_store
    from moai.perception.running.perceiver import Perceiver

    perceiver = Perceiver(processor.experts, options=processor.expert_options, store=default_store())
    with progress.bar("perceiving", len({image for sample in samples for image in sample.image_ids})) as advance:
        return perceive_samples(perceiver, samples, advance)
