"""List the wheels, source distributions and models in the cache, without a download.

Knows: the folders that ``cache.publish`` makes and the notes of hub downloads. Sizes are compared, contents are not
hashed: that takes seconds per gigabyte, and each asset is verified when it is used.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moai.assets.cache import MARKER, cache_dir, is_whole
from moai.assets.pins import PINS, SDISTS
from moai.assets.sdists import sdist_folder
from moai.assets.wheels import wheel_folder


@dataclass(frozen=True)
class Asset:
    """Describe one wheel, source distribution or model."""

    kind: Literal["wheel", "sdist", "host", "hub"]
    """A pinned wheel or source distribution, a language model that was converted once, or a model of the hub."""
    name: str
    version: str
    """Of a wheel or source distribution, or the revision of a hub model."""
    state: Literal["cached", "damaged", "absent"]
    bytes: int
    """Of its files; 0 where it is absent."""
    path: Path


def find_assets() -> list[Asset]:
    """List the pinned wheels and source distributions, cached or not, then the cache's converted and hub models."""
    return [*_pinned(), *_hosts(), *_hub_models()]


def folder_bytes(folder: Path) -> int:
    """Return the sizes of all files under ``folder`` together; links and what vanishes meanwhile count nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                path = os.path.join(parent, name)
                total += 0 if os.path.islink(path) else os.stat(path).st_size
            except OSError:  # removed since it was listed
                continue
    return total


def _pinned() -> list[Asset]:
    listed = [("wheel", name, pin.version, pin.sha256, wheel_folder(name)) for name, pin in PINS.items()]
    listed += [("sdist", name, pin.version, pin.sha256, sdist_folder(name)) for name, pin in SDISTS.items()]
    found = []
    for kind, name, version, sha256, folder in listed:
        state = "absent" if not os.path.lexists(folder) else "cached" if is_whole(folder, sha256) else "damaged"
        found.append(Asset(kind, name, version, state, folder_bytes(folder), folder))
    return found


def _hosts() -> list[Asset]:
    found = []
    for folder in _listed(cache_dir() / "hosts", "[!.]*"):
        # The marker is written last, and holds what the folder was made from: a GGUF file that may be gone by now.
        made_from = _read(folder / MARKER).get("origin")
        state = "cached" if isinstance(made_from, str) and is_whole(folder, made_from) else "damaged"
        found.append(Asset("host", folder.name, "", state, folder_bytes(folder), folder))
    return found


def _hub_models() -> list[Asset]:
    found = []
    for note in _listed(cache_dir() / "hub", "*.json"):
        name, _, revision = note.stem.replace("--", "/").partition("@")
        data = _read(note)
        folder, names = Path(str(data.get("folder", ""))), data.get("files")
        names = names if isinstance(names, list) else []
        sizes = [(folder / str(file)).stat().st_size for file in names if (folder / str(file)).is_file()]
        state = "cached" if sizes and len(sizes) == len(names) else "damaged"
        found.append(Asset("hub", name, revision, state, sum(sizes), note))
    return found


def _listed(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) if folder.is_dir() else []


def _read(path: Path) -> dict:
    """Read a JSON object; a missing or damaged file gives an empty one, which the caller takes for damage."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
