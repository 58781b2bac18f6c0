"""Taking tokens out of a batch and adding to them, by their positions in each row.

Knows: tensors. Whole vectors are copied: ``gather`` and ``scatter_add`` would look up each of their elements, which
takes ten times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor


def take(x: Tensor, index: Tensor) -> Tensor:
    """``x (B, S, D)`` at the positions ``index (B, n)``: ``(B, n, D)``."""
    return x.flatten(0, 1).index_select(0, _flat(index, x.shape[1])).unflatten(0, index.shape)


def add(x: Tensor, index: Tensor, update: Tensor) -> Tensor:
    """``x (B, S, D)`` with ``update (B, n, D)`` added at the positions ``index (B, n)``, which may repeat."""
    added = x.flatten(0, 1).index_add(0, _flat(index, x.shape[1]), update.to(x.dtype).flatten(0, 1))
    return added.unflatten(0, x.shape[:2])


def _flat(index: Tensor, length: int) -> Tensor:
    return (index + torch.arange(len(index), device=index.device)[:, None] * length).flatten()
