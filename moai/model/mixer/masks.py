"""Masks of attention: which tokens may be attended to.

Knows: tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor


def readable(mask: Tensor) -> Tensor:
    """Turn ``mask (B, K)``, true where attention is allowed, into one without empty rows.

    A softmax over nothing is NaN: a row without context attends to everything, and its result is zeroed afterwards.
    """
    return mask | ~mask.any(dim=1, keepdim=True)


def logit_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a bool mask into what is added to the logits: 0 where it is true, else minus infinity.

    Fused attention turns a bool mask into the same in every call; here it is done once for all that share the mask.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, float("-inf"))
