"""Read image and text pairs of WebDataset tar shards, by where they lie in the shard.

Knows: tar headers. Shards are neither unpacked nor read whole; links and other special members are refused.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from moai.data.records import Records, parse_row
from moai.data.row_index import Place, cached_array, cached_digest, file_key
from moai.errors import DataError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
TEXTS = (".txt", ".json")


class TarPair(NamedTuple):
    """The bytes of an image, and its text."""

    image: bytes
    text: str


class TarRecords(Records):
    """Read the pairs of one shard; those members are a pair whose names are equal up to the suffix."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.key = file_key(path)
            # of each pair: image and text as offset and bytes, and whether the text is JSON
            self.spans = cached_array(f"{self.key}-pairs", path, lambda: _pairs(path))
            self.digest = cached_digest(f"{self.key}-pairs", path, lambda: _digest(path, self.spans))
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"{path} is no plain tar file ({error}); unpack or copy it again") from error

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: Any) -> TarPair:
        at, size, text_at, text_size, is_json = self.spans[index].tolist()
        place = self.place(index)
        if at < 0 or text_at < 0:
            missing = "image" if at < 0 else "text"
            raise DataError(f"{place}: a pair has no {missing}; pack it again", f"missing {missing}")
        try:
            with open(self.path, "rb") as file:
                file.seek(at)
                image = file.read(size)
                file.seek(text_at)
                text = file.read(text_size)
        except OSError as error:
            raise DataError(f"{place}: cannot be read ({error.strerror or error}); check the file") from error
        if is_json:
            return TarPair(image, str(parse_row(text, place).get("caption", "")))
        return TarPair(image, text.decode("utf-8", errors="replace").strip())

    def place(self, index: int) -> Place:
        """Return the shard, and the number of a pair in it."""
        return Place(str(self.path), index + 1)


def _pairs(path: Path) -> np.ndarray:
    found: dict[str, list[int]] = {}
    for name, member in _members(path):
        suffix = name.suffix.lower()
        if suffix not in PICTURES + TEXTS:
            continue  # WebDataset keeps further files of a sample beside them
        pair = found.setdefault(name.with_suffix("").as_posix(), [-1, 0, -1, 0, 0])
        first = 0 if suffix in PICTURES else 2
        if suffix == ".json" and pair[2] >= 0:
            continue  # the text file comes first
        pair[first : first + 2] = [member.offset_data, member.size]
        pair[4] = int(suffix == ".json") if first else pair[4]
    return np.array(list(found.values()), np.int64).reshape(-1, 5)


def _digest(path: Path, spans: np.ndarray) -> str:
    """Hash where the members lie, and all texts; the contents of images are left out, as of those in files."""
    hashed = hashlib.sha256(spans.tobytes())
    with open(path, "rb") as file:
        for at, size in spans[:, 2:4].tolist():
            if at >= 0:
                file.seek(at)
                hashed.update(file.read(size))
    return hashed.hexdigest()


def _members(path: Path) -> Iterator[tuple[PurePosixPath, tarfile.TarInfo]]:
    with tarfile.open(path, "r:") as tar:
        for number, member in enumerate(tar):
            if member.isdir():
                continue
            if not member.isreg():
                raise DataError(f"{path}: member {number + 1} is a link or a device; pack plain files only")
            yield PurePosixPath(member.name), member
            tar.members = []  # tarfile would keep each in memory
