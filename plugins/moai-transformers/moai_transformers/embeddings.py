"""Cache text embeddings on disk, so that a vocabulary goes through a text tower once and not once per process.

Knows: safetensors files in moai's cache folder. A file is named by what it was computed from and carries a SHA-256 of
its numbers; it appears as a whole or not at all; a damaged one is reported and computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from moai.plugin_api import cache_dir

log = logging.getLogger("moai")


def cached(parts: Sequence[Any], compute: Callable[[], Any]) -> Any:
    """Return the tensor that ``compute`` gives, from disk if it was computed before.

    Args:
        parts: everything that the result depends on, as plain JSON types: weights, precision, names.
        compute: returns a CPU tensor.
    """
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    path = cache_dir() / "text-embeddings" / f"{key}.safetensors"
    known = _read(path)
    if known is not None:
        return known
    tensor = compute().contiguous()
    _write(path, tensor)
    return tensor


def _read(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensor, expected = file.get_tensor("embeddings"), (file.metadata() or {}).get("sha256")
        if _digest(tensor) != expected:
            raise ValueError("its numbers were altered")
        return tensor
    except (SafetensorError, OSError, ValueError) as error:
        log.warning("the cached text embeddings %s are damaged (%s); computed again", path, error)
        return None


def _write(path: Path, tensor: Any) -> None:
    from safetensors.torch import save

    data = save({"embeddings": tensor}, metadata={"sha256": _digest(tensor)})
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(aside, path)
    except OSError as error:
        # The embeddings are in memory, so this picture can be answered; only the next process pays again.
        log.warning("text embeddings were not cached: %s", error)
        if aside is not None:
            Path(aside).unlink(missing_ok=True)


def _digest(tensor: Any) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
