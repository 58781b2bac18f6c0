"""The words of perceptions in context, computed once per perception and kept.

Knows: token ids, and the model's encoder of auxiliary words. Where a run reads its words in context, the host's lower
layers run over them, which costs more than the answer: questions about a picture that was asked about before need not
pay for it again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

LIMIT = 256 * 1024 * 1024
Row = tuple[int, ...]


class WordStates:
    """Keep states of words in fp32, so that they are the same numbers; the least recently used go first.

    Args:
        model: of the run.
        limit: bytes that are kept.
    """

    def __init__(self, model: Any, limit: int = LIMIT) -> None:
        self.model, self.limit, self.size = model, limit, 0
        self._rows: OrderedDict[Row, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    @torch.no_grad()
    def fill(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put ``aux_words (B, A, D)`` beside ``aux_input_ids`` of a batch on the model's device."""
        if self.model.config.context_layer is None or "aux_input_ids" not in batch:
            return batch
        ids, mask = batch["aux_input_ids"], batch["aux_attention_mask"].bool()
        rows = [tuple(row[kept].tolist()) for row, kept in zip(ids, mask, strict=True)]
        known = self._known(set(rows))
        words = torch.zeros(*ids.shape, self.model.get_input_embeddings().embedding_dim, device=ids.device)
        for number, row in enumerate(rows):
            if row:
                words[number, mask[number]] = known[row].to(words.device)
        return {**batch, "aux_words": words}

    def _known(self, rows: set[Row]) -> dict[Row, Tensor]:
        with self._lock:
            found = {row: self._rows[row] for row in rows if row in self._rows}
            for row in found:
                self._rows.move_to_end(row)
        new = sorted((row for row in rows if row and row not in found), key=lambda row: (len(row), row))
        for group in _alike(new):
            found.update(self._compute(group))
        with self._lock:
            for row in new:
                if row not in self._rows:
                    self._rows[row] = found[row].cpu()
                    self.size += found[row].nbytes
            while self.size > self.limit and self._rows:
                self.size -= self._rows.popitem(last=False)[1].nbytes
        return found

    def _compute(self, rows: list[Row]) -> dict[Row, Tensor]:
        width, device = max(map(len, rows)), self.model.device
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        states = self.model.auxiliary.words(ids, mask)
        return {row: states[number, : len(row)].clone() for number, row in enumerate(rows)}


def _alike(rows: list[Row]) -> list[list[Row]]:
    """Group rows, which come by their length, so that no group is more than a quarter padding."""
    groups: list[list[Row]] = []
    for row in rows:
        if groups and 4 * len(groups[-1][0]) >= 3 * len(row):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
