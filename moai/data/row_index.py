"""Index the rows of a large JSON file by where they lie, so that any row is read without the others.

Knows: JSON lines, JSON arrays and numpy. The index is built in one pass and cached; rows are parsed when they are read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moai.assets.cache import cache_dir
from moai.assets.hashes import sha256_file
from moai.assets.replacing import replacing
from moai.errors import DataError

log = logging.getLogger("moai")

CHUNK = 1 << 23  # bytes that are read at once
LARGEST = 1 << 26  # bytes of the largest row of an array
ENDS = 1 << 16  # bytes of the head and of the tail that are hashed
NOTHING = hashlib.sha256().digest()
LAYOUT = 1  # raised when an index of before no longer fits
BOM = b"\xef\xbb\xbf"
BETWEEN = " \t\r\n,"  # what stands between the rows of an array


class Place(NamedTuple):
    """Where a row stands: a file, and a line of it counted from 1 (of a row that has no line, its number)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class RowIndex(NamedTuple):
    """Where the rows of a file lie, and what names its state.

    Attributes:
        spans: offset, length in bytes and line of each row, ``(N, 3)`` int64.
        key: names this state of the file at this place, for caches.
        digest: SHA-256 of all its bytes, wherever it lies.
    """

    spans: np.ndarray
    key: str
    digest: str


def index_rows(path: Path) -> RowIndex:
    """Return the index of a file of JSON lines or of one JSON array, from the cache where the file is as it was.

    The key is made of path, size, time of change, and a hash of the file's first and last 64 KiB. The digest is
    computed in the pass that finds the rows, and cached with them.

    Raises:
        DataError: the file cannot be read, is empty, or holds an array that is no JSON.
    """
    try:
        key, hashed = file_key(path), hashlib.sha256()
        spans = cached_array(key, path, lambda: _scan(path, hashed.update))
        digest = cached_digest(key, path, hashed.hexdigest if hashed.digest() != NOTHING else lambda: sha256_file(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    if not len(spans):
        raise DataError(f"{path} holds no rows; write one JSON object per line")
    return RowIndex(spans, key, digest)


def cached_array(key: str, about: object, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return an array from the cache, or make it and cache it; a cache that cannot be written is a warning.

    Args:
        key: names what the array is made of.
        about: what it is of, for the warning.
        make: makes it.
    """
    cached = cache_dir() / "rows" / f"{key}.npy"
    if cached.is_file():
        return np.load(cached, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    made = make()
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with replacing(cached) as part, open(part, "wb") as file:
            np.save(file, made)
    except OSError as error:  # it serves as well without being cached
        log.warning("the index of %s is not cached: %s", about, error.strerror or error)
    return made


def cached_digest(key: str, about: object, make: Callable[[], str]) -> str:
    """Return a SHA-256 (hex) from the cache, or make it and cache it; as :func:`cached_array`."""
    found = cached_array(f"{key}-digest", about, lambda: np.frombuffer(bytes.fromhex(make()), np.uint8))
    return found.tobytes().hex()


def file_key(path: Path) -> str:
    """Hash path, size, time of change, head and tail of a file (SHA-256, hex)."""
    stat = path.stat()
    digest = hashlib.sha256(f"{LAYOUT} {path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    with open(path, "rb") as file:
        digest.update(file.read(ENDS))
        file.seek(max(0, stat.st_size - ENDS))
        digest.update(file.read(ENDS))
    return digest.hexdigest()


def is_array(path: Path) -> bool:
    """Return whether a file's first character is that of a JSON array."""
    with open(path, "rb") as file:
        return file.read(ENDS).removeprefix(BOM).lstrip()[:1] == b"["


def _scan(path: Path, update: Callable[[bytes], None]) -> np.ndarray:
    """Find the rows of a file; ``update`` gets all its bytes in order."""
    found = list(_array_rows(path, update)) if is_array(path) else _line_rows(path, update)
    return np.array(found, dtype=np.int64).reshape(-1, 3) if isinstance(found, list) else found


def _line_rows(path: Path, update: Callable[[bytes], None]) -> np.ndarray:
    """Rows of JSON lines, blank ones left out."""
    ends, position = [], 0
    with open(path, "rb") as file:
        start = len(BOM) if file.read(len(BOM)) == BOM else 0
        file.seek(0)
        while chunk := file.read(CHUNK):
            update(chunk)
            ends.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + position)
            position += len(chunk)
    breaks = np.concatenate([*ends, [position]]).astype(np.int64)
    offsets = np.concatenate([[start], breaks[:-1] + 1]).astype(np.int64)
    spans = np.stack([offsets, breaks - offsets, np.arange(1, len(breaks) + 1)], axis=1)
    filled = spans[:, 1] > 1
    with open(path, "rb") as file:
        for number in np.flatnonzero(spans[:, 1] == 1):  # the carriage return of a blank line, or a row cut off
            file.seek(spans[number, 0])
            filled[number] = file.read(1) != b"\r"
    return spans[filled]


def _array_rows(path: Path, update: Callable[[bytes], None]) -> Iterator[tuple[int, int, int]]:
    """Rows of a JSON array of objects.

    Bytes are read as Latin-1, one character each: no byte of a longer UTF-8 character looks like JSON's own signs.
    """
    decoder = json.JSONDecoder()
    with open(path, "rb") as file:

        def more() -> str:
            chunk = file.read(CHUNK)
            update(chunk)
            return chunk.decode("latin-1")

        text = more()
        base, at = 0, text.index("[") + 1  # text begins at the byte `base`
        line = 1 + text.count("\n", 0, at)  # of text[at]
        while True:
            end = next((n for n in range(at, len(text)) if text[n] not in BETWEEN), len(text))
            line, at = line + text.count("\n", at, end), end
            if text[at : at + 1] == "]":
                while more():  # what follows the array is hashed, too
                    pass
                return
            try:
                if at == len(text):
                    raise json.JSONDecodeError("the array is not closed", text[-20:], 0)
                row, end = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                added = more() if len(text) - at <= LARGEST else ""
                if not added:
                    raise DataError(f"{path}:{line}: {error.msg}; fix this row, or copy the file again") from None
                text, base, at = text[at:] + added, base + at, 0
                continue
            except RecursionError:
                raise DataError(f"{path}:{line}: a row is nested too deeply; leave it out") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{line}: the array holds {type(row).__name__}; its rows are objects, {{..}}")
            yield base + at, end - at, line
            line, at = line + text.count("\n", at, end), end
