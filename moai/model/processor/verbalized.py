"""Perceptions as auxiliary tensors, or as plain words in the prompt.

Knows: perceptions, their verbalization, and a tokenizer that makes no control tokens of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from moai.model.processor.untrusted_text import auxiliary
from moai.perception.drawing.panoptic_map import render_map
from moai.perception.words.token_budget import Verbalization, verbalize_within
from moai.types import Perception, merge


class SpokenPerceptions:
    """What a processor does with perceptions; it needs ``prompts.Prompts`` and its own settings."""

    def aux_inputs(self, perceptions: Sequence[Sequence[Perception]]) -> dict[str, torch.Tensor]:
        """Auxiliary tensors for the perceptions of each row's images; rows without any are masked out.

        Returns nothing at all when no row has a perception.
        """
        if not any(perceptions) or self.through == "prompt":
            return {}
        rows = [self._speak(merge(row)) if row else [] for row in perceptions]
        return {**auxiliary(rows), **self._maps(perceptions)}

    def aux_size(self, perception: Perception) -> tuple[int, bool]:
        """How many words, in tokens, and whether a panoptic map ``aux_inputs`` would hand over; nothing is drawn."""
        if self.through == "prompt":
            return 0, False
        return len(self._speak(perception)), self.panoptic_map and perception.has_panoptic

    def with_words(self, ids: list[int], perceptions: Sequence[Perception]) -> list[int]:
        """``ids`` of a prompt with its images' perceptions in words behind the last image; for ``through="prompt"``.

        Anywhere else the ids come back as they are.

        Raises:
            PromptError: longer than the host's context.
        """
        if self.through != "prompt" or not perceptions:
            return ids
        behind = len(ids) - ids[::-1].index(self.image_token_id)
        words = self._speak(merge(perceptions)) + self.plain_ids("\n")
        self._check_length(len(ids) + len(words))
        return [*ids[:behind], *words, *ids[behind:]]

    def verbalize(self, perception: Perception) -> Verbalization:
        """Verbalize a perception for the model, without the facts that do not fit into ``max_aux_tokens``."""
        return verbalize_within(perception, self.max_aux_tokens, self.plain_ids, self.language, self.style)

    def _speak(self, perception: Perception) -> list[int]:
        """Token ids of the words; what is longer than ``max_aux_tokens`` loses whole facts, never half a box."""
        return list(self.verbalize(perception).ids)

    def _maps(self, perceptions: Sequence[Sequence[Perception]]) -> dict[str, torch.Tensor]:
        shown = [[p for p in row if p.has_panoptic] if self.panoptic_map else [] for row in perceptions]
        most = max(len(row) for row in shown)
        if most == 0:
            return {}
        height, width = self.image_processor.size["height"], self.image_processor.size["width"]
        blank = np.zeros((height, width, 3), dtype=np.uint8)
        pictures = [[render_map(p, height, width) for p in row] + [blank] * (most - len(row)) for row in shown]
        pixels = self.image_processor([picture for row in pictures for picture in row], return_tensors="pt")[
            "pixel_values"
        ]
        mask = torch.tensor([[index < len(row) for index in range(most)] for row in shown])
        return {"aux_pixel_values": pixels.unflatten(0, (len(shown), most)), "aux_pixel_mask": mask}
