"""Connectors: vision features to decoder width.

Knows: tensors. A connector maps ``(N, tokens, V) -> (N, tokens', D)``; plugins add more through the hook
``register_connectors``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from moai.model.weight_cache import KeptLinear


class MLPConnector(nn.Sequential):
    """LLaVA-1.5's ``mlp2x_gelu`` (arXiv 2310.03744): Linear, GELU, Linear, with biases; keeps the token count."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__(KeptLinear(in_width, out_width), nn.GELU(), KeptLinear(out_width, out_width))


class LinearConnector(KeptLinear):
    """One linear layer with bias, as in the first LLaVA; keeps the token count."""


class AverageConnector(nn.Module):
    """MM1's average pooling (arXiv 2403.09611) to a ``side x side`` grid, then one linear layer."""

    def __init__(self, in_width: int, out_width: int, side: int = 3) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.project = KeptLinear(in_width, out_width)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, h * h, V) -> (N, side * side, D)``; the tokens must form a square grid."""
        grid = round(x.shape[1] ** 0.5)
        if grid * grid != x.shape[1]:
            raise ValueError(f"average pooling needs a square grid of tokens, not {x.shape[1]}")
        pooled = self.pool(x.transpose(1, 2).unflatten(2, (grid, grid)))  # (N, V, side, side)
        return self.project(pooled.flatten(2).transpose(1, 2))


def builtin_connectors() -> dict[str, Callable[..., nn.Module]]:
    """Name -> factory ``(in_width, out_width, **options)``."""
    return {"mlp": MLPConnector, "linear": LinearConnector, "average": AverageConnector}
