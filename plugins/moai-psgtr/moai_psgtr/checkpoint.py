"""Locate OpenPSG's weights, read them without running code that is in the file, and build the network.

Knows: files, hashes and shapes. The size of the network is read off the tensors, so PSGTR with ResNet-50 and with
ResNet-101 both load; a file with tensors too few or too many is refused with their names.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moai.errors import AssetError
from moai.plugin_api import identify, resolve, status

if TYPE_CHECKING:
    import torch

    from moai_psgtr.network import Network, Size

PUBLISHED = "published"
SPACE, FILE = "ECCV2022/PSG", "OpenPSG/checkpoints/epoch_60.pth"
# The file's LFS hash, and the one that OpenPSG's README prints for PSGTR with ResNet-50 after 60 epochs.
SHA256 = "1c4ddcbda74686568b7e6b8145f7f33030407e27e390c37c23206f95c51829ed"
NAMED = 20  # names listed in an error
_BLOCK = r"backbone\.layer{}\.(\d+)\.conv1\.weight"
_LAYER = r"bbox_head\.transformer\.{}\.layers\.(\d+)\.norms\.0\.weight"
_SHAPES = {  # what says how large the network is
    "stem": "backbone.conv1.weight",
    "hidden": "bbox_head.input_proj.weight",
    "masks": "bbox_head.sub_mask_head.lay1.weight",
    "classes": "bbox_head.sub_cls_embed.weight",
    "predicates": "bbox_head.rel_cls_embed.weight",
    "queries": r"bbox_head.query_embed.weight",
}


def locate(weights: str) -> Path:
    """Locate the file of the option `weights`; OpenPSG's own is downloaded and compared with its known hash.

    Raises:
        AssetError: it cannot be found or downloaded, or is not the published file.
    """
    if weights != PUBLISHED:
        return resolve(weights)
    path = _download()
    if identify(path) != SHA256:
        raise AssetError(
            f"{path} is not the published PSGTR checkpoint: its SHA-256 is {identify(path)}, not {SHA256}; delete it"
        )
    return path


def build(path: Path) -> Network:
    """Build the network with the weights in ``path``: safetensors, or a checkpoint of nothing but plain data.

    Raises:
        AssetError: the file cannot be read, is not safe to read, or is not a PSGTR.
    """
    import torch

    from moai_psgtr.keys import convert
    from moai_psgtr.network import Network

    published = read(path)
    ours, unknown = convert(published)
    size = size_of(published, path)
    with torch.device("meta"):
        network = Network(size)
    wanted = network.state_dict()
    _check_names(path, sorted(wanted.keys() - ours.keys()), unknown + sorted(ours.keys() - wanted.keys()))
    _check_shapes(path, wanted, ours)
    # Copies, so that a file that is mapped into memory can be closed, and float32 whatever it was saved in.
    network.load_state_dict({k: t.detach().to(torch.float32, copy=True) for k, t in ours.items()}, assign=True)
    return network.eval().requires_grad_(False)


def read(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a file, without running code that its author may have put into it.

    Raises:
        AssetError: a folder, a file of another kind, or a pickle of more than tensors and plain data.
    """
    if path.is_dir():
        raise AssetError(f"{path} is a folder; give the checkpoint file in it, such as {path}/epoch_60.pth")
    try:
        loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().split("\n")[0]
        raise AssetError(
            f"{path} is damaged or holds more than tensors, and is not read: that could run foreign code "
            f"({reason}); save its state_dict as safetensors where you trust it"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, LookupError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise AssetError(f"{path} cannot be read as a checkpoint: {reason}; download it again") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping):
        raise AssetError(f"{path} holds no state_dict; give a checkpoint as OpenPSG saves it")
    return {str(name): tensor for name, tensor in state.items() if hasattr(tensor, "shape")}


def size_of(published: Mapping[str, torch.Tensor], path: Path) -> Size:
    """Read the network's size off the shapes of its tensors.

    Raises:
        AssetError: tensors that tell it are missing.
    """
    from moai_psgtr.network import Size

    shapes = {key: published[name].shape for key, name in _SHAPES.items() if name in published}
    missing = [name for key, name in _SHAPES.items() if key not in shapes]
    depths = tuple(_count(published, _BLOCK.format(stage)) for stage in (1, 2, 3, 4))
    layers = {side: _count(published, _LAYER.format(side)) for side in ("encoder", "decoder")}
    missing += [f"backbone.layer{stage}.*" for stage, depth in enumerate(depths, start=1) if not depth]
    missing += [f"bbox_head.transformer.{side}.*" for side, number in layers.items() if not number]
    ends = [f"backbone.layer{stage}.0.conv3.weight" for stage in (1, 2, 3, 4)]
    missing += [name for name in ends if name not in published]
    _check_names(path, missing, [])
    hidden = shapes["hidden"][0]
    return Size(
        stem=shapes["stem"][0],
        widths=tuple(published[name].shape[0] for name in ends),
        depths=depths,
        hidden=hidden,
        heads=shapes["masks"][0] - hidden,  # the mask head reads the picture and one attention map per head
        feedforward=_feedforward(published),
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        queries=shapes["queries"][0],
        classes=shapes["classes"][0] - 1,
        predicates=shapes["predicates"][0] - 1,
    )


def _count(published: Mapping[str, torch.Tensor], pattern: str) -> int:
    return len({match[1] for name in published if (match := re.fullmatch(pattern, name))})


def _feedforward(published: Mapping[str, torch.Tensor]) -> int:
    pattern = re.compile(r"bbox_head\.transformer\.encoder\.layers\.0\.ffns?(?:\.0)?\.layers\.0\.0\.bias")
    return next((tensor.shape[0] for name, tensor in published.items() if pattern.fullmatch(name)), 1)


def _read_safetensors(path: Path) -> Mapping:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _read_torch(path: Path) -> Mapping:
    import torch

    # The published file holds its optimiser's state too; mapped into memory, that part is never read.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _check_names(path: Path, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    parts = [
        f"{len(names)} {what} tensors: {', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    if parts:
        raise AssetError(f"{path} is not a PSGTR checkpoint as OpenPSG publishes it; {'; '.join(parts)}")


def _check_shapes(path: Path, wanted: Mapping[str, torch.Tensor], ours: Mapping[str, torch.Tensor]) -> None:
    odd = [
        f"{name} {tuple(ours[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if ours[name].shape != tensor.shape
    ]
    if odd:
        listed = ", ".join(odd[:NAMED]) + (", ..." if len(odd) > NAMED else "")
        raise AssetError(f"{path} is not a PSGTR checkpoint as OpenPSG publishes it; wrong shapes: {listed}")


def _download() -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(SPACE, FILE, repo_type="space", local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not in the hub's cache yet
    try:
        with status(f"downloading PSGTR's weights (532 MB) from the space {SPACE}"):
            return Path(hf_hub_download(SPACE, FILE, repo_type="space"))
    except (HfHubHTTPError, OSError) as error:
        raise AssetError(
            f"PSGTR's weights cannot be downloaded from the Hugging Face space {SPACE} ({FILE}); check the network, or "
            "download the file elsewhere and give its path in the option weights"
        ) from error
