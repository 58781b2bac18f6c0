"""The loss that guides an attention to the tokens it should read.

Knows: tensors. Which tokens these are is found out in ``moai.training.objectives.supervision``. After the supervised
attention of Liu et al. (arXiv 1609.04186), for each head by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEVER = -1e30  # a logit; finite, so that rows without anything to read have gradients


def attention_loss(logits: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
    """How far an attention is from what it should read.

    Heads take turns: of a row with three groups, the first and fourth head are asked for the first group, the second
    for the second, the third for the third. A head has one thing to find then, and what it found is its own.

    Args:
        logits: of one query per row, ``(B, H, C)``.
        mask: ``(B, C)``, true at tokens that can be read.
        targets: ``(B, G, C)`` bool, groups of tokens. Any token of a group will do. Groups without any true are left
            out, and rows without a group.

    Returns:
        The mean over rows and heads of ``-log`` of the attention that lies on the head's group.
    """
    logits, wanted = logits.float(), targets & mask[:, None]
    groups = wanted.any(dim=2)  # (B, G)
    count = groups.sum(dim=1, keepdim=True)
    turn = torch.arange(logits.shape[1], device=count.device) % count.clamp(min=1)  # (B, H)
    asked = groups[:, None] & (groups.cumsum(dim=1)[:, None] - 1 == turn[..., None])  # (B, H, G), one true a head
    wanted = (asked[..., None] & wanted[:, None]).any(dim=2)  # (B, H, C)
    # In logarithms and for each head: one that is all but sure of something else must still feel a pull.
    every = logits.masked_fill(~mask[:, None], NEVER).logsumexp(dim=-1)
    found = logits.masked_fill(~wanted, NEVER).logsumexp(dim=-1)
    missed = torch.where(count > 0, every - found, 0.0)  # (B, H)
    return missed.mean(dim=1).sum() / (count > 0).sum().clamp(min=1)
