"""Cache auxiliary words in context, computed once per perception instead of once per question and epoch.

Knows: tensors. The host's lower layers, which put the words in context, are frozen, so that a perception has the same
states in every step. They are cached in half precision; the least recently used are dropped first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn


class WordCache:
    """Adds ``aux_words`` to batches.

    Args:
        model: an augmented model.
        size: how many perceptions are cached; one of a hundred tokens and a width of 576 takes 115 kB.
    """

    def __init__(self, model: nn.Module, size: int = 4096) -> None:
        self.model, self.size = model, size
        self.rows: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    def fill(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Put ``aux_words (B, A, D)`` beside ``aux_input_ids``; a batch without words comes back as it is."""
        if "aux_input_ids" not in batch or self.model.config.context_layer is None:
            return batch
        ids, mask = batch["aux_input_ids"], batch["aux_attention_mask"]
        rows = [tuple(row[kept].tolist()) for row, kept in zip(ids, mask.bool(), strict=True)]
        fresh = list({row: number for number, row in enumerate(rows) if row not in self.rows}.values())
        if fresh:
            device = next(self.model.parameters()).device
            with torch.no_grad():
                words = self.model.auxiliary.words(ids[fresh].to(device), mask[fresh].to(device))
            for number, found in zip(fresh, words.bfloat16().cpu(), strict=True):
                self.rows[rows[number]] = found[mask[number].bool()].clone()
        width = self.model.get_input_embeddings().embedding_dim
        padded = torch.zeros(*ids.shape, width)
        for number, row in enumerate(rows):
            padded[number][mask[number].bool()] = self.rows[row].float()
            self.rows.move_to_end(row)
        while len(self.rows) > self.size:
            self.rows.popitem(last=False)
        return {**batch, "aux_words": padded}
