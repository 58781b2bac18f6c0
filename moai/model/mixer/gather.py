"""Gather tokens from a batch by their positions, and add updates to them.

Knows: tensors. Whole vectors are copied: ``torch.gather`` and ``scatter_add`` would look up each of their elements,
which takes ten times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gather_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Gather ``x (B, S, D)`` at the positions ``index (B, n)``: ``(B, n, D)``."""
    return gather_flat(x, flat_positions(index, x.shape[1]))


def scatter_add_tokens(x: Tensor, index: Tensor, update: Tensor) -> Tensor:
    """Add ``update (B, n, D)`` to ``x (B, S, D)`` at the positions ``index (B, n)``, which may repeat."""
    return scatter_add_flat(x, flat_positions(index, x.shape[1]), update)


def flat_positions(index: Tensor, length: int, rows: Tensor | None = None) -> Tensor:
    """Turn positions ``index (R, n)`` into those in the flattened batch; ``rows (R,)`` are batch rows."""
    rows = torch.arange(len(index), device=index.device) if rows is None else rows
    return index + rows[:, None] * length


def gather_flat(x: Tensor, positions: Tensor) -> Tensor:
    """:func:`gather_tokens` by :func:`flat_positions` ``(R, n)``."""
    return x.flatten(0, 1).index_select(0, positions.flatten()).unflatten(0, positions.shape)


def scatter_add_flat(x: Tensor, positions: Tensor, update: Tensor) -> Tensor:
    """:func:`scatter_add_tokens` by :func:`flat_positions` ``(R, n)``."""
    added = x.flatten(0, 1).index_add(0, positions.flatten(), update.to(x.dtype).flatten(0, 1))
    return added.unflatten(0, x.shape[:2])
