"""Gather tokens from a batch by their positions, and add updates to them.

Knows: tensors. Whole vectors are copied: ``torch.gather`` and ``scatter_add`` would look up each of their elements,
which takes ten times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gather_tokens(x: Tensor, index: Tensor, rows: Tensor | None = None) -> Tensor:
    """Gather ``x (B, S, D)`` at the positions ``index (R, n)``: ``(R, n, D)``; ``rows (R,)`` are batch rows."""
    return x.flatten(0, 1).index_select(0, _flat(index, x.shape[1], rows)).unflatten(0, index.shape)


def scatter_add_tokens(x: Tensor, index: Tensor, update: Tensor, rows: Tensor | None = None) -> Tensor:
    """Add ``update (R, n, D)`` to ``x (B, S, D)`` at the positions ``index (R, n)``, which may repeat."""
    flat = _flat(index, x.shape[1], rows)
    return x.flatten(0, 1).index_add(0, flat, update.to(x.dtype).flatten(0, 1)).unflatten(0, x.shape[:2])


def _flat(index: Tensor, length: int, rows: Tensor | None) -> Tensor:
    rows = torch.arange(len(index), device=index.device) if rows is None else rows
    return (index + rows[:, None] * length).flatten()
