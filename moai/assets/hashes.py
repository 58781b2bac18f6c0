"""Hash files and folders by SHA-256: a checkpoint records the frozen parts, and loading verifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from moai.errors import CheckpointError

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.yaml")


def sha256_file(path: str | Path) -> str:
    """Return the hex SHA-256 of a file's content. Raises CheckpointError when the file cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}; restore the file") from error


def folder_hashes(
    folder: str | Path, patterns: Iterable[str] = PATTERNS, digest: Callable[[Path], str] = sha256_file
) -> dict[str, str]:
    """Return ``{name: sha256}`` for the files directly in ``folder`` that match a pattern, sorted by name.

    Hidden files are left out: they are the cache's own bookkeeping.

    Raises:
        CheckpointError: the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"the folder {folder} does not exist; check the path")
    names = {path.name for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {name: digest(folder / name) for name in sorted(names) if not name.startswith(".")}


def verify(folder: str | Path, hashes: Mapping[str, str], digest: Callable[[Path], str] = sha256_file) -> None:
    """Check that every file named in ``hashes`` is in ``folder`` and unaltered; ``digest`` hashes one, cached or not.

    Raises:
        CheckpointError: names the first missing or altered file and the fix.
    """
    folder = Path(folder)
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder} lacks the file '{name}'; copy the whole folder again, or make it anew")
        actual = digest(path)
        if actual != expected:
            raise CheckpointError(
                f"'{name}' in {folder} was altered (SHA-256 {actual[:12]}..., recorded {expected[:12]}...); "
                "restore the original file, or make the folder anew"
            )
