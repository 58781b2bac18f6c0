"""From samples and their perceptions to one batch of tensors.

Knows: samples, perceptions and the processor; this is where the perception half meets the model half. Training batches
are padded on the right: with causal attention no row is then fully masked, and a fully masked row has no gradient in
some attention kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from moai.types import Perception, Sample

IGNORED = -100  # label of positions without a loss


class Collator:
    """Builds batches with one image per sample.

    Args:
        processor: a ``MoaiProcessor``.
        max_cached: how many tokenised questions and how many decoded images are kept.
        guide: says which auxiliary words a question should read (``moai.training.objectives.supervision.Guide``);
            batches with answers then have ``guide``.
    """

    def __init__(self, processor, max_cached: int = 65536, guide=None) -> None:
        self.processor, self.guide = processor, guide
        self._prompt = lru_cache(max_cached)(processor.prompt_ids)
        self._answer = lru_cache(max_cached)(processor.answer_ids)

    def __call__(
        self, samples: Sequence[Sample], perceptions: Sequence[Perception | None], answers: bool = True
    ) -> dict[str, Any]:
        """Return model inputs.

        Args:
            samples: one question each.
            perceptions: what was seen in each sample's image, or None.
            answers: append the answers and add ``labels``, which are -100 everywhere else.

        Returns:
            ``input_ids, attention_mask, prompt_mask (B, S)``, ``labels`` with answers, ``pixel_values`` and whatever
            else a host that sees for itself takes of images, and the auxiliary tensors of ``MoaiProcessor.aux_inputs``.
        """
        seen = [[] if perception is None else [perception] for perception in perceptions]
        words = self.processor.with_words
        asked = [self._prompt(sample.question) for sample in samples]
        asked, pictures = self.processor.place(asked, [[sample.image] for sample in samples])
        prompts = [words(ids, row) for ids, row in zip(asked, seen, strict=True)]
        ends = [self._answer(s.question, s.answer) if answers else [] for s in samples]
        rows = [prompt + end for prompt, end in zip(prompts, ends, strict=True)]
        masks = [[True] * len(prompt) + [False] * len(end) for prompt, end in zip(prompts, ends, strict=True)]
        left = not answers
        batch = {
            "input_ids": _pad(rows, self.processor.tokenizer.pad_token_id or 0, left),
            "attention_mask": _pad([[1] * len(row) for row in rows], 0, left),
            "prompt_mask": _pad(masks, False, left),
            **pictures,
        }
        if answers:
            labels = [[IGNORED] * len(p) + end for p, end in zip(prompts, ends, strict=True)]
            batch["labels"] = _pad(labels, IGNORED, left)
        batch.update(self.processor.aux_inputs(seen))
        if answers and self.guide is not None and "aux_input_ids" in batch:
            batch["guide"] = self.marks(samples, batch["aux_input_ids"], batch["aux_attention_mask"])
        return batch

    def marks(self, samples: Sequence[Sample], aux_input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What each sample's question should read of its words: ``(B, G, A + 1)`` bool, one row for each group.

        The last column is for none of the words. ``G`` is the largest number of groups, at least 1.
        """
        end = self.processor.tokenizer.eos_token_id
        found = []
        for sample, row, real in zip(samples, aux_input_ids, mask.bool(), strict=True):
            answer = [token for token in self._answer(sample.question, sample.answer) if token != end]
            words, asked = row[real].tolist(), self._prompt(sample.gloss or sample.question)
            found.append((len(words), self.guide.targets(words, asked, answer, sample.answer)))
        most = max((len(groups) for _, groups in found), default=1)
        marked = torch.zeros(len(samples), max(most, 1), aux_input_ids.shape[1] + 1, dtype=torch.bool)
        for row, (length, groups) in enumerate(found):
            for number, group in enumerate(groups):
                marked[row, number, [position if position < length else -1 for position in group]] = True
        return marked

    def lengths(self, samples: Sequence[Sample]) -> list[int]:
        """Number of tokens of each sample, for grouping samples of equal length.

        The images are not read for it; with a host that sees for itself, they count as one token each.
        """
        return [len(self._prompt(s.question)) + len(self._answer(s.question, s.answer)) for s in samples]


def _pad(rows: list[list], value, left: bool) -> torch.Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[value] * (width - len(r)) + r if left else r + [value] * (width - len(r)) for r in rows])
