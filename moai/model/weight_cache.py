"""Cache what follows from weights alone: half-precision copies, and products of factors.

Knows: modules. Adapters have fp32 weights beside a host in half precision, and every forward would round and multiply
them anew, which costs as much as a short prompt's own products. Nothing is cached unless it is asked for, by
``fix_adapters`` of the model, and numbers are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WeightCache(nn.Module):
    """A module that may cache what follows from its weights; training, loading and moving them drops it.

    A weight that is changed in place (``parameter.data``) is not noticed: call ``cache_weights`` again.
    """

    cached = None

    def cache_weights(self, dtype: torch.dtype) -> None:
        """Compute and cache it, for forwards without gradients that compute in ``dtype``."""
        raise NotImplementedError

    def train(self, mode: bool = True):
        """As in PyTorch; training drops the cache."""
        if mode:
            self.cached = None
        return super().train(mode)

    def _apply(self, fn, recurse=True):
        self.cached = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args, **kwargs):
        self.cached = None
        return super()._load_from_state_dict(*args, **kwargs)


class CachedLinear(WeightCache, nn.Linear):
    """A linear layer that may cache its weight as autocast rounds it."""

    def cache_weights(self, dtype: torch.dtype) -> None:
        """See :class:`WeightCache`; without a narrower ``dtype`` there is nothing to cache."""
        self.cached = self.weight.detach().to(dtype) if dtype.itemsize < self.weight.dtype.itemsize else None

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in) -> (..., out)``."""
        cached = self.cached
        if cached is not None and not torch.is_grad_enabled() and computing(x) == cached.dtype:
            return F.linear(x, cached, self.bias)
        return F.linear(x, self.weight, self.bias)


def cache_weights(parts: Iterable[nn.Module], dtype: torch.dtype) -> None:
    """Let everything in ``parts`` cache what it can; a module that caches does so for those inside it."""
    for part in parts:
        if isinstance(part, WeightCache):
            part.cache_weights(dtype)
        else:
            cache_weights(part.children(), dtype)


def computing(x: Tensor) -> torch.dtype:
    """The dtype in which a matrix product with ``x`` is taken here: autocast's where it is on, else that of ``x``."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def apply_apart(module: nn.Module, fn: Callable[[Tensor], Tensor], adapters: list[nn.Module]) -> None:
    """Apply ``fn`` to all tensors of a module, but never so that it rounds a tensor of ``adapters``."""

    def unrounded(tensor: Tensor) -> Tensor:
        made = fn(tensor)
        narrower = made.is_floating_point() and made.dtype.itemsize < tensor.dtype.itemsize
        return tensor.to(made.device) if narrower else made

    for child in module.children():
        if any(child is adapter for adapter in adapters):
            child._apply(unrounded)
        else:
            apply_apart(child, fn, adapters)
    nn.Module._apply(module, fn, recurse=False)
