"""Answer tokens that read auxiliary tokens: where they stand, and what they need.

Knows: tensors. The prompt is mixed before an answer begins, so that an answer of several tokens would have nothing to
read after its first. Each answer token reads the auxiliary tokens as the last token of its prompt segment does, and
never another answer token: what it takes depends on nothing that comes after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from moai.model.mixer.attention import Offered


class AnswerCache(NamedTuple):
    """What one mixer offers to answer tokens: its auxiliary tokens, with the null token where there is one, and gates.

    ``G`` counts gates: three of the modules, then one for each head of what is copied.
    """

    offered: Offered
    bias: Tensor  # (B, 1, 1, C) added to the logits
    some: Tensor  # (B, 1, 1) one where there is anything to read, else zero
    gates: tuple[Tensor, Tensor]  # (G, D), (G,)
    words: Tensor | None = None  # (B, W, D) words to copy: those that tokens start from, then those after them

    def expand(self, times: int) -> AnswerCache:
        """Repeat each row, as beams and several return sequences do."""

        def repeated(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.repeat_interleave(times, dim=0)

        offered = Offered(repeated(self.offered.keys), repeated(self.offered.values), self.offered.made)
        return AnswerCache(offered, repeated(self.bias), repeated(self.some), self.gates, repeated(self.words))


@dataclass
class AnswerInputs:
    """What the answer tokens of one forward pass need. ``R`` counts the prompt segments that they follow."""

    aux: Tensor  # (R, C, D)
    aux_mask: Tensor  # (R, C) bool
    question: Tensor | None = None  # (R, D)
    sources: Tensor | None = None  # (R, C, D)
    following: Tensor | None = None  # (R, C, D)
    word_matches: Tensor | None = None  # (R, C, 2), of the question; ``matches`` are of the answer
    matches: Tensor | None = None  # (R, N, C) bool, the auxiliary words that each token has come to
    mask: Tensor | None = None  # (R, N) bool; None where all tokens of the window are an answer's
    positions: Tensor | None = None  # (R, N) in the flattened batch; None with ``mask``
    caches: tuple[AnswerCache, ...] | None = None  # one for each mixer; None where mixers compute it anew


def answer_masks(
    segments: Tensor, rows: Tensor, free: Tensor, document_ids: Tensor | None, continued: bool
) -> tuple[Tensor, Tensor]:
    """Find the answer tokens that follow each prompt segment, before the next one of its row or document.

    Args:
        segments: ``(R, S)`` bool, prompt tokens; those of a row are in order.
        rows: ``(R,)`` the batch row of each.
        free: ``(B, S)`` bool, tokens that are neither prompt nor padding.
        document_ids: ``(B, S)`` of packed rows.
        continued: what stands before a row's first prompt token goes on with an answer; it is given a segment of its
            own, before all others, whose prompt is in the cache.

    Returns:
        the batch row of each segment ``(R', )`` and the mask of each one's answer ``(R', S)``.
    """
    there = segments.any(dim=1)
    length = segments.shape[1]
    first = torch.where(there, segments.int().argmax(dim=1), length)
    places = torch.arange(length, device=segments.device)
    following = F.pad(first[1:], (0, 1), value=length)
    end = torch.where(F.pad(rows[1:], (0, 1), value=-1) == rows, following, length)
    masks = free[rows] & (places >= first[:, None]) & (places < end[:, None])
    if document_ids is not None:
        documents = document_ids[rows]
        masks = masks & (documents == documents.gather(1, first.clamp(max=length - 1)[:, None]))
    if not continued:
        return rows, masks
    starts = torch.full((len(free),), length, device=rows.device).scatter_reduce(0, rows, first, "amin")
    leading = free & (places < starts[:, None])
    return torch.cat([torch.arange(len(free), device=rows.device), rows]), torch.cat([leading, masks])
