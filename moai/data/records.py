"""Read rows of data files lazily, each with the place that an error can name.

Knows: files and JSON. Nothing is kept in memory but where rows lie.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from moai.data.row_index import Place, index_rows
from moai.errors import DataError

BLOCK = 1 << 16  # places that are turned into Python numbers at once


class Records(Sequence[Any]):
    """Hold the raw rows of a source: ``records[i]`` reads one, ``place(i)`` says where it stands.

    Attributes:
        key: names this state of the files; empty where nothing that is made of them can be cached.
        digest: SHA-256 of the files' contents, wherever they lie; empty where it is not known without reading all rows.
    """

    key: str = ""
    digest: str = ""

    def place(self, index: int) -> Place:
        """Return where a row stands."""
        raise NotImplementedError

    def stream(self) -> Iterator[Any]:
        """Yield all rows in order, a row that cannot be read as its :class:`DataError`."""
        return each(self)


class JsonRecords(Records):
    """Read the rows of one file of JSON lines, or of one JSON array; each is read and parsed on access."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spans, self.key, self.digest = index_rows(path)
        self._stamp = _stamp(os.stat(path))

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: Any) -> Any:
        offset, length, line = self.spans[index]
        place = Place(str(self.path), int(line))
        try:
            # Opened for each row: a file that is shared between threads or forked processes has one position for all.
            with open(self.path, "rb") as file:
                if _stamp(os.fstat(file.fileno())) != self._stamp:
                    raise DataError(f"{place}: the file has changed since it was opened; start again")
                file.seek(offset)
                return parse_row(file.read(length), place)
        except OSError as error:
            raise DataError(f"{place}: cannot be read ({error.strerror or error}); check the file") from error

    def stream(self) -> Iterator[Any]:
        """Yield all rows in order, as one pass over the file."""
        with open(self.path, "rb") as file:
            for offset, length, line in self._in_blocks():
                file.seek(offset)  # within what is buffered this reads nothing
                try:
                    yield parse_row(file.read(length), Place(str(self.path), line))
                except DataError as error:
                    yield error

    def _in_blocks(self) -> Iterator[list[int]]:
        for start in range(0, len(self), BLOCK):
            yield from self.spans[start : start + BLOCK].tolist()

    def place(self, index: int) -> Place:
        """Return the file and the line on which a row begins."""
        return Place(str(self.path), int(self.spans[index][2]))


class ListedRecords(Records):
    """Hold rows that are in memory already, with a place each."""

    def __init__(self, rows: Sequence[Any], places: Sequence[Place]) -> None:
        self.listed, self.places = rows, places

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, index: Any) -> Any:
        return self.listed[index]

    def place(self, index: int) -> Place:
        """Return where a row stands."""
        return self.places[index]


class ConcatenatedRecords(Records):
    """Join the records of several files, in order."""

    def __init__(self, parts: Sequence[Records]) -> None:
        self.parts = parts
        self.ends = [sum(len(part) for part in parts[: n + 1]) for n in range(len(parts))]
        self.key = " ".join(part.key for part in parts) if all(part.key for part in parts) else ""
        self.digest = joined_digest([part.digest for part in parts])

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: Any) -> Any:
        number, within = find_part(self.ends, index)
        return self.parts[number][within]

    def place(self, index: int) -> Place:
        """Return where a row stands."""
        number, within = find_part(self.ends, index)
        return self.parts[number].place(within)

    def stream(self) -> Iterator[Any]:
        """Yield all rows in order, file by file."""
        for part in self.parts:
            yield from part.stream()


def joined_digest(digests: Sequence[str], *more: bytes) -> str:
    """Hash the digests of several parts, and further bytes, into one; empty where a part has none."""
    if not all(digests):
        return ""
    return hashlib.sha256(b"\n".join([*(digest.encode() for digest in digests), *more])).hexdigest()


def find_part(ends: Sequence[int], index: int) -> tuple[int, int]:
    """Find which of several joined sequences an index is in, and where in it; ``ends`` are their lengths, summed up.

    Raises:
        IndexError: there is no such index.
    """
    if not 0 <= index < (ends[-1] if ends else 0):
        raise IndexError(index)
    number = bisect_right(ends, index)
    return number, index - (ends[number - 1] if number else 0)


def json_records(paths: Sequence[Path]) -> Records:
    """Open files of JSON lines or JSON arrays as one sequence of rows.

    Raises:
        DataError: a file cannot be read, or is no JSON.
    """
    parts = [JsonRecords(path) for path in paths]
    return parts[0] if len(parts) == 1 else ConcatenatedRecords(parts)


def parse_row(row: bytes, place: Place) -> dict[str, Any]:
    """Parse a row as a JSON object.

    Raises:
        DataError: it is none; names the place.
    """
    try:
        value = json.loads(row.decode("utf-8"))
    except UnicodeDecodeError as error:
        said = f"not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8"
        raise DataError(f"{place}: {said}", "row that is no JSON") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: no JSON ({error}); write one object per line", "row that is no JSON") from None
    if not isinstance(value, dict):
        raise DataError(f"{place}: a row is a JSON object, {{..}}, not {type(value).__name__}; write one per line")
    return value


def each(rows: Sequence[Any]) -> Iterator[Any]:
    """Yield all rows in order, a row that cannot be read as its :class:`DataError`."""
    for index in range(len(rows)):
        try:
            yield rows[index]
        except DataError as error:
            yield error


def _stamp(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns
