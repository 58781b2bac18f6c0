"""What goes into the host's forward and what comes out: masks, positions, and which logits are computed.

Knows: tensors, and the signatures of transformers' causal language models, which differ between families.
"""

from __future__ import annotations

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OPTIONAL = ("position_ids", "logits_to_keep", "use_cache")


def prompt_positions(given, attention_mask, labels, input_ids, past: int, window: int) -> Tensor | None:
    """The prompt mask for the current window ``(B, window)``; ``None`` where nothing is to be mixed."""
    if given is not None:
        given = F.pad(given.bool()[:, past : past + window], (0, max(0, past + window - given.shape[1])))
        return given if past == 0 or bool(given.any()) else None
    if past or input_ids is None:
        return None
    attended = padding_mask(attention_mask)
    mask = torch.ones_like(input_ids, dtype=torch.bool) if attended is None else attended.bool()
    return mask if labels is None else mask & (labels == -100)


def padding_mask(attention_mask: Tensor | dict[str, Tensor] | None) -> Tensor | None:
    """The mask ``(B, S)`` of real tokens; ``None`` for what a host may take instead, one mask for each pair of tokens.

    With a static cache transformers makes such masks before the forward pass, perhaps one for each type of layer.
    """
    return attention_mask if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2 else None


def positions(attention_mask: Tensor | None, window: int) -> Tensor | None:
    """Position numbers ``(B, window)`` that skip padding; ``None`` without a two-dimensional mask."""
    if padding_mask(attention_mask) is None:
        return None
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -window:]


def answer_positions(labels: Tensor) -> Tensor:
    """From one before the first label of any row to the end: the only logits that a loss needs."""
    labelled = labels != -100
    first = int(torch.where(labelled.any(dim=1), labelled.int().argmax(dim=1), labels.shape[1] - 1).min())
    return torch.arange(max(first - 1, 0), labels.shape[1], device=labels.device)


def takes(host: nn.Module) -> frozenset[str]:
    """Those of ``OPTIONAL`` that the host's forward accepts: by name, or among arguments of any name."""
    parameters = inspect.signature(host.forward).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return frozenset(OPTIONAL)
    return frozenset(OPTIONAL) & frozenset(parameters)


def kept_logits(logits: Tensor, keep: int | Tensor, window: int) -> Tensor:
    """The logits of ``keep``, cut out here when the host did not do so itself.

    A host whose forward swallows ``logits_to_keep`` among its further arguments returns all of them.
    """
    every = isinstance(keep, int) and keep == 0
    count = window if every else keep if isinstance(keep, int) else len(keep)
    if logits.shape[1] == count or every:
        return logits
    return logits[:, -count:] if isinstance(keep, int) else logits[:, keep]
