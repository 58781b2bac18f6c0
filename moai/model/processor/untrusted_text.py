"""Untrusted words as token ids and tensors: what images and users say never becomes a control token.

Knows: tokenizers, and token ids; the processors build their inputs from these.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch


def plain_tokenizer(tokenizer):
    """A copy of a tokenizer that splits control tokens into the characters they are made of, for untrusted text.

    A copy, because the flag is a state of the shared Rust object, and another thread would see it change.
    """
    plain = copy.deepcopy(tokenizer)
    plain.split_special_tokens = True
    return plain


def auxiliary(rows: Sequence[list[int]]) -> dict[str, torch.Tensor]:
    """``aux_input_ids`` and ``aux_attention_mask`` ``(B, A)`` of each row's words, padded on the right."""
    tokens = torch.zeros(len(rows), max(1, *map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[index, : len(row)] = 1
    return {"aux_input_ids": tokens, "aux_attention_mask": mask}
