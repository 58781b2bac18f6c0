"""One attention module of a mixer: rank-factored projections, query added to the output by the mixer.

Knows: tensors. Source: MoAI (arXiv 2403.07508) section 3.3; the published code puts a GELU behind every projection,
the paper writes none. Both are reachable by ``activation``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moai.errors import HostError


class FactoredLinear(nn.Module):
    """A ``(width, width)`` projection as two factors of ``rank``, without bias, and an optional activation behind.

    ``zero=True`` starts the second factor at zero, so that the projection's output is exactly zero.
    """

    def __init__(self, width: int, rank: int, *, activation: str = "none", zero: bool = False) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        self.activation = activation
        nn.init.normal_(self.down.weight, std=width**-0.5)
        nn.init.normal_(self.up.weight, std=rank**-0.5)
        if zero:
            nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D) -> (..., D)``."""
        x = self.up(self.down(x))
        return F.gelu(x) if self.activation == "gelu" else x


class AttentionModule(nn.Module):
    """What one token stream takes from another: ``softmax(q k^T) v``, through factored projections.

    Args:
        width: decoder width ``D``; must be divisible by ``heads``.
        rank: rank of the four projections (the paper: 64).
        heads: attention heads (the published code: 4).
        activation: ``"none"`` (paper) or ``"gelu"`` (published code: behind every projection).
        identity_init: start the output projection at zero, so that a fresh module changes nothing.
        sharpness: when set, the logits are this times the cosine of query and key; 4 or more makes attention selective
            from the first step. ``None`` is the paper's scaled dot product.
    """

    def __init__(
        self,
        width: int,
        *,
        rank: int = 64,
        heads: int = 4,
        activation: str = "none",
        identity_init: bool = True,
        sharpness: float | None = None,
    ) -> None:
        super().__init__()
        if width % heads:
            raise HostError(f"the host's width {width} cannot be split into {heads} heads; change mixer.heads")
        self.heads = heads
        self.sharpness = sharpness
        self.query = FactoredLinear(width, rank, activation=activation)
        self.key = FactoredLinear(width, rank, activation=activation)
        self.value = FactoredLinear(width, rank, activation=activation)
        self.output = FactoredLinear(width, rank, activation=activation, zero=identity_init)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the update for ``x``; the mixer adds ``x`` itself.

        Args:
            x: queries ``(B, T, D)``.
            context: keys and values ``(B, K, D)``.
            mask: ``(B, K)`` bool, true where the context may be read. A row that may read nothing gets a zero update.
        """
        if context.shape[1] == 0:
            return torch.zeros_like(x)
        q = self._split(self.query(x))  # (B, H, T, D/H)
        k = self._split(self.key(context))
        v = self._split(self.value(context))
        scale = None
        if self.sharpness is not None:
            # Root mean square with an epsilon, not F.normalize: dropped-out images are zero vectors, whose gradient
            # there would be divided by 1e-12.
            q, k = (F.rms_norm(part, (part.shape[-1],), eps=1e-6) for part in (q, k))
            scale = self.sharpness / q.shape[-1]
        readable = None if mask is None else mask.any(dim=1)
        attention_mask = None
        if mask is not None:
            # A softmax over nothing is NaN: rows with no context read everything and are zeroed below.
            attention_mask = (mask | ~readable[:, None])[:, None, None, :]  # (B, 1, 1, K)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask, scale=scale)
        out = self.output(out.transpose(1, 2).flatten(2))  # (B, T, D)
        return out if readable is None else out * readable[:, None, None].to(out.dtype)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
