"""Cache the SHA-256 of large files: hashing gigabytes anew at every start would cost more than loading them.

Knows: the cache folder and file states. A cached hash counts only while path, inode, size, and both times of change
are what they were; a file that changed a moment ago is never cached, because a second change within the resolution
of the file system's clock would look like none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path

from moai.assets.cache import cache_dir
from moai.assets.hashes import sha256_file
from moai.assets.replacing import replacing

log = logging.getLogger("moai")
# Seconds since the last change, after which the state of a file identifies its content: where the file system
# counts fractions of a second, and where it may count whole or even ones.
SETTLED, COARSE = 0.1, 2.0
SMALL = 1 << 20  # bytes; below, hashing costs less than caching


def known_sha256(path: str | Path) -> str:
    """Return the file's SHA-256, from the cache when nothing about the file has changed since it was computed.

    Raises:
        CheckpointError: the file cannot be read.
    """
    path = Path(path).absolute()
    before = time.time()
    try:
        info = path.stat()
    except OSError:
        return sha256_file(path)  # says why
    if info.st_size < SMALL:
        return sha256_file(path)
    state = [str(path), info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]
    note = cache_dir() / "hashes" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:24]}.json"
    digest = _remembered(note, state)
    if digest is None:
        digest = sha256_file(path)
        if _settled(info, before):
            _remember(note, state, digest)
    return digest


def _settled(info: os.stat_result, now: float) -> bool:
    fine = info.st_mtime_ns % 10**9 and info.st_ctime_ns % 10**9
    return now - max(info.st_mtime, info.st_ctime) > (SETTLED if fine else COARSE)


def _remembered(note: Path, state: list) -> str | None:
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        return known["sha256"] if known["state"] == state else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # nothing cached yet


def _remember(note: Path, state: list, digest: str) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with replacing(note) as part:
            part.write_text(json.dumps({"state": state, "sha256": digest}), encoding="utf-8")
    except OSError as error:  # the next start hashes again
        log.debug("cannot cache a hash in %s: %s", note.parent, error)
