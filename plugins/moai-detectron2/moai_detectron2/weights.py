"""Locate detectron2's weights, and read a file without running code that is in it.

Knows: the model zoo's three Panoptic FPNs, and its files. They are pickles of numpy arrays, which detectron2 itself
would unpickle whatever they hold; here only arrays and plain data get through.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moai.errors import AssetError
from moai.plugin_api import resolve, status

if TYPE_CHECKING:
    import torch

PUBLISHED = "published"
FOLDER = "COCO-PanopticSegmentation"
ZOO = {
    "panoptic_fpn_R_50_1x": "139514544/model_final_dbfeb4.pkl",
    "panoptic_fpn_R_50_3x": "139514569/model_final_c10459.pkl",
    "panoptic_fpn_R_101_3x": "139514519/model_final_cafdb1.pkl",
}
NAMED = 20  # names listed in an error
# Set from the configuration, or computed: old files hold them, new ones need not.
_OPTIONAL = ("pixel_mean", "pixel_std", "anchor_generator.cell_anchors", "num_batches_tracked")
_ALLOWED = {("collections", "OrderedDict"), ("_codecs", "encode"), ("numpy", "ndarray"), ("numpy", "dtype")}
_ALLOWED |= {
    (f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")
}  # numpy 1 and 2


def locate(weights: str, config: str) -> Path:
    """Locate the file of the option `weights`; the zoo's is downloaded into detectron2's own cache.

    Raises:
        AssetError: it cannot be found or downloaded, or the zoo has none for ``config``.
    """
    if weights != PUBLISHED:
        return resolve(weights)
    if config not in ZOO:
        raise AssetError(f"there are no published weights for '{config}'; give a path in the option weights")
    from detectron2.utils.file_io import PathManager

    address = f"detectron2://{FOLDER}/{config}/{ZOO[config]}"
    try:
        with status(f"downloading {config} from detectron2's model zoo"):
            return Path(PathManager.get_local_path(address))
    except (OSError, RuntimeError) as error:
        raise AssetError(
            f"{address} cannot be downloaded; check the network, or download it elsewhere and give its path in the "
            "option weights"
        ) from error


def fill(model: torch.nn.Module, path: Path) -> None:
    """Put the tensors in ``path`` into the model.

    Raises:
        AssetError: the file cannot be read, is not safe to read, or holds the tensors of another model.
    """
    import numpy as np
    import torch

    state = {k: torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else v for k, v in read(path).items()}
    wanted = model.state_dict()
    missing = sorted(name for name in wanted.keys() - state.keys() if not _optional(name))
    unexpected = sorted(name for name in state.keys() - wanted.keys() if not _optional(name))
    odd = sorted(name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape)
    lists = {"missing": missing, "unexpected": unexpected, "differently shaped": odd}
    parts = [f"{len(names)} {what}: {_listed(names)}" for what, names in lists.items() if names]
    if parts:
        raise AssetError(f"{path} does not fit the option config; tensors {'; '.join(parts)}")
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in wanted}, strict=False)


def read(path: Path) -> dict[str, Any]:
    """Read tensors or arrays by name, from the zoo's `.pkl`, from `.pth` or from `.safetensors`.

    Raises:
        AssetError: the file cannot be read, or holds more than tensors and plain data.
    """
    if path.is_dir():
        raise AssetError(f"{path} is a folder; give the file in it, such as {path}/model_final.pth")
    try:
        loaded = _read(path)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().split("\n")[0]
        raise AssetError(
            f"{path} is damaged or holds more than tensors, and is not read: that could run foreign code "
            f"({reason}); save its tensors as safetensors where you trust it"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, LookupError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise AssetError(f"{path} cannot be read as weights: {reason}; download it again") from error
    state = loaded.get("model", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping):
        raise AssetError(f"{path} holds no weights by name; give a file as detectron2 saves it")
    return {str(name): value for name, value in state.items() if hasattr(value, "shape")}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _read(path: Path) -> Any:
    if path.suffix == ".pkl":
        with path.open("rb") as file:
            return _ArraysOnly(file, encoding="latin1").load()
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _optional(name: str) -> bool:
    return any(part in name for part in _OPTIONAL)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
