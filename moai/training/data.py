"""What a training run learns from: the samples of its sources, fitted into the host's context.

Knows: sources of data and the processor; nothing of the model.
"""

from __future__ import annotations

from typing import NamedTuple

from moai.data.check import check_images
from moai.data.context_fit import ContextFit
from moai.data.quarantine import Quarantine, Tolerated
from moai.data.samples import Listed, Samples, draw
from moai.data.sources import open_sources
from moai.errors import DataError
from moai.model.processor.processor import MoaiProcessor
from moai.recipe.schema import Recipe
from moai.recipe.sections import Data
from moai.training.epochs import check_kinds
from moai.training.facts import SampleFacts
from moai.training.progress import Progress
from moai.types import Sample


def samples_of(data: Data, split: str, *, seed: int = 0) -> Samples:
    """Open the samples of one split of the recipe's data; they are read on access.

    Args:
        data: the section of the recipe.
        split: name of the split.
        seed: of a mixture by weight.

    Raises:
        RecipeError: a format or data set does not take its options, or the split is empty.
        DataError: a file cannot be read.
    """
    return open_sources(data.sources, split, data.train_split, seed=seed)


class Prepared(NamedTuple):
    """Samples of a split as a run uses them.

    Attributes:
        samples: what batches are made of.
        texts: the same, whose images are not opened: what lengths and kinds are read from.
        fitted: those that both view, which counts what was shortened.
    """

    samples: Samples
    texts: Samples
    fitted: ContextFit


def prepare_samples(
    samples: Samples, processor: MoaiProcessor, too_long: str = "refuse", quarantine: Quarantine | None = None
) -> Prepared:
    """Fit each sample of a split into the host's context; nothing is read yet.

    Args:
        samples: of the split.
        processor: of the run.
        too_long: as in the recipe.
        quarantine: of the bad rows that the recipe tolerates; without one a bad row stops the run where it is read.
    """
    fitted = ContextFit(samples, processor, too_long)
    if quarantine is None:
        return Prepared(fitted, fitted, fitted)
    return Prepared(Tolerated(fitted, quarantine, check_images), Tolerated(fitted, quarantine), fitted)


def read_validation(data: Data, processor: MoaiProcessor, quarantine: Quarantine | None = None) -> Prepared:
    """Read the samples of the losses that are logged during training, without bad ones that the recipe tolerates.

    Raises:
        RecipeError, DataError: as for :func:`samples_of`, or no sample is good.
    """
    whole = samples_of(data, data.validation_split)
    if quarantine is not None:
        quarantine.rows += len(whole)
    prepared = prepare_samples(draw(whole, data.validation_limit), processor, data.too_long, quarantine)
    view = prepared.samples
    good = list(view.all_good() if isinstance(view, Tolerated) else view)
    if not good:
        raise DataError(f"no row of the split '{data.validation_split}' that was drawn is good; raise validation_limit")
    return prepared._replace(samples=Listed(good), texts=Listed(good))


CACHED = 2048  # encodings that are kept of samples that are read when they are reached


class TrainingData:
    """What a run trains and validates on.

    Args:
        recipe: of the run.
        processor: of the run.
        progress: where notes go.

    Attributes:
        samples: of the training split; row -> sample.
        facts: of these samples.
        quarantine: of the bad rows, where the recipe tolerates any.

    Raises:
        RecipeError, DataError: as for :func:`samples_of`; a bad row, where all rows are read before the first step.
    """

    def __init__(self, recipe: Recipe, processor: MoaiProcessor, progress: Progress) -> None:
        data = recipe.data
        self.data, self.processor, self.progress = data, processor, progress
        self.quarantine = Quarantine(data.tolerate) if data.tolerate else None
        whole = samples_of(data, data.train_split, seed=recipe.seed)
        if self.quarantine is not None:
            self.quarantine.rows += len(whole)
        prepared = prepare_samples(whole, processor, data.too_long, self.quarantine)
        self.samples, self._fitted = prepared.samples, [prepared.fitted]
        self.facts = SampleFacts(prepared.texts, processor.lengths, progress.note, data.model_dump_json())
        self.facts.read_ahead()
        if self.facts.lazy:
            processor.prompts.cache(CACHED)  # an encoding takes some KB, and each is needed while its pool is read
        check_kinds(self.facts, recipe.stages)

    def read_validation(self) -> list[Sample]:
        """Read the samples of the losses that are logged during training."""
        prepared = read_validation(self.data, self.processor, self.quarantine)
        self._fitted.append(prepared.fitted)
        return list(prepared.samples)

    def note_left_out(self) -> None:
        """Say how many turns and rows were left out of what was read so far."""
        for fitted in self._fitted:
            if turns := int(fitted.shortened.sum()):
                count = int((fitted.shortened > 0).sum())
                self.progress.note(f"{turns:,} turns of {count:,} samples are left out: the context cannot hold them")
        if self.quarantine is None:
            return
        self.quarantine.read_file()  # processes of the loader find rows that this one does not know of
        if self.quarantine.reasons:
            count, path = len(self.quarantine.reasons), self.quarantine.path
            self.progress.note(f"{count:,} bad rows are left out; {path} names them")
