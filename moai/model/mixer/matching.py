"""Matching: which auxiliary words are words of the question, and which facts hold how many of them.

Knows: tensors. Attention compares question and facts through projections of rank 64, which learn to tell the words of
the training data apart and no others: with an open vocabulary, a name that was never trained is hardly found. Words can
also be compared as the host embeds them, where "dog" is near to "dogs" whether or not either was trained. Of each fact
the word that is most similar to a word of the question counts, as in the late interaction of ColBERT (Khattab and
Zaharia, arXiv 2004.12832). What comes of it is written into the auxiliary tokens, along two fixed directions, for
queries, keys and values to use.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moai.model.mixer.copying import NO_WORD
from moai.model.norms import rms_normalize

POWER = 4  # of a cosine: words that are merely of one language are hardly similar
ASKING = 0.5  # of the two directions in every question, so that what matches is read from the first step


def find_matches(question: Tensor, words: Tensor, starts: Tensor, table: Tensor, mean: Tensor) -> Tensor:
    """Compare the words of questions with those that auxiliary tokens start from.

    Args:
        question: ``(B, S)`` token ids.
        words: ``(B, S)`` bool, true at the question's words.
        starts: ``(B, C, 2)``, the word that each auxiliary token starts from, ``NO_WORD`` where it is none of a fact,
            and the number of its fact.
        table: ``(V, D)`` word embeddings; ``mean (D,)`` is theirs.

    Returns:
        ``(B, C, 2)`` in fp32: how similar the token's word is to any of the question, from 0 to 1; and the sum of this
        over the question's words for the token's whole fact.
    """
    ids, facts = starts.unbind(dim=-1)
    there = ids != NO_WORD
    asked = rms_normalize(table[question].float() - mean)
    found = rms_normalize(table[ids.masked_fill(~there, 0)].float() - mean)
    cosine = torch.einsum("bsd,bcd->bsc", asked, found) / table.shape[1]
    similar = cosine.clamp(min=0).pow(POWER) * (words[:, :, None] & there[:, None])
    if similar.shape[1] == 0 or similar.shape[2] == 0:
        return similar.new_zeros(*starts.shape[:2], 2)
    facts = facts.masked_fill(~there, 0)
    best = similar.new_zeros(*similar.shape[:2], int(facts.max()) + 1)
    best = best.scatter_reduce(2, facts[:, None].expand_as(similar), similar, "amax")
    together = best.sum(dim=1).gather(1, facts) * there
    return torch.stack([similar.amax(dim=1), together], dim=-1)


def directions(width: int, like: Tensor) -> Tensor:
    """The two directions ``(2, D)`` along which matches are written: orthogonal, of unit scale, and near to no word."""
    places = torch.arange(width, device=like.device)
    return (1 - 2 * torch.stack([places, places // 2]).remainder(2)).to(like.dtype)


def with_matches(aux: Tensor, matches: Tensor, weight: float) -> Tensor:
    """Write ``matches (B, C, 2)`` into auxiliary tokens ``(B, C, D)``."""
    return aux + weight * (matches.to(aux.dtype) @ directions(aux.shape[-1], aux))
