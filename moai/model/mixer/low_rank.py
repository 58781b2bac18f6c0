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
    """The products of second factors, each ``(r, H * r)``; at least in single precision, since sizes come from them."""

    query: Tensor
    query_size: Tensor | None  # what gives the norms; only where there are any
    key_size: Tensor | None
    value: Tensor


def tables(query: Tensor, key: Tensor, value: Tensor, output: Tensor, heads: int, norms: bool) -> Tables:
    """From the second factors ``(D, r)`` of query, key and value and the first one ``(r, D)`` of the output."""
    q, k, v = (at_least_single(up).unflatten(0, (heads, -1)) for up in (query, key, value))  # (H, D/H, r)
    down = at_least_single(output).unflatten(1, (heads, -1)).permute(1, 2, 0)  # (H, D/H, r)
    pairs = ((q, k), (q, q) if norms else None, (k, k) if norms else None, (v, down))
    # Heads side by side: (H, r, r) to (r, H * r)
    return Tables(*(pair and (pair[0].transpose(1, 2) @ pair[1]).transpose(0, 1).flatten(1) for pair in pairs))


def logit_scale(size: int, qk_norm_scale: float | None) -> float:
    """The factor on the product of queries and keys of heads that are ``size`` wide."""
    return size**-0.5 if qk_norm_scale is None else qk_norm_scale / size


def queries(y: Tensor, table: Tensor, norms: Tensor | None, heads: int, size: int) -> Tensor:
    """``y (N, T, r)`` to ``(N, T, H, r)`` in ``y``'s dtype, to be multiplied with :func:`keys`.

    Args:
        table, norms: ``query`` and ``query_size`` of :class:`Tables`, with or without ``N`` in front.
        size: width of a head, where ``norms`` bring queries to a root mean square of one.
    """
    exact = at_least_single(y)
    turned = (exact @ table).unflatten(-1, (heads, -1))
    return (turned if norms is None else turned * _inverse_size(exact, norms, heads, size)).to(y.dtype)


def keys(z: Tensor, norms: Tensor | None, heads: int, size: int) -> Tensor:
    """``z (N, K, r)`` to ``(N, K, H, r)``, as :func:`queries`; ``norms`` is ``key_size``."""
    if norms is None:
        return z[:, :, None].expand(-1, -1, heads, -1)
    exact = at_least_single(z)
    return (exact[:, :, None] * _inverse_size(exact, norms, heads, size)).to(z.dtype)


def queries_and_keys(
    y: Tensor, table: Tensor | None, norms: Tensor | None, heads: int, size: int
) -> tuple[Tensor | None, Tensor]:
    """Compute the queries and keys of several modules on one stream: as :func:`queries` and :func:`keys`, in one go.

    Args:
        y: ``(N + K, T, r)``, first what ``N`` modules turn into queries, then what ``K`` modules turn into keys.
        table: ``(N, r, H * r)``; ``None`` where ``N`` is 0.
        norms: ``(N + K, r, H * r)``.

    Returns:
        ``(N, T, H, r)`` and ``(K, T, H, r)``.
    """
    count = 0 if table is None else len(table)
    if norms is None:
        return None if table is None else queries(y[:count], table, None, heads, size), keys(
            y[count:], None, heads, size
        )
    exact = at_least_single(y)
    inverse = _inverse_size(exact, norms, heads, size)  # (N + K, T, H, 1)
    k = (exact[count:, :, None] * inverse[count:]).to(y.dtype)
    if table is None:
        return None, k
    return ((exact[:count] @ table).unflatten(-1, (heads, -1)) * inverse[:count]).to(y.dtype), k


def at_least_single(x: Tensor) -> Tensor:
    """``x`` in single precision, or what it has where that is more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _inverse_size(x: Tensor, norms: Tensor, heads: int, size: int) -> Tensor:
    """``1 / rms(up x)`` per head, ``(N, T, H, 1)``, by the quadratic form ``x (up^T up) x``; never ``D`` wide."""
    square = ((x @ norms).unflatten(-1, (heads, -1)) * x[:, :, None]).sum(dim=-1, keepdim=True)
    return (square.clamp(min=0.0) / size + EPSILON).rsqrt()
