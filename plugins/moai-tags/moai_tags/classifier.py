"""Build a classifier of timm from a file of weights.

Knows: timm's models and state dicts. Weights are read without running code in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moai.errors import AssetError, ExpertError, nearest

CLASSES = 1000


def build_classifier(architecture: str, weights: Path) -> Any:
    """Return the ``torch.nn.Module`` in evaluation mode, with timm's preprocessing in its ``pretrained_cfg``.

    Args:
        architecture: a name of timm's, of a classifier with ImageNet's 1,000 classes.
        weights: a safetensors or ``.pth`` file, or a folder with ``model.safetensors``. Its tensors have timm's names,
            or are those of a port of the same network: in the same order, with the same shapes.

    Raises:
        ExpertError: an unknown architecture.
        AssetError: weights that cannot be read, or are not the architecture's.
    """
    import timm

    if not timm.is_model(architecture):
        raise ExpertError(f"timm has no model '{architecture}'{nearest(architecture, timm.list_models())}")
    model = timm.create_model(architecture, pretrained=False, num_classes=CLASSES)
    model.load_state_dict(_fitted(_read(weights), model.state_dict(), weights, architecture))
    return model.eval()


def first_names() -> list[str]:
    """Return the first WordNet name of each class of ImageNet-1k, in order."""
    from timm.data import ImageNetInfo

    return [names.split(",")[0] for names in ImageNetInfo("imagenet-1k").label_descriptions()]


def _read(path: Path) -> Mapping[str, Any]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = path / "model.safetensors" if path.is_dir() else path
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise AssetError(f"{path} cannot be read as weights ({reason}); name a safetensors or .pth file") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise AssetError(f"{path} holds no state dict; save model.state_dict() alone")
    return state


def _fitted(given: Mapping[str, Any], own: Mapping[str, Any], path: Path, architecture: str) -> dict[str, Any]:
    renamed = dict(given) if own.keys() == given.keys() else dict(zip(own, given.values(), strict=False))
    misfit = next((name for name in own if name not in renamed or renamed[name].shape != own[name].shape), None)
    if misfit is not None or len(given) != len(own):
        raise AssetError(
            f"the weights in {path} are not those of {architecture} with {CLASSES} classes "
            f"(first misfit: {misfit or 'too many tensors'}); name other weights, or their architecture"
        )
    return renamed
