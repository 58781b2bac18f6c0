"""One attention module of a mixer: rank-factored projections, query added to the output by the mixer.

Knows: tensors. Source: MoAI (arXiv 2403.07508) section 3.3; the published code puts a GELU behind every projection,
the paper writes none. Both are reachable by ``arithmetic``.

A head is ``D / H`` wide, yet its queries, keys and values have only the rank's worth of freedom. Where the rank is the
smaller of the two, products of second factors are taken once and attention runs at the rank's width, with the same
result: queries and keys unless an activation stands between the factors, values always, since nothing stands between
the averaged values and the output projection's first factor.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moai.errors import HostError
from moai.model.arithmetic import is_published
from moai.model.mixer.low_rank import EPSILON, Tables, keys, logit_scale, queries, tables
from moai.model.mixer.masks import readable
from moai.model.weight_cache import CachedLinear

ROW = 1 << 20  # elements of one row's projection; from here a CPU is faster row by row


class FactoredLinear(nn.Module):
    """A ``(width, width)`` projection as two factors of ``rank``, without bias, and a GELU after it with ``gelu=True``.

    ``zero=True`` starts the second factor at zero, so that the projection's output is exactly zero.
    """

    def __init__(self, width: int, rank: int, *, gelu: bool = False, zero: bool = False) -> None:
        super().__init__()
        self.down = CachedLinear(width, rank, bias=False)
        self.up = CachedLinear(rank, width, bias=False)
        self.gelu = gelu
        nn.init.normal_(self.down.weight, std=width**-0.5)
        nn.init.normal_(self.up.weight, std=rank**-0.5)
        if zero:
            nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D) -> (..., D)``."""
        return self.widen(self.down(x))

    def widen(self, x: Tensor) -> Tensor:
        """Apply the second factor and the activation alone: ``(..., r) -> (..., D)``."""
        x = self.up(x)
        return F.gelu(x) if self.gelu else x


class Offered(NamedTuple):
    """What a context offers to one module's queries; it depends on no query, and may be kept for several of them."""

    keys: Tensor  # (B, H, K, .)
    values: Tensor  # (B, H, K, r), or (B, H, K, D/H) where the rank saves nothing
    made: Tables | None  # products of weights that queries need


class AttentionModule(nn.Module):
    """What one token stream takes from another: ``softmax(q k^T) v``, through factored projections.

    Args:
        width: decoder width ``D``; must be divisible by ``heads``.
        rank: rank of the four projections (the paper: 64).
        heads: attention heads (the published code: 4).
        arithmetic: ``"moai"``: no activations (as the paper), and an output projection that starts at zero, so that a
            fresh module changes nothing; ``"published"``: a GELU after every projection, and a random start.
        qk_norm_scale: when set, the logits are this times the cosine of query and key; 4 or more makes attention
            selective from the first step. ``None`` is the paper's scaled dot product.
    """

    def __init__(
        self,
        width: int,
        *,
        rank: int = 64,
        heads: int = 4,
        arithmetic: str = "moai",
        qk_norm_scale: float | None = None,
    ) -> None:
        super().__init__()
        if width % heads:
            raise HostError(f"the host's width {width} cannot be split into {heads} heads; change mixer.heads")
        self.heads = heads
        self.qk_norm_scale = qk_norm_scale
        self.plain = not is_published(arithmetic)
        self.query = FactoredLinear(width, rank, gelu=not self.plain)
        self.key = FactoredLinear(width, rank, gelu=not self.plain)
        self.value = FactoredLinear(width, rank, gelu=not self.plain)
        self.output = FactoredLinear(width, rank, gelu=not self.plain, zero=self.plain)
        # By the module's shape alone: a choice by the batch's would let a row's last bits depend on its neighbours.
        self.size = width // heads  # of a head
        self.low_rank = rank < self.size

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the update for ``x``; the mixer adds ``x`` itself.

        Args:
            x: queries ``(B, T, D)``.
            context: keys and values ``(B, K, D)``.
            mask: ``(B, K)`` bool, true where the context may be read. A row that may read nothing gets a zero update.
        """
        if context.shape[1] == 0:
            return torch.zeros_like(x)
        if not self.plain and len(x) > 1 and x.device.type == "cpu" and x[0].numel() >= ROW:
            # Blocks of a whole batch's size come fresh from the system every time: a third of the time is page faults.
            masks = [None] * len(x) if mask is None else mask.split(1)
            rows = zip(x.split(1), context.split(1), masks, strict=True)
            return torch.cat([self.output.widen(self.read(*row)) for row in rows])
        return self.output.widen(self.read(x, context, mask))

    def read(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """:meth:`forward` up to the output projection's first factor, ``(B, T, r)``; ``output.widen`` does the rest."""
        if context.shape[1] == 0:
            return x.new_zeros(*x.shape[:2], self.output.down.out_features)
        made = self.tables() if self.low_rank and self.plain else None
        q = self._queries(x, made)
        k, v = self._keys(context, made).to(q.dtype), self._values(context, made)
        factor = logit_scale(self.size, self.qk_norm_scale)
        seen = None if mask is None else readable(mask)
        if self.low_rank and not self.plain:
            out = _sum_over_heads(q, k, v, seen, factor)
        else:
            attention_mask = None if seen is None else seen[:, None, None, :]  # (B, 1, 1, K)
            out = F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=attention_mask, scale=factor)
            out = self._joined(out)
        return out if mask is None else out * mask.any(dim=1)[:, None, None].to(out.dtype)

    def weights(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention weights ``(B, H, T, K)``, zero where the mask forbids; for pictures and tests."""
        logits = self.logits(x, context)
        if mask is None:
            return logits.softmax(dim=-1)
        weights = logits.masked_fill(~readable(mask)[:, None, None, :], float("-inf")).softmax(dim=-1)
        return weights * mask[:, None, None, :].to(weights.dtype)

    def logits(self, x: Tensor, context: Tensor) -> Tensor:
        """What the weights are the softmax of, ``(B, H, T, K)``, without a mask."""
        made = self.tables() if self.low_rank and self.plain else None
        return self._products(self._queries(x, made), self._keys(context, made))

    def offer(self, context: Tensor) -> Offered:
        """Compute what ``context (B, K, D)`` offers, for :meth:`read` and for :meth:`read_offered`."""
        made = self.tables() if self.low_rank and self.plain else None
        return Offered(self._keys(context, made), self._values(context, made), made)

    def read_offered(self, x: Tensor, offered: Offered, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read as :meth:`read` does, of a context that is offered by a module without activations.

        Args:
            x: queries ``(B, T, D)``.
            offered: of a context with at least one token.
            bias: ``(B, 1, 1, K)``, added to the logits.

        Returns:
            ``(B, T, r)``, to be widened by ``output``; the logits ``(B, H, T, K)`` with the bias, and the weights.
        """
        logits = self._products(self._queries(x, offered.made), offered.keys) + bias
        weights = logits.softmax(dim=-1)
        return self._joined(weights @ offered.values.to(weights.dtype)), logits, weights

    def _products(self, q: Tensor, k: Tensor) -> Tensor:
        return q @ k.to(q.dtype).transpose(-1, -2) * logit_scale(self.size, self.qk_norm_scale)

    def _joined(self, out: Tensor) -> Tensor:
        """Heads ``(B, H, T, .)`` as ``(B, T, r)``."""
        return out.sum(dim=1) if self.low_rank else self.output.down(out.transpose(1, 2).flatten(2))

    def _queries(self, x: Tensor, made: Tables | None) -> Tensor:
        """Per head, ``(B, H, T, .)``."""
        if made is None:
            return self._normed(self._split(self.query(x)))  # (B, H, T, D/H)
        y = self.query.down(x)  # (B, T, r)
        with torch.autocast(x.device.type, enabled=False):
            return queries(y, made.query, made.query_size, self.heads, self.size).transpose(1, 2)

    def _keys(self, context: Tensor, made: Tables | None) -> Tensor:
        """Per head, ``(B, H, K, .)``."""
        if made is None:
            return self._normed(self._split(self.key(context)))  # (B, H, K, D/H)
        z = self.key.down(context)  # (B, K, r)
        with torch.autocast(context.device.type, enabled=False):
            return keys(z, made.key_size, self.heads, self.size).transpose(1, 2)

    def _normed(self, x: Tensor) -> Tensor:
        # Root mean square with an epsilon, not F.normalize: dropped-out images are zero vectors, whose gradient there
        # would be divided by 1e-12.
        return x if self.qk_norm_scale is None else F.rms_norm(x, (x.shape[-1],), eps=EPSILON)

    def _values(self, context: Tensor, made: Tables | None) -> Tensor:
        if not self.low_rank:
            return self._split(self.value(context))
        if made is None:
            down = self.output.down.weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)  # (H, D/H, r)
            return self._split(self.value(context)) @ down
        z = self.value.down(context)  # (B, K, r)
        with torch.autocast(context.device.type, enabled=False):
            return self._split(z @ made.value.to(z.dtype))

    def tables(self) -> Tables:
        """What the second factors come to; only of a module that is narrow and plain."""
        ups = (self.query.up.weight, self.key.up.weight, self.value.up.weight)
        with torch.autocast(ups[0].device.type, enabled=False):
            return tables(*ups, self.output.down.weight, self.heads, self.qk_norm_scale is not None)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _sum_over_heads(q: Tensor, k: Tensor, v: Tensor, readable: Tensor | None, scale: float) -> Tensor:
    """``sum_h softmax(q_h k_h^T) v_h``, ``(B, T, r)``, for values narrower than queries.

    Fused attention wants one width, and falls back to copies of everything. One head at a time reads the projections
    where they lie, and keeps one head's logits.
    """
    bias = q.new_zeros(1, 1, 1)
    if readable is not None:
        bias = bias.expand(len(q), 1, k.shape[2]).masked_fill(~readable[:, None], float("-inf"))
    out = None
    for q_h, k_h, v_h in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
        weights = torch.baddbmm(bias, q_h, k_h.transpose(1, 2), alpha=scale).softmax(dim=-1).to(v_h.dtype)
        out = torch.bmm(weights, v_h) if out is None else torch.baddbmm(out, weights, v_h)
    return out
