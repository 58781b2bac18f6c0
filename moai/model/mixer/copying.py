"""Copying: what the token that answers takes from auxiliary words as they are, beside what it has learnt of them.

Knows: tensors. Values pass through a projection of rank 64, which learns to say the words of the training data and no
others. A word can also be taken as the host itself writes it: its own row of the output layer, added where attention
lies on it, by a gate that decides whether the question is for a word. After the pointer-generator network (See et al.,
arXiv 1704.04368), in residual form: the gate starts at zero, so that a fresh mixer changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from moai.model.norms import rms_normalize

STEP = 4.0  # how fast gates open


class Copying(nn.Module):
    """A gate for each attention head, on the words that the head reads.

    Args:
        width: decoder width ``D``.
        heads: of the module whose attention is followed.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, heads)
        # Adam moves all weights of a row in one step, by the learning rate each: without a scale, the gate of a wide
        # host goes from shut to far open within two steps, and everything above it with it.
        self.scale = STEP * width**-0.5
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, query: Tensor, weights: Tensor, sources: Tensor) -> Tensor:
        """The update ``(B, D)``, in units of the token's own size.

        Args:
            query: ``(B, D)``, the token as the mixer reads it.
            weights: attention ``(B, H, C)``.
            sources: ``(B, C, D)``, each auxiliary token's word, zero where it is none.
        """
        gated = torch.einsum("bh,bhc->bc", (self.gate(query) * self.scale).to(weights.dtype), weights)
        return torch.einsum("bc,bcd->bd", gated, sources.to(gated.dtype))


def rows_of(table: Tensor, ids: Tensor, mean: Tensor) -> Tensor:
    """The words ``ids (...)`` as rows of ``table (V, D)`` less ``mean (D,)``, at unit scale in fp32."""
    return rms_normalize(table[ids].float() - mean)


def mean_row(table: Tensor) -> Tensor:
    """``(V, D) -> (D,)`` in fp32; in pieces, since in fp32 the table may be larger than the host."""
    return torch.stack([piece.float().sum(dim=0) for piece in table.split(2048)]).sum(dim=0) / len(table)
