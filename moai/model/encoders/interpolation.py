"""Position embeddings at another resolution than the encoder's own: interpolated, bicubic, on the grid of patches.

Knows: timm's and transformers' encoders, which bring the interpolation. Convolutional encoders have no positions.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from moai.errors import AssetError


def interpolate_timm(body: nn.Module, name: str, size: int | None) -> None:
    """Give a timm encoder positions for images of ``size`` pixels, in place.

    They become parameters of the new grid, and train as such.

    Args:
        body: with its weights.
        name: of the architecture, for the message.
        size: height and width in pixels; None is the encoder's own.

    Raises:
        AssetError: the patches do not cover the size, or timm cannot interpolate this architecture's positions.
    """
    embedding = getattr(body, "patch_embed", None)
    own = _first(getattr(embedding, "img_size", None))
    if size is None or own is None or own == size:
        return
    if not hasattr(body, "set_input_size"):
        raise AssetError(
            f"timm cannot interpolate the positions of '{name}', which takes {own} x {own} pixels; "
            f"set vision.image_size to {own}, or take another architecture"
        )
    _check_patches(name, size, _first(embedding.patch_size))
    body.set_input_size((size, size))


def interpolation_arguments(body: nn.Module, size: int | None) -> dict[str, Any]:
    """Return what makes an encoder of transformers interpolate its positions to ``size`` pixels, in each forward.

    The parameters stay those of its own grid.

    Raises:
        AssetError: the patches do not cover the size, or this encoder cannot interpolate.
    """
    own = _first(getattr(body.config, "image_size", None))
    if size is None or own is None or own == size:
        return {}
    name = type(body).__name__
    takes = "interpolate_pos_encoding" in inspect.signature(body.forward).parameters
    # Encoders of the DINO family interpolate by themselves.
    if not takes and not any(hasattr(module, "interpolate_pos_encoding") for module in body.modules()):
        raise AssetError(
            f"{name} takes {own} x {own} pixels and cannot interpolate its positions; set vision.image_size to {own}, "
            "or take another encoder"
        )
    _check_patches(name, size, _first(getattr(body.config, "patch_size", None)))
    return {"interpolate_pos_encoding": True} if takes else {}


def _first(size: Any) -> int | None:
    return int(size[0]) if isinstance(size, Sequence) else size


def _check_patches(name: str, size: int, patch: int | None) -> None:
    if patch is not None and size % patch:
        below = max(1, size // patch) * patch
        raise AssetError(
            f"vision.image_size {size} is no multiple of the {patch} x {patch} patches of {name}; set it to {below}"
        )
