"""Examine the cache folder: its place, its size, whether it can be written, and its assets."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from moai.assets.cache import cache_dir
from moai.assets.inventory import find_assets, folder_bytes
from moai.doctor.findings import Findings, describe_path

LITTLE = 10**9  # bytes; what the quickstart puts into the cache takes about half of it


def examine_cache(findings: Findings) -> dict[str, Any] | None:
    """Place, size, free space, and whether it can be written; the folder is not made where it does not exist."""
    try:
        folder = cache_dir()
    except RuntimeError as error:  # no home folder, or ~name of nobody
        findings.error("cache", f"the cache has no place: {error}", "set MOAI_CACHE to a folder that can be written")
        return None
    place = describe_path(folder)
    reason = find_obstacle(folder)
    free = None
    if reason is not None:
        fix = "make it writable, or set MOAI_CACHE to a folder that is"
        findings.error("cache", f"the cache folder {place} cannot be written: {reason}", fix)
    else:
        free = shutil.disk_usage(_nearest(folder)).free
        if free < LITTLE:
            fix = "free some space, or set MOAI_CACHE to a folder with more"
            findings.warning("cache", f"little space is left for the cache folder {place}", fix)
    return {
        "folder": place,
        "exists": os.path.isdir(folder),
        "bytes": folder_bytes(folder),
        "writable": reason is None,
        "free": free,
    }


def examine_assets(findings: Findings) -> list[dict[str, Any]]:
    """List the cache's wheels and models, and the pinned wheels that are not in it."""
    assets = find_assets()
    for asset in assets:
        if asset.state == "damaged":
            place = describe_path(asset.path)
            findings.error(asset.name, f"{place} is damaged", "remove it; it is made again when it is needed")
    absent = any(asset.state == "absent" for asset in assets)
    # Not by importlib.util.find_spec: asked for pip, setuptools' finder takes its distutils out of this process.
    if absent and PathFinder.find_spec("pip") is None:
        problem = "pip is not in this environment, so pinned wheels that are not cached cannot be downloaded"
        findings.warning("pip", problem, "install it: python -m ensurepip")
    return [vars(asset) | {"name": describe_path(asset.name), "path": describe_path(asset.path)} for asset in assets]


def find_obstacle(folder: Path) -> str | None:
    """Say why nothing can be written into ``folder``, or into where it would be made; None where it can.

    A file without a name is written and vanishes: permission bits alone do not say what a file system allows.
    """
    nearest = _nearest(folder)
    if not os.path.isdir(nearest):
        return f"{describe_path(nearest)} is no folder"
    try:
        with tempfile.TemporaryFile(dir=nearest, buffering=0) as file:
            file.write(b"1")
    except OSError as error:
        return error.strerror or str(error)
    return None


def _nearest(folder: Path) -> Path:
    """Find the folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path) or path == path.parent)
