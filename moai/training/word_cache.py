"""Cache auxiliary words in context, computed once per perception instead of once per question and epoch.

Knows: tensors. While the host's lower layers are frozen, which put the words in context, a perception has the same
states in every step. They are cached in half precision; the least recently used are dropped first.

Which perceptions are computed together is settled before the first is asked for, since the last bits of a state depend
on it: so a state is the same whichever batch asks first, and a resumed run has the states of an uninterrupted one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

GROUP = 64  # perceptions that are computed together

Row = tuple[int, ...]


class WordCache:
    """Adds ``aux_words`` to batches.

    Args:
        model: an augmented model.
        groups: ``aux_input_ids`` and ``aux_attention_mask`` of perceptions that are computed together; any other is
            computed by itself.
        size: how many perceptions are cached; one of a hundred tokens and a width of 576 takes 115 kB.
    """

    def __init__(self, model: nn.Module, groups: Iterable[dict[str, Tensor]] = (), size: int = 4096) -> None:
        self.model, self.size = model, size
        self.enabled = True  # off while the host trains
        self.rows: OrderedDict[Row, Tensor] = OrderedDict()
        self.groups: list[tuple[Tensor, Tensor]] = []
        self.group_of: dict[Row, int] = {}
        for group in groups:
            self._plan(group)

    def _plan(self, group: dict[str, Tensor]) -> None:
        """Settle which rows of a group are computed in it: those that no earlier group has."""
        rows = _rows(group)
        new = {row: number for number, row in enumerate(rows) if row and row not in self.group_of}
        fresh = list(new.values())
        if fresh:
            self.group_of.update((rows[number], len(self.groups)) for number in fresh)
            self.groups.append((group["aux_input_ids"][fresh], group["aux_attention_mask"][fresh]))

    def fill(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Put ``aux_words (B, A, D)`` beside ``aux_input_ids``; a batch without words comes back as it is."""
        if "aux_input_ids" not in batch or self.model.config.context_layer is None or not self.enabled:
            return batch
        ids, mask = batch["aux_input_ids"], batch["aux_attention_mask"]
        width = self.model.get_input_embeddings().embedding_dim
        padded = torch.zeros(*ids.shape, width)
        for number, row in enumerate(_rows(batch)):
            if not row:
                continue
            if row not in self.rows:
                self._compute(row)
            padded[number][mask[number].bool()] = self.rows[row].float()
            self.rows.move_to_end(row)
        while len(self.rows) > self.size:
            self.rows.popitem(last=False)
        return {**batch, "aux_words": padded}

    def compute_all(self) -> None:
        """Compute what is planned, and let nothing of it be dropped."""
        self.size = max(self.size, len(self.group_of))
        for row in self.group_of if self.enabled else ():
            if row not in self.rows:
                self._compute(row)

    def clear(self) -> None:
        """Forget all states; needed where the host has changed."""
        self.rows.clear()

    def _compute(self, row: Row) -> None:
        if row in self.group_of:
            ids, mask = self.groups[self.group_of[row]]
        else:
            ids = torch.tensor([row], dtype=torch.long)
            mask = torch.ones_like(ids)
        device = next(self.model.parameters()).device
        with torch.no_grad():
            words = self.model.auxiliary.words(ids.to(device), mask.to(device))
        named = {"aux_input_ids": ids, "aux_attention_mask": mask}
        for one, found, kept in zip(_rows(named), words.bfloat16().cpu(), mask.bool(), strict=True):
            self.rows[one] = found[kept].clone()


def _rows(batch: dict[str, Tensor]) -> list[Row]:
    """The token ids of each row, without padding."""
    masks = batch["aux_attention_mask"].bool()
    return [tuple(row[kept].tolist()) for row, kept in zip(batch["aux_input_ids"], masks, strict=True)]
