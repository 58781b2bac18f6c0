"""What follows from weights alone, kept while the weights stay: half-precision copies and products of factors.

Knows: modules. Adapters have fp32 weights beside a host in half precision, and every forward would round and multiply
them anew, which costs as much as a short prompt's own products. Nothing is kept unless it is asked for, by
``fix_adapters`` of the model, and numbers are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Keeper(nn.Module):
    """A module that may keep what follows from its weights; training, loading and moving them throws it away.

    A weight changed in place behind the module's back (``parameter.data``) is not noticed: call ``keep`` again.
    """

    kept = None

    def keep(self, dtype: torch.dtype) -> None:
        """Compute and keep it, for forwards without gradients that compute in ``dtype``."""
        raise NotImplementedError

    def train(self, mode: bool = True):
        """As in PyTorch; training forgets."""
        if mode:
            self.kept = None
        return super().train(mode)

    def _apply(self, fn, recurse=True):
        self.kept = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args, **kwargs):
        self.kept = None
        return super()._load_from_state_dict(*args, **kwargs)


class KeptLinear(Keeper, nn.Linear):
    """A linear layer that may keep its weight as autocast rounds it."""

    def keep(self, dtype: torch.dtype) -> None:
        """See :class:`Keeper`; without a narrower ``dtype`` there is nothing to keep."""
        self.kept = self.weight.detach().to(dtype) if dtype.itemsize < self.weight.dtype.itemsize else None

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in) -> (..., out)``."""
        kept = self.kept
        if kept is not None and not torch.is_grad_enabled() and computing(x) == kept.dtype:
            return F.linear(x, kept, self.bias)
        return F.linear(x, self.weight, self.bias)


def keep(parts: Iterable[nn.Module], dtype: torch.dtype) -> None:
    """Let everything in ``parts`` keep what it can; a module that keeps speaks for those inside it."""
    for part in parts:
        if isinstance(part, Keeper):
            part.keep(dtype)
        else:
            keep(part.children(), dtype)


def computing(x: Tensor) -> torch.dtype:
    """The dtype in which a matrix product with ``x`` is taken here: autocast's where it is on, else that of ``x``."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
