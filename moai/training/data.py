"""What a training run learns from: its data set's samples, and what the experts see in their images.

Knows: the registry of data sets and the experts; nothing of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

from moai.data.perceive import perceive_samples
from moai.errors import PromptError, RecipeError
from moai.model.processor.processor import MoaiProcessor
from moai.plugins import registry
from moai.recipe.sections import Data
from moai.training.progress import Progress
from moai.types import Perception, Sample

Seen = dict[str, Perception | None]  # image id -> what the experts saw


def samples_of(data: Data, split: str, limit: int | None = None) -> Sequence[Sample]:
    """The samples of one split of the recipe's data set.

    Raises:
        RecipeError: the data set does not take the recipe's options, or the split is empty.
    """
    options = {**data.options, **({} if limit is None else {"limit": limit})}
    try:
        samples = registry().get_dataset(data.name)(split, **options)
    except TypeError as error:
        raise RecipeError(f"data.options does not fit data set '{data.name}': {error}") from None
    if not len(samples):
        raise RecipeError(f"the split '{split}' of {data.name} is empty; choose another in data")
    return samples


def lengths_of(processor: MoaiProcessor, samples: Sequence[Sample]) -> list[int]:
    """Count the tokens of each sample.

    Raises:
        PromptError: names the first sample that cannot be trained on, and why.
    """
    lengths = []
    for sample in samples:
        try:
            lengths += processor.lengths([sample.conversation])
        except PromptError as error:
            raise PromptError(f"sample '{sample.id}': {error}") from None
    return lengths


def perceive(processor, samples: Sequence[Sample], progress: Progress) -> Seen:
    """Let the processor's experts look at all images, through the cache.

    Args:
        processor: with ``experts`` and ``expert_options``.
        samples: whose images are looked at.
        progress: where it is shown.
    """
    from moai.perception.cache.store import default_store
    from moai.perception.running.perceiver import Perceiver

    perceiver = Perceiver(processor.experts, options=processor.expert_options, store=default_store())
    with progress.bar("perceiving", len({image for sample in samples for image in sample.image_ids})) as advance:
        return perceive_samples(perceiver, samples, advance)
