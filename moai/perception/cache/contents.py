"""Describe what the cache folder holds, and remove what is damaged in it.

Knows: the cache folder, the store of perceptions in it, and that other things lie beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moai.assets.cache import cache_dir
from moai.perception.cache.maintenance import damaged_files, shares
from moai.perception.cache.store import Store, default_store


def existing_store() -> Store | None:
    """Open the store of perceptions; None where there is none yet, so that a question about it makes none."""
    return default_store() if (cache_dir() / "perceptions" / "perceptions.sqlite").exists() else None


def describe_cache() -> dict[str, Any]:
    """Describe the cache folder as plain JSON types.

    Returns:
        ``path`` of the store (None where there is none), its ``entries`` and ``bytes``, ``experts`` (per expert
        ``expert``, ``entries``, ``bytes``, ``newest``), ``set_aside`` (files of damaged stores), the ``folder``, and
        ``assets``: name -> bytes of what else lies in it.
    """
    store, folder = existing_store(), cache_dir()
    held = shares(store) if store is not None else []
    return {
        "path": str(store.path) if store is not None else None,
        "entries": sum(share.entries for share in held),
        "bytes": _bytes_in(store.folder) if store is not None else 0,
        "experts": [vars(share) for share in held],
        "set_aside": [str(path) for path in damaged_files(store.folder)] if store is not None else [],
        "folder": str(folder),
        "assets": {part.name: _bytes_in(part) for part in sorted(folder.glob("[!.]*")) if part.name != "perceptions"},
    }


def remove_damaged(folder: Path) -> None:
    """Remove the files of stores that were damaged as a whole."""
    for path in damaged_files(folder):
        path.unlink(missing_ok=True)


def _bytes_in(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(part.stat().st_size for part in path.rglob("*") if part.is_file() and not part.is_symlink())
