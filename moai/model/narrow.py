"""Attention at the rank's width: what queries, keys and values come to when nothing stands between their factors.

Knows: tensors. With ``y`` and ``z`` behind the first factors, a head's logit is ``(U_q y) (U_k z) = y (U_q^T U_k) z``
and the norms of both are quadratic forms; its share of the output is ``(D_o U_v) z``, averaged. All that depends on
weights alone is a table per module, so that tokens meet one product each. ``N`` counts modules, which go together.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-6  # of the root mean square


class Tables(NamedTuple):
    """The products of second factors, at least in single precision: they are small, and sizes are taken from them."""

    query: Tensor  # (r, H * r); with norms (r, H * 2r), per head first what gives the norm
    key: Tensor | None  # (r, H * r), only with norms
    value: Tensor  # (r, H * r)


def tables(query: Tensor, key: Tensor, value: Tensor, output: Tensor, heads: int, norms: bool) -> Tables:
    """From the second factors ``(D, r)`` of query, key and value and the first one ``(r, D)`` of the output."""
    q, k, v = (at_least_single(up).unflatten(0, (heads, -1)) for up in (query, key, value))  # (H, D/H, r)
    down = at_least_single(output).unflatten(1, (heads, -1)).permute(1, 2, 0)  # (H, D/H, r)
    crossed = q.transpose(1, 2) @ k  # (H, r, r)
    if norms:
        crossed = torch.cat([q.transpose(1, 2) @ q, crossed], dim=2)
    return Tables(_flat(crossed), _flat(k.transpose(1, 2) @ k) if norms else None, _flat(v.transpose(1, 2) @ down))


def scale(size: int, sharpness: float | None) -> float:
    """The factor on the product of queries and keys of heads that are ``size`` wide."""
    return size**-0.5 if sharpness is None else sharpness / size


def queries(y: Tensor, table: Tensor, heads: int, size: int | None) -> Tensor:
    """``y (N, T, r)`` to ``(N, T, H, r)`` in ``y``'s dtype, to be multiplied with :func:`keys`.

    Args:
        table: ``(N, r, ..)``, of :class:`Tables`.
        size: width of a head, where queries have a root mean square of one; ``None`` leaves them as they are.
    """
    exact = at_least_single(y)
    turned = (exact @ table).unflatten(-1, (heads, -1))
    if size is not None:
        squares, turned = turned.chunk(2, dim=-1)
        turned = turned * _inverse_size(squares, exact, size)
    return turned.to(y.dtype)


def keys(z: Tensor, table: Tensor | None, heads: int, size: int | None) -> Tensor:
    """``z (N, K, r)`` to ``(N, K, H, r)``, as :func:`queries`."""
    if table is None or size is None:
        return z[:, :, None].expand(-1, -1, heads, -1)
    exact = at_least_single(z)
    inverse = _inverse_size((exact @ table).unflatten(-1, (heads, -1)), exact, size)
    return (exact[:, :, None] * inverse).to(z.dtype)


def at_least_single(x: Tensor) -> Tensor:
    """``x`` in single precision, or what it has where that is more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _flat(table: Tensor) -> Tensor:
    return table.transpose(0, 1).flatten(1)  # (H, r, n) to (r, H * n)


def _inverse_size(turned: Tensor, x: Tensor, size: int) -> Tensor:
    """``1 / rms(up x)`` per head, ``(N, T, H, 1)``, by the quadratic form ``x (up^T up) x``; never ``D`` wide."""
    square = (turned * x[:, :, None]).sum(dim=-1, keepdim=True)
    return (square.clamp(min=0.0) / size + EPSILON).rsqrt()
