"""One attention module of a mixer: rank-factored projections, query added to the output by the mixer.

Knows: tensors. Source: MoAI (arXiv 2403.07508) section 3.3; the published code puts a GELU behind every projection,
the paper writes none. Both are reachable by ``activation``.

A head is ``D / H`` wide, yet its queries, keys and values have only the rank's worth of freedom. Where the rank is the
smaller of the two, products of second factors are taken once and attention runs at the rank's width, with the same
result: queries and keys unless an activation stands between the factors, values always, since nothing stands between
the averaged values and the output projection's first factor.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moai.errors import HostError

EPSILON = 1e-6  # of the root mean square
ROW = 1 << 20  # elements of one row's projection; from here a CPU is faster row by row


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
        return self.widen(self.down(x))

    def widen(self, x: Tensor) -> Tensor:
        """The second factor and the activation alone: ``(..., r) -> (..., D)``."""
        x = self.up(x)
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
        # By the module's shape alone: a choice by the batch's would let a row's last bits depend on its neighbours.
        self.narrow = rank < width // heads
        self.plain = activation == "none"

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
        q, k, scale = self._queries_keys(x, context)
        v = self._values(context)  # (B, H, K, r), or (B, H, K, D/H) where the rank saves nothing
        readable = None if mask is None else _readable(mask)
        if self.narrow and not self.plain:
            out = _sum_over_heads(q, k, v, readable, scale)
        else:
            attention_mask = None if readable is None else readable[:, None, None, :]  # (B, 1, 1, K)
            out = F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=attention_mask, scale=scale)
            out = out.sum(dim=1) if self.narrow else self.output.down(out.transpose(1, 2).flatten(2))  # (B, T, r)
        return out if mask is None else out * mask.any(dim=1)[:, None, None].to(out.dtype)

    def weights(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention weights ``(B, H, T, K)``, zero where the mask forbids; for pictures and tests."""
        q, k, scale = self._queries_keys(x, context)
        logits = q @ k.transpose(-1, -2) * scale
        if mask is None:
            return logits.softmax(dim=-1)
        weights = logits.masked_fill(~_readable(mask)[:, None, None, :], float("-inf")).softmax(dim=-1)
        return weights * mask[:, None, None, :].to(weights.dtype)

    def _queries_keys(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, float]:
        """Per head, queries ``(B, H, T, .)``, keys ``(B, H, K, .)``, and the factor on their product."""
        if self.narrow and self.plain:
            return self._narrow_queries_keys(x, context)
        q, k = self._split(self.query(x)), self._split(self.key(context))  # (B, H, T, D/H), (B, H, K, D/H)
        if self.sharpness is None:
            return q, k, q.shape[-1] ** -0.5
        # Root mean square with an epsilon, not F.normalize: dropped-out images are zero vectors, whose gradient
        # there would be divided by 1e-12.
        q, k = (F.rms_norm(part, (part.shape[-1],), eps=EPSILON) for part in (q, k))
        return q, k, self.sharpness / q.shape[-1]

    def _narrow_queries_keys(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, float]:
        """``(U_q y) (U_k z) = y (U_q^T U_k) z`` with ``y`` and ``z`` behind the first factors: both stay ``r`` wide."""
        y, z = self.query.down(x), self.key.down(context)  # (B, T, r), (B, K, r)
        with torch.autocast(x.device.type, enabled=False):
            up_q, up_k = self._heads_of(self.query), self._heads_of(self.key)  # (H, D/H, r)
            size = up_q.shape[1]
            exact_y, exact_z = _at_least_single(y), _at_least_single(z)
            q = exact_y[:, None] @ (up_q.transpose(1, 2) @ up_k)  # (B, H, T, r)
            k, scale = exact_z[:, None].expand(-1, self.heads, -1, -1), size**-0.5
            if self.sharpness is not None:
                q, k = q * _inverse_size(exact_y, up_q), k * _inverse_size(exact_z, up_k)
                scale = self.sharpness / size
        return q.to(y.dtype), k.to(y.dtype), scale

    def _values(self, context: Tensor) -> Tensor:
        if not self.narrow:
            return self._split(self.value(context))
        down = self.output.down.weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)  # (H, D/H, r)
        if not self.plain:
            return self._split(self.value(context)) @ down
        z = self.value.down(context)  # (B, K, r)
        with torch.autocast(context.device.type, enabled=False):
            joined = self._heads_of(self.value).transpose(1, 2) @ _at_least_single(down)  # (H, r, r)
        return z[:, None] @ joined.to(z.dtype)

    def _heads_of(self, projection: FactoredLinear) -> Tensor:
        return _at_least_single(projection.up.weight).unflatten(0, (self.heads, -1))  # (H, D/H, r)

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


def _inverse_size(x: Tensor, up: Tensor) -> Tensor:
    """``1 / rms(up_h x)`` per head, ``(B, H, T, 1)``, by the quadratic form ``x (up^T up) x``; never ``D`` wide."""
    square = ((x[:, None] @ (up.transpose(1, 2) @ up)) * x[:, None]).sum(dim=-1, keepdim=True)
    return (square.clamp(min=0.0) / up.shape[1] + EPSILON).rsqrt()


def _at_least_single(x: Tensor) -> Tensor:
    # Products of weights, and the sizes taken from them, are small and cheap: half precision would save nothing.
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _readable(mask: Tensor) -> Tensor:
    # A softmax over nothing is NaN: rows with no context read everything, and are zeroed behind.
    return mask | ~mask.any(dim=1, keepdim=True)
