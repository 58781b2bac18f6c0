"""Installed distributions that are only metadata: a ``.dist-info`` folder on the path."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, name: str, version: str | None, *requires: str, extras=(), python="", hooks="") -> Path:
    """Write the metadata of a distribution into ``folder``; ``version=None``: what an interrupted installation left."""
    info = folder / f"{name.replace('-', '_')}-{version or '0'}.dist-info"
    info.mkdir(parents=True)
    if version is not None:
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Python: {python}"] if python else []
        lines += [f"Requires-Dist: {text}" for text in requires]
        lines += [f"Provides-Extra: {extra}" for extra in extras]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
    if hooks:
        (info / "entry_points.txt").write_text(f"[moai]\n{hooks}\n")
    return info
