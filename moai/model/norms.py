"""Vectors brought to one scale. Knows: tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def rms_normalize(x: Tensor) -> Tensor:
    """Each vector at unit root mean square; zero stays zero."""
    return F.rms_norm(x, (x.shape[-1],), eps=1e-6)


def centered(x: Tensor, mask: Tensor) -> Tensor:
    """``x (B, T, D)`` less its row's mean over the tokens in ``mask (B, T)``, at unit scale; a single token stays."""
    kept = mask[..., None].to(x.dtype)
    count = kept.sum(dim=1, keepdim=True)
    mean = (x * kept).sum(dim=1, keepdim=True) / count.clamp(min=1)
    return rms_normalize(x - mean * (count > 1))
