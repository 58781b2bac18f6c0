"""Copying: what the tokens that answer take from auxiliary words as they are, beside what they have learnt of them.

Knows: tensors. Values pass through a projection of rank 64, which learns to say the words of the training data and no
others. A word can also be taken as the host itself writes it: its own row of the output layer, added where attention
lies on it, by a gate that decides whether the question is for a word. After the pointer-generator network (See et al.,
arXiv 1704.04368), in residual form: the gate starts at zero, so that a fresh mixer changes nothing.

A text of several tokens is copied by what comes next: an answer's token finds itself among the auxiliary words, and
takes the word after it, as induction heads do (Olsson et al., arXiv 2209.11895). Tokens are compared as numbers, so
that words that were never trained are found as well as any.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from moai.model.norms import rms_normalize

STEP = 4.0  # how fast gates open
LOOK_BACK = 8  # tokens that are compared to tell equal words apart
NO_ANSWER, NO_WORD = -1, -2  # stand in histories where there is no token; they equal no token, nor each other


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

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Weight ``(H, D)`` and bias ``(H,)`` of the gate, as a token's state meets them."""
        return self.gate.weight * self.scale, self.gate.bias * self.scale

    def forward(self, query: Tensor, weights: Tensor, sources: Tensor) -> Tensor:
        """The update ``(B, T, D)``, in units of the tokens' own size.

        Args:
            query: ``(B, T, D)``, tokens as the mixer reads them.
            weights: attention ``(B, H, T, C)``.
            sources: ``(B, C, D)``, each auxiliary token's word, zero where it is none.
        """
        gated = torch.einsum("bth,bhtc->btc", (self.gate(query) * self.scale).to(weights.dtype), weights)
        return torch.einsum("btc,bcd->btd", gated, sources.to(gated.dtype))


def rows_of(table: Tensor, ids: Tensor, mean: Tensor) -> Tensor:
    """The words ``ids (...)`` as rows of ``table (V, D)`` less ``mean (D,)``, at unit scale in fp32."""
    return rms_normalize(table[ids].float() - mean)


def mean_row(table: Tensor) -> Tensor:
    """``(V, D) -> (D,)`` in fp32; in pieces, since in fp32 the table may be larger than the host."""
    return torch.stack([piece.float().sum(dim=0) for piece in table.split(2048)]).sum(dim=0) / len(table)


def histories(ids: Tensor, before: Tensor) -> Tensor:
    """Each token of ``ids (B, S)`` with those before it, the latest first.

    Args:
        ids: NO_ANSWER or NO_WORD where a history ends.
        before: ``(B, LOOK_BACK - 1)`` tokens before them.

    Returns:
        ``(B, S, LOOK_BACK)``.
    """
    return torch.cat([before, ids], dim=1).unfold(1, LOOK_BACK, 1).flip(2)


def longest_matches(answers: Tensor, words: Tensor) -> Tensor:
    """Find the auxiliary words that an answer has come to: of those equal to its token, the ones with the most before.

    Args:
        answers: ``(B, T, LOOK_BACK)``, each answer token and those before it in its answer, the latest first.
        words: ``(B, C, LOOK_BACK)``, the word of each auxiliary token and those before it in its fact.

    Returns:
        ``(B, T, C)`` bool. Of "1 9 9", the second 9 of an answer "1 9 9" is found by the two tokens before it.
    """
    equal = answers[:, :, None] == words[:, None]  # (B, T, C, LOOK_BACK)
    length = equal.int().cumprod(dim=-1).sum(dim=-1)
    return (length > 0) & (length == length.amax(dim=-1, keepdim=True))


def weights_of_matches(logits: Tensor, matches: Tensor) -> Tensor:
    """Attend to matches alone: from ``logits (B, H, T, C)`` weights that sum to one, or to zero without a match."""
    kept = matches[:, None]
    weights = logits.masked_fill(~kept, torch.finfo(logits.dtype).min).softmax(dim=-1)
    return weights * kept.to(weights.dtype)
