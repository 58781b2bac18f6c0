"""Connectors: vision features to decoder width.

Knows: tensors. A connector is called with a :class:`VisionOutput` and returns ``(N, tokens, D)``; ``tokens(patches)``
gives their number without running it. Plugins add more through the hook ``register_connectors``.

A connector that reads the text of an image's turn (Parrot) has a true attribute ``reads_text`` and is called with a
:class:`TextInput` as well, or with ``None`` for a panoptic map, which belongs to no turn. One whose tokens keep the
grid of patches has a true attribute ``spatial``.

A connector of which a stage may leave parts out names these children in ``optional``. It runs without those that its
attribute ``left_out`` holds, as :func:`leave_out` sets it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from torch import Tensor, nn

from moai.errors import RecipeError
from moai.model.weight_cache import CachedLinear


class VisionOutput(NamedTuple):
    """What a vision encoder gives for ``N`` images."""

    patches: Tensor  # (N, n, V) row by row
    class_token: Tensor | None = None  # (N, V), of encoders that have one
    grid: tuple[int, int] | None = None  # rows and columns of the patches


class TextInput(NamedTuple):
    """The text of each image's turn, for connectors that read it: ``P`` words, without images and answers."""

    embeddings: Tensor  # (N, P, D) word embeddings of the host
    mask: Tensor  # (N, P) bool


class MLPConnector(nn.Sequential):
    """LLaVA-1.5's ``mlp2x_gelu`` (arXiv 2310.03744): Linear, GELU, Linear, with biases; keeps the token count."""

    spatial = True

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__(CachedLinear(in_width, out_width), nn.GELU(), CachedLinear(out_width, out_width))

    def forward(self, vision: VisionOutput) -> Tensor:
        """``(N, n, V) -> (N, n, D)``."""
        return super().forward(vision.patches)

    def tokens(self, patches: int) -> int:
        """As many as patches."""
        return patches


class LinearConnector(CachedLinear):
    """One linear layer with bias, as in the first LLaVA; keeps the token count."""

    spatial = True

    def forward(self, vision: VisionOutput) -> Tensor:
        """``(N, n, V) -> (N, n, D)``."""
        return super().forward(vision.patches)

    def tokens(self, patches: int) -> int:
        """As many as patches."""
        return patches


class AverageConnector(nn.Module):
    """MM1's average pooling (arXiv 2403.09611) to a ``side x side`` grid, then one linear layer."""

    spatial = True

    def __init__(self, in_width: int, out_width: int, side: int = 3) -> None:
        super().__init__()
        self.side, self.pool = side, nn.AdaptiveAvgPool2d(side)
        self.project = CachedLinear(in_width, out_width)

    def forward(self, vision: VisionOutput) -> Tensor:
        """``(N, n, V) -> (N, side * side, D)``; the patches must form a grid.

        Raises:
            RecipeError: they form none.
        """
        x = vision.patches
        if vision.grid is None:
            raise RecipeError(f"connector average pools a grid, and the encoder's {x.shape[1]} tokens form none")
        pooled = self.pool(x.transpose(1, 2).unflatten(2, vision.grid))  # (N, V, side, side)
        return self.project(pooled.flatten(2).transpose(1, 2))

    def tokens(self, patches: int) -> int:
        """``side * side``."""
        return self.side**2


def leave_out(connector: nn.Module, kind: str, parts: Collection[str]) -> None:
    """Let a connector run without the optional parts of these names, and with its others.

    Raises:
        RecipeError: it has no optional part of a name.
    """
    optional = getattr(connector, "optional", ())
    for part in parts:
        if part not in optional:
            known = f"its optional parts are {', '.join(optional)}" if optional else "it has no optional parts"
            raise RecipeError(f"connector '{kind}' has no optional part '{part}': {known}; leave it out of the stage")
    if optional:
        connector.left_out = frozenset(parts)


def builtin_connectors() -> dict[str, Callable[..., nn.Module]]:
    """Name -> factory ``(in_width, out_width, **options)``."""
    return {"mlp": MLPConnector, "linear": LinearConnector, "average": AverageConnector}
