"""The compressor: a Perceiver resampler that condenses auxiliary tokens of any length to 64.

Knows: tensors. Source: MoAI (arXiv 2403.07508) section 3.2; Flamingo (arXiv 2204.14198) appendix A.1.1. The published
form has neither positions nor a padding mask, which makes it a bag of words whose result depends on its neighbours in
the batch; ours has both, and starts each latent from one of the auxiliary tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moai.model.arithmetic import is_published
from moai.model.mixer.gather import gather_tokens
from moai.model.mixer.masks import logit_bias
from moai.model.weight_cache import CachedLinear, computing


class PerceiverLayer(nn.Module):
    """Latents read the input and each other, then a feed-forward; both pre-normalised and residual."""

    def __init__(self, width: int, heads: int, head_width: int, feedforward: int, identity_init: bool) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.norm_input = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.query = CachedLinear(width, inner, bias=False)
        self.key_value = CachedLinear(width, 2 * inner, bias=False)
        self.output = CachedLinear(inner, width, bias=False)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(width),
            CachedLinear(width, width * feedforward, bias=False),
            nn.GELU(),
            CachedLinear(width * feedforward, width, bias=False),
        )
        if identity_init:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.feedforward[-1].weight)

    def forward(self, latents: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        """``latents (B, C, D), x (B, A, D) -> (B, C, D)``; ``bias (B, 1, 1, A + C)`` is added to the logits."""
        normed = self.norm_latents(latents)
        q = self._split(self.query(normed))  # (B, H, C, head_width)
        context = torch.cat([self.norm_input(x), normed], dim=1)  # (B, A + C, D)
        k, v = (self._split(part) for part in self.key_value(context).chunk(2, dim=-1))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        latents = latents + self.output(out.transpose(1, 2).flatten(2))
        return latents + self.feedforward(latents)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Compressor(nn.Module):
    """Perceiver resampler ``(B, A, D) -> (B, C, D)``.

    Args:
        width: decoder width ``D``.
        latents: compressed tokens ``C``.
        depth, heads, head_width, feedforward: of the resampler; the published form is 4, 4, 64, 1.
        arithmetic: ``"moai"``: auxiliary tokens get sinusoidal positions, so that order counts; padding stays out of
            the attention; and latent ``i`` starts from the auxiliary token at ``i * length / C`` plus a small learned
            part, so that an untrained compressor returns its input. ``"published"``: none of the three, and each latent
            is a learned vector.
    """

    def __init__(
        self,
        width: int,
        *,
        latents: int = 64,
        depth: int = 4,
        heads: int = 4,
        head_width: int = 64,
        feedforward: int = 1,
        arithmetic: str = "moai",
    ) -> None:
        super().__init__()
        self.published = is_published(arithmetic)
        self.latents = nn.Parameter(torch.randn(latents, width) * (1.0 if self.published else 0.02))
        self.layers = nn.ModuleList(
            PerceiverLayer(width, heads, head_width, feedforward, identity_init=not self.published)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor, ends: Tensor | None = None, trace: Any = None) -> Tensor:
        """Condense ``x (B, A, D)`` with its bool ``mask (B, A)`` to ``(B, C, D)``.

        ``ends (B, A)`` are tokens that are read but that no latent starts from, such as the commas between facts. A
        row without auxiliary tokens gets latents too; whoever reads them must mask that row.
        """
        if trace is not None:
            trace.compressing(self, mask, ends)
        order, length = self.order(mask, ends)
        latents = self.latents.to(x.dtype).expand(x.shape[0], -1, -1)
        if not self.published:
            x = gather_tokens(x, order)
            mask = mask.gather(1, order)
            x = x + 0.5 * sinusoids(x.shape[1], x.shape[2], x.device, x.dtype)
            if x.shape[1]:
                latents = latents + self._starts(x, length)
        bias = None
        if not self.published:  # of the real tokens and of all latents
            bias = logit_bias(F.pad(mask, (0, latents.shape[1]), value=True), computing(x))[:, None, None]
        for layer in self.layers:
            if trace is not None:
                trace.step(layer, latents, x, None if self.published else mask)
            latents = layer(latents, x, bias)
        return self.norm(latents)

    def order(self, mask: Tensor, ends: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The order ``(B, A)`` in which the tokens are read, and how many latents may start from, ``(B, 1)``.

        Padding may stand on either side: it comes last, so that positions do not depend on it, and before it ``ends``.
        """
        if self.published:
            order = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
            return order, torch.full_like(order[:, :1], mask.shape[1])
        words = mask if ends is None else mask & ~ends
        order = (mask.long() + words.long()).argsort(dim=1, descending=True, stable=True)
        return order, words.sum(dim=1, keepdim=True)

    def _starts(self, x: Tensor, length: Tensor) -> Tensor:
        return gather_tokens(x, self.start_index(length)) * (length > 0)[..., None].to(x.dtype)

    def start_index(self, length: Tensor) -> Tensor:
        """Which auxiliary token, in `order`, each latent starts from: ``(B, C)`` of rows of ``length (B, 1)`` words."""
        return torch.arange(len(self.latents), device=length.device) * length // len(self.latents)


def sinusoids(length: int, width: int, device=None, dtype=torch.float32) -> Tensor:
    """Sinusoidal positions ``(length, width)`` as in Vaswani et al. 2017, values in [-1, 1]."""
    half = (width + 1) // 2
    rates = torch.exp(torch.arange(half, device=device) * (-math.log(10000.0) / half))
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width].to(dtype)
