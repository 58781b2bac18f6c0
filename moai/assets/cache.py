"""Publish folders in the cache: each is built in a temporary folder, then renamed as a whole.

Knows: paths, locks and the terminal's status line; nothing of wheels or models. A folder made by ``publish`` is
complete or absent, however the process that made it ended, and one process makes it while the others wait.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moai.errors import AssetError

MARKER = ".moai-asset.json"  # written last: what the folder was made from, and the size of every file in it
log = logging.getLogger("moai")


def cache_dir() -> Path:
    """Return the cache folder: ``$MOAI_CACHE``, or ``~/.cache/moai``. It is made when something is first put in."""
    configured = os.environ.get("MOAI_CACHE")
    return Path(configured).expanduser().absolute() if configured else Path.home() / ".cache" / "moai"


def is_whole(folder: Path, origin: str) -> bool:
    """Return whether ``folder`` was published from ``origin`` and all its files still have the size they had then."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        if marker["origin"] != origin:
            return False
        return all((folder / name).stat().st_size == size for name, size in marker["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def publish(folder: Path, origin: str, build: Callable[[Path], None]) -> Path:
    """Return ``folder``, made by ``build(temporary_folder)`` unless a whole one from ``origin`` is there.

    Args:
        folder: where the content shall lie.
        origin: what it is made from, usually a hash; another origin or a damaged folder is built anew.
        build: fills the empty folder it is given; whatever it raises leaves nothing in the cache.

    Raises:
        AssetError: the cache cannot be written or the disk is full.
    """
    if is_whole(folder, origin):
        return folder
    with _disk_errors(folder), _lock(folder):
        if is_whole(folder, origin):  # another process made it while this one waited
            return folder
        _sweep(folder)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            content = aside / "content"
            content.mkdir()
            build(content)
            _mark(content, origin)
            _replace(folder, content, aside / "old")
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


@contextmanager
def status(text: str) -> Iterator[None]:
    """Show ``text`` with a spinner on stderr while the body runs; a line in the log when stderr is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal and sys.stderr.isatty():
        with console.status(text):
            yield
    else:
        log.info("%s", text)
        yield


def _sweep(folder: Path) -> None:
    # The lock is held, so a temporary folder belongs to a process that was killed while building.
    for left in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _mark(folder: Path, origin: str) -> None:
    files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    record: dict[str, Any] = {"origin": origin, "files": files}
    (folder / MARKER).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _replace(folder: Path, content: Path, old: Path) -> None:
    if folder.exists():
        log.warning("the cached folder %s was damaged; it is made anew", folder)
        os.replace(folder, old)
    os.replace(content, folder)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder.parent / f".{folder.name}.lock")):
        yield


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR):
            raise AssetError(
                f"cannot write {folder.parent}: {error.strerror}; free some space there, "
                "or set MOAI_CACHE to a folder that can be written"
            ) from error
        raise
