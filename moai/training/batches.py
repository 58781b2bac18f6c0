"""The batches of a stage: which rows a process takes of each step, and what the model gets for them.

Knows: the processor and the draws of ``sampling``. A step's samples are shared out over processes and, with gradient
accumulation, over parts that run one after another. Every share is a function of the step alone; a share without a
sample gets one whose loss is masked, so that all processes run the same number of passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from moai.data.perceive import perceptions_of
from moai.model.mixer.forward_context import segments
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processor.batch import without_loss
from moai.model.processor.packing import pack
from moai.model.processor.processor import MoaiProcessor
from moai.recipe.stages import Stage, Training
from moai.training import sampling
from moai.training.objectives.supervision import TargetFinder, target_masks
from moai.training.perceiving import reach
from moai.training.prefix_states import PrefixStates
from moai.training.word_cache import WordCache
from moai.types import Perception, Sample

LONGEST = 4096  # tokens of a packed row of a host whose context has no length
COUNT = "attention_count"  # rows of a batch whose attention is supervised; not for the model


def packed_length(processor: MoaiProcessor) -> int:
    """Return how many tokens a packed row holds: the longest that the host's context takes."""
    return (processor.max_length or LONGEST) - 1


class Share(NamedTuple):
    """What one process runs of one step at a time."""

    step: int  # of the draws
    indices: Sequence[int]  # all samples of the step
    places: Sequence[int]  # those of the share, by their place among the step's; empty where there are too few


class Shares(Dataset):
    """The shares of one process, in order.

    Args:
        batches: samples of each step, as indices.
        first: number of the first of these steps, for the draws.
        parts: how many a process runs one after another for a step.
        rank, world: number of this process, and of all.
    """

    def __init__(
        self, batches: Sequence[Sequence[int]], first: int, parts: int = 1, rank: int = 0, world: int = 1
    ) -> None:
        self.batches, self.first, self.parts, self.rank, self.world = batches, first, parts, rank, world

    def __len__(self) -> int:
        return len(self.batches) * self.parts

    def __getitem__(self, index: int) -> Share:
        step, part = divmod(index, self.parts)
        indices = self.batches[step]
        mine = range(len(indices))[self.rank :: self.world]
        size = -(-len(mine) // self.parts)
        return Share(self.first + step, indices, mine[part * size : (part + 1) * size])


class AnswerBatches:
    """Makes a share of a stage that teaches to answer into the model's arguments.

    Args:
        model, processor: of the run.
        samples, perceptions: what is learnt from; image id -> perception.
        seed: of every draw.
        training, stage: dropouts, and how modules are drawn.
        word_cache: of auxiliary words.
        finder: of attention supervision; None without.
        prefix: states below the first mixer, where the stage has them cached.
    """

    def __init__(
        self,
        model: MoaiForConditionalGeneration,
        processor: MoaiProcessor,
        samples: Sequence[Sample],
        perceptions: Mapping[str, Perception | None],
        *,
        seed: int,
        training: Training,
        stage: Stage,
        word_cache: WordCache,
        finder: TargetFinder | None = None,
        prefix: PrefixStates | None = None,
    ) -> None:
        self.model, self.processor, self.prefix = model, processor, prefix
        self.samples, self.perceptions = samples, perceptions
        self.seed, self.training, self.stage = seed, training, stage
        self.word_cache, self.finder = word_cache, finder

    def __call__(self, shares: Sequence[Share]) -> dict[str, Tensor]:
        """Collate one share, with the step's draws."""
        [share] = shares
        count, stage = len(share.indices), self.stage
        keep = ~sampling.draw_rows(self.seed, share.step, count, stage.image_dropout, "image")
        blind = sampling.draw_rows(self.seed, share.step, count, self.training.perception_dropout, "perception")
        mine = list(share.places) or [0]
        samples = [self.samples[share.indices[row]] for row in mine]
        reach(self.perceptions, (sample for row, sample in zip(mine, samples, strict=True) if not blind[row]))
        found = [perceptions_of(sample, self.perceptions) for sample in samples]
        seen = [[None] * len(own) if blind[row] else own for row, own in zip(mine, found, strict=True)]
        conversations = [sample.conversation for sample in samples]
        groups = self._groups(samples)
        batch = dict(self.processor.batch(conversations, seen, labels=True, groups=groups))
        if groups is not None:  # of a packed row, which has no image, the first sample stands for all
            mine, samples = ([listed[group[0]] for group in groups] for listed in (mine, samples))
        if self.finder is not None and "aux_input_ids" in batch:
            words = (batch["aux_input_ids"], batch["aux_attention_mask"])
            batch["attention_targets"] = target_masks(self.finder, self.processor, samples, *words)
        if not share.places:  # nothing is learnt from what stands in for a sample
            batch = without_loss(batch)
        batch = self.word_cache.fill(batch)
        if self.finder is not None:
            batch[COUNT] = self._supervised(batch)
        batch["image_keep"] = keep[mine]
        if stage.routing == "random_module":
            drawn = (self.seed, share.step, len(self.model.mixers), self.model.images.has_tokens)
            batch["module_choices"] = sampling.draw_modules(*drawn)
        return batch if self.prefix is None else self.prefix.fill(batch, samples)

    def _groups(self, samples: Sequence[Sample]) -> list[list[int]] | None:
        """Pack the conversations without images or perceptions, where the recipe says so."""
        if not self.training.packing:
            return None
        lengths = self.processor.lengths([sample.conversation for sample in samples])
        alone = [None if one.image_ids else length for one, length in zip(samples, lengths, strict=True)]
        return pack(alone, packed_length(self.processor))

    def _supervised(self, batch: dict[str, Tensor]) -> Tensor:
        """Count the prompt segments whose attention has a target, over which the attention loss is a mean."""
        if "attention_targets" not in batch:
            return torch.zeros((), dtype=torch.long)
        given = (batch[name] for name in ("attention_targets", "aux_input_ids", "aux_attention_mask"))
        targets = self.model.auxiliary.target_latents(*given, batch.get("aux_pixel_mask"))
        supervised = targets.flatten(1).any(dim=1)
        rows, _ = segments(batch["prompt_mask"].bool(), batch["attention_mask"].bool(), batch.get("document_ids"))
        return (supervised if rows is None else supervised[rows]).sum()


Collator = Callable[[Sequence[Share]], dict[str, Any]]
