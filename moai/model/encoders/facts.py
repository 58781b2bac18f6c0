"""Which fact an auxiliary word belongs to, and what else that fact says.

Knows: tensors and the tokens that end a fact. "left" says nothing by itself; beside "red" and "circle" it is where the
red circle is. An attention that reads one token at a time needs the words that belong together in one token.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from moai.model.norms import rms_normalize

END_MARKS = frozenset(",.;:!?、，。；：！？،؛۔।")  # that end a fact or a sentence in the languages of the templates

ORDER = 0.7  # weight of the order beside the words themselves


def fact_ends(tokenizer) -> list[int]:
    """Ids of the tokens that are nothing but a mark: what stands between two facts of the style ``compact``."""
    found = []
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if len(token) <= 8 and (text := tokenizer.convert_tokens_to_string([token]).strip()) and set(text) <= END_MARKS:
            found.append(number)
    return found


def fact_embeddings(words: Tensor, ids: Tensor, mask: Tensor, ends: Iterable[int], ordered: bool = False) -> Tensor:
    """What each word's fact says, at unit scale: see :func:`pooled_embedding`.

    Args:
        words: ``(B, A, D)``.
        ids: ``(B, A)``, the tokens that ``words`` are.
        mask: ``(B, A)``, true at real tokens; padding may stand on either side.
        ends: tokens that end a fact; they belong to none.
        ordered: also in which order.

    Returns:
        ``(B, A, D)``; zero at padding and at the ends.
    """
    inside, number = fact_numbers(ids, mask, ends)
    together = pooled_embedding(words, inside, number, ordered)
    return together.gather(1, number[..., None].expand_as(words)) * inside[..., None].to(words.dtype)


def pooled_embedding(words: Tensor, inside: Tensor, number: Tensor, ordered: bool) -> Tensor:
    """What the words of each group say together, at unit scale.

    That is their mean. It is the same for "star above square" and for "square above star". ``ordered`` adds, with its
    elements half a turn further, the mean weighed from 1 at a group's first word to -1 at its last: two groups with the
    same words have the same one in the same order, and its negative in the opposite order.

    Args:
        words: ``(B, T, D)``.
        inside: ``(B, T)``, true at words that count.
        number: ``(B, T)``, the group of each word, from 0 and rising.
        ordered: as said.

    Returns:
        ``(B, T, D)``, by group; zero for numbers that no word has.
    """
    kept = inside.to(words.dtype)
    where = number[..., None].expand_as(words)
    mean = rms_normalize(torch.zeros_like(words).scatter_add(1, where, words * kept[..., None]))
    if not ordered:
        return mean
    counts = torch.zeros_like(kept).scatter_add(1, number, kept)
    rank = kept.cumsum(dim=1) - 1 - (counts.cumsum(dim=1) - counts).gather(1, number)
    last = counts.gather(1, number) - 1
    weights = kept * (1 - 2 * rank / last.clamp(min=1)) * (last > 0)  # a word alone has no order
    order = rms_normalize(torch.zeros_like(words).scatter_add(1, where, words * weights[..., None]))
    return rms_normalize(mean + ORDER * order.roll(words.shape[-1] // 2, dims=-1))


def fact_numbers(ids: Tensor, mask: Tensor, ends: Iterable[int]) -> tuple[Tensor, Tensor]:
    """Which tokens ``(B, A)`` stand inside a fact, and the number of each token's fact in its row, from 0."""
    end = is_end(ids, ends) & mask.bool()
    return mask.bool() & ~end, end.long().cumsum(dim=1) - end.long()


def is_end(ids: Tensor, ends: Iterable[int]) -> Tensor:
    """Which of the tokens end a fact, in the shape of ``ids``."""
    return torch.isin(ids, torch.tensor(list(ends), device=ids.device, dtype=ids.dtype))
