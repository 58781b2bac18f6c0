"""Encode perceptions as auxiliary tensors, or as plain words in the prompt.

Knows: perceptions, their verbalization, and a tokenizer that makes no control tokens of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from moai.model.processor.image_places import ImagePlaces
from moai.model.processor.untrusted_text import auxiliary
from moai.perception.drawing.panoptic_map import render_map
from moai.perception.words.merging import merge_findings
from moai.perception.words.token_budget import Verbalization, verbalize_within
from moai.types import Perception, merge

Perceptions = Sequence[Perception | None]  # one per image of a conversation; without images, its sample's truths


@dataclass(frozen=True)
class PerceptionEncoder:
    """Encodes what experts found in each conversation's images.

    Args:
        tokenize: text to token ids, control tokens as text.
        images: for panoptic maps, which the vision encoder encodes as well.
        language, style: of the verbalization.
        inject: ``"mixers"`` hands auxiliary tokens to the model; ``"prompt"`` puts the words into the prompt.
        panoptic_map: hand over the panoptic map when a panoptic expert answered.
        max_tokens: of one conversation's words; a longer text loses its least important facts.
        merge: write each thing of an image once, and keep the strongest facts where not all of them fit.
        say_nothing_found: say so where an expert looked for objects and found none.
    """

    tokenize: Callable[[str], list[int]]
    images: ImagePlaces
    language: str = "en"
    style: str = "paper"
    inject: Literal["mixers", "prompt"] = "mixers"
    panoptic_map: bool = True
    max_tokens: int = 512
    merge: bool = False
    say_nothing_found: bool = False

    def auxiliary(self, perceptions: Sequence[Perceptions]) -> dict[str, torch.Tensor]:
        """Encode the perceptions of each conversation's images; conversations without any are masked out.

        Returns:
            ``aux_input_ids`` and ``aux_attention_mask`` ``(B, A)``; with a panoptic expert ``aux_pixel_values (B, M, 3,
            h, w)`` and ``aux_pixel_mask (B, M)``. Nothing when no conversation has a perception.
        """
        rows = [[p for p in row if p is not None] for row in perceptions]
        if not any(rows) or self.inject == "prompt":
            return {}
        words = [self.words(row) if row else [] for row in rows]
        return {**auxiliary(words), **self._maps(rows)}

    def in_prompt(self, perceptions: Perceptions) -> list[int]:
        """Encode what is put into the prompt after its last image; nothing unless ``inject`` says so."""
        found = [p for p in perceptions if p is not None]
        return [*self.words(found), *self.tokenize("\n")] if found and self.inject == "prompt" else []

    def merged(self, perceptions: Sequence[Perception]) -> Perception:
        """Join the perceptions of several images as they are put into words: of each image, each thing once."""
        return merge([merge_findings(p, self.language) for p in perceptions] if self.merge else perceptions)

    def verbalize(self, perceptions: Sequence[Perception]) -> Verbalization:
        """Verbalize the perceptions of several images as the model gets them, with the facts that did not fit."""
        settings = {"language": self.language, "style": self.style, "strongest": self.merge}
        settings["say_nothing_found"] = self.say_nothing_found
        return verbalize_within(self.merged(perceptions), self.max_tokens, self.tokenize, **settings)

    def words(self, perceptions: Sequence[Perception]) -> list[int]:
        """Encode the words of several images' perceptions; what is too long loses whole facts, never half a box."""
        return list(self.verbalize(perceptions).ids)

    def has_map(self, perception: Perception) -> bool:
        """True when a panoptic map of it is handed over."""
        return self.inject == "mixers" and self.panoptic_map and perception.has_panoptic

    def _maps(self, perceptions: Sequence[Sequence[Perception]]) -> dict[str, torch.Tensor]:
        shown = [[p for p in row if p.has_panoptic] if self.panoptic_map else [] for row in perceptions]
        most = max(len(row) for row in shown)
        if most == 0:
            return {}
        height, width = self.images.size
        blank = np.zeros((height, width, 3), dtype=np.uint8)
        drawn = [[render_map(p, height, width) for p in row] + [blank] * (most - len(row)) for row in shown]
        pixels = self.images.pictures([picture for row in drawn for picture in row])
        mask = torch.tensor([[index < len(row) for index in range(most)] for row in shown])
        return {"aux_pixel_values": pixels.unflatten(0, (len(shown), most)), "aux_pixel_mask": mask}
