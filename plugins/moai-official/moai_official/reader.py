"""Read a published checkpoint: one file or shards, safetensors or torch, one tensor at a time.

Knows: files. Nothing that could run code is loaded: torch files are read with ``weights_only=True``.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from moai.errors import CheckpointError

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
PATTERNS = ("*.safetensors", "*.bin", "*.pt", "*.pth")


class Checkpoint(Mapping[str, Tensor]):
    """Name -> tensor over all shards; a tensor is read when it is asked for, and stays on disk until then.

    Raises:
        CheckpointError: no weights, a missing shard, a name in two shards, or a file that cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._shards: dict[str, Mapping[str, Tensor]] = {}
        for file in _files(self.path):
            shard = _open(file)
            twice = sorted(set(shard) & set(self._shards))
            if twice:
                raise CheckpointError(f"{self.path} holds '{twice[0]}' in two files; keep one copy of the weights")
            self._shards.update(dict.fromkeys(shard, shard))

    def __getitem__(self, name: str) -> Tensor:
        return self._shards[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)

    def configuration(self, path: str | Path | None = None) -> dict[str, Any]:
        """Read the decoder's ``config.json``: ``path``, or the one beside the weights."""
        folder = self.path if self.path.is_dir() else self.path.parent
        path = folder / "config.json" if path is None else Path(path)
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist; name the checkpoint's config.json with --config")
        return _json(path)


class _Safetensors(Mapping[str, Tensor]):
    def __init__(self, path: Path) -> None:
        self._file = safe_open(path, framework="pt")
        self._names = list(self._file.keys())

    def __getitem__(self, name: str) -> Tensor:
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist; give a checkpoint's folder, or one file of weights")
    for name in INDEXES:
        if (path / name).is_file():
            return _indexed(path / name)
    for pattern in PATTERNS:  # one kind: a folder often holds the same weights as safetensors and as torch files
        files = sorted(path.glob(pattern))
        if files:
            return files
    raise CheckpointError(f"{path} holds no weights ({', '.join(PATTERNS)}); give a checkpoint's folder")


def _indexed(index: Path) -> list[Path]:
    weight_map = _json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index} has no weight_map; download the checkpoint again")
    files = sorted({index.parent / Path(name).name for name in weight_map.values()})
    lacking = [file.name for file in files if not file.is_file()]
    if lacking:
        raise CheckpointError(f"{index.parent} lacks {', '.join(lacking)}; download the checkpoint again")
    return files


def _open(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return _Safetensors(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged ({error}); download it again") from None
    try:
        state = _load_torch(path)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} cannot be read as plain tensors ({reason}); give safetensors instead") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} is no state dict: it must map names to tensors")
    return state


def _load_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)  # the older format cannot be mapped


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); download it again") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is damaged (no JSON object); download it again")
    return data
