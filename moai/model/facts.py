"""Which fact an auxiliary word belongs to, and what else that fact says.

Knows: tensors and the tokens that end a fact. "left" says nothing by itself; beside "red" and "circle" it is where the
red circle is. An attention that reads one token at a time needs the words that belong together in one token.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from moai.model.mixer import unit

MARKS = frozenset(",.;:!?、，。；：！？،؛۔।")  # that end a fact or a sentence in the languages of the templates


def fact_ends(tokenizer) -> list[int]:
    """Ids of the tokens that are nothing but a mark: what stands between two facts of the style ``compact``."""
    found = []
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if len(token) <= 8 and (text := tokenizer.convert_tokens_to_string([token]).strip()) and set(text) <= MARKS:
            found.append(number)
    return found


def fact_means(words: Tensor, ids: Tensor, mask: Tensor, ends: Iterable[int]) -> Tensor:
    """The mean over each word's fact, at unit scale.

    Args:
        words: ``(B, A, D)``.
        ids: ``(B, A)``, the tokens that ``words`` are.
        mask: ``(B, A)``, true at real tokens; padding may stand on either side.
        ends: tokens that end a fact; they belong to none.

    Returns:
        ``(B, A, D)``; zero at padding and at the ends.
    """
    inside, number = fact_numbers(ids, mask, ends)
    kept = inside[..., None].to(words.dtype)
    where = number[..., None].expand_as(words)
    sums = torch.zeros_like(words).scatter_add(1, where, words * kept)
    return unit(sums.gather(1, where)) * kept


def fact_numbers(ids: Tensor, mask: Tensor, ends: Iterable[int]) -> tuple[Tensor, Tensor]:
    """Which tokens ``(B, A)`` stand inside a fact, and the number of each token's fact in its row, from 0."""
    end = is_end(ids, ends) & mask.bool()
    return mask.bool() & ~end, end.long().cumsum(dim=1) - end.long()


def is_end(ids: Tensor, ends: Iterable[int]) -> Tensor:
    """Which of the tokens end a fact, in the shape of ``ids``."""
    return torch.isin(ids, torch.tensor(list(ends), device=ids.device, dtype=ids.dtype))
