"""Find the entries of a picture by the end of its path, or by the hash of its bytes.

Names in annotation files are compared and never opened, so that none can lead anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moai.errors import ExpertError
from moai.types import Perception

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ASPECT = 0.02  # by which the shape of the annotated picture may differ from the picture's


@dataclass(frozen=True)
class Entry:
    """What a file says of one picture.

    Attributes:
        file: one of the expert's files; a picture may be once in each.
        where: the place in the file, for messages.
        name: parts of the picture's path as the file has it; empty where it has a digest.
        digest: SHA-256 of the picture's bytes, in hex; empty where it has a name.
        read: width and height of the picture to its perception.
    """

    file: str
    where: str
    name: tuple[str, ...]
    digest: str
    read: Callable[[int, int], Perception]

    def perception(self, width: int, height: int) -> Perception:
        """Read the perception; an error names the place."""
        try:
            return self.read(width, height)
        except ExpertError as error:
            raise ExpertError(f"{self.where}: {error}") from error


class Index:
    """Hold the entries of all files by name and by digest."""

    def __init__(self, entries: Iterable[Entry], match: str) -> None:
        self.match = match
        self._by_digest: dict[str, list[Entry]] = {}
        self._by_name: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.digest:
                self._by_digest.setdefault(entry.digest, []).append(entry)
            else:
                self._by_name.setdefault(entry.name[-1], []).append(entry)

    def find(self, origin: Any) -> list[Entry]:
        """Return the entries of a picture: one of each file that describes it, none where there is none.

        Args:
            origin: of the picture, from ``moai.plugin_api.image_origin``.

        Raises:
            ExpertError: several entries of one file are of this picture.
        """
        found: dict[str, Entry] = {}
        for entry in [*self._with_digest(origin), *self._with_name(origin)]:
            if entry.file in found:
                first, second = found[entry.file].where, entry.where
                raise ExpertError(f"{_named(origin)} is described twice, at {first} and at {second}; keep one of them")
            found[entry.file] = entry
        return list(found.values())

    def explain(self, origin: Any, files: str) -> str:
        """Say why a picture has no entry."""
        near = self._by_name.get(_parts(origin.path)[-1], ()) if origin.path else ()
        if not origin.path and not origin.digest:
            return f"the picture was made in memory, and {files} is searched by file name; pass its path or its bytes"
        other = f"; it has '{'/'.join(near[0].name)}': set match=name, to compare names alone" if near else ""
        return f"{_named(origin)} is not in {files}{other}" + (
            "" if other else "; set missing=empty, if it has nothing"
        )

    def _with_digest(self, origin: Any) -> list[Entry]:
        return self._by_digest.get(origin.sha256(), []) if self._by_digest else []

    def _with_name(self, origin: Any) -> list[Entry]:
        if not origin.path:
            return []
        parts = _parts(str(Path(origin.path).absolute()))
        named = self._by_name.get(parts[-1], [])
        if self.match == "name":
            return named
        fitting = [entry for entry in named if parts[-len(entry.name) :] == entry.name]
        longest = {entry.file: max(len(e.name) for e in fitting if e.file == entry.file) for entry in fitting}
        return [entry for entry in fitting if len(entry.name) == longest[entry.file]]


def name_parts(name: Any, where: str, folder: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Split the name of a picture into folders and file; ``..`` is resolved, and what leads out of the top is dropped.

    Args:
        name: a path as POSIX or Windows writes it.
        where: the place in the file, for the message.
        folder: that a relative name begins in.

    Raises:
        ExpertError: no name of a file.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name or len(name) > 4096:
        raise ExpertError(f"{where}: a picture is the name of a file, not {name!r:.60}")
    absolute = name[0] in "/\\" or re.match(r"[A-Za-z]:", name)
    parts = [] if absolute else list(folder)
    for part in re.split(r"[/\\]", name):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    if not parts or name[-1] in "/\\":
        raise ExpertError(f"{where}: a picture is the name of a file, not {name!r:.60}")
    return tuple(parts)


def digest_of(value: Any, where: str) -> str:
    """Return a SHA-256 in lower-case hex, or raise ExpertError."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value.lower()):
        raise ExpertError(f"{where}: sha256 is 64 hexadecimal digits, not {value!r:.60}")
    return value.lower()


def size_of(size: tuple[Any, Any], width: int, height: int) -> tuple[int, int]:
    """Return the size of the annotated picture, which may be smaller or larger than the picture, in the same shape.

    Args:
        size: annotated width and height; None where the file has none.
        width, height: of the picture.

    Raises:
        ExpertError: no size, or that of a picture of another shape.
    """
    if size[0] is None and size[1] is None:
        return width, height
    for side in size:
        if not isinstance(side, int) or isinstance(side, bool) or not 0 < side < 10**6:
            raise ExpertError(f"width and height are whole numbers of pixels, not {side!r:.60}")
    # A side may be rounded by half a pixel each time the picture is scaled.
    slack = _ASPECT + 1 / min(*size, width, height)
    if abs(size[0] * height / (size[1] * width) - 1) > slack:
        turned = " (turned, as its EXIF data say)" if (size[0] > size[1]) != (width > height) else ""
        raise ExpertError(
            f"a picture of {size[0]} x {size[1]} was annotated, and this one is {width} x {height}{turned}; "
            "annotate the same picture"
        )
    return size


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[/\\]", path) if part) or (path,)


def _named(origin: Any) -> str:
    return f"'{origin.path}'" if origin.path else f"the picture with the SHA-256 {origin.digest}"
