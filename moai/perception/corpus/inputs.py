"""Read which images a corpus has from a folder of pictures, or from lists in JSON lines, CSV or Parquet.

Knows: these layouts. Image names come from files, so that none leads out of the folder of its list.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from moai.errors import CorpusError, nearest
from moai.perception.corpus.arrow import import_pyarrow, storable

Found = Iterator[tuple[str, str, str]]  # source, id and path of each image
LISTS = (".jsonl", ".ndjson", ".csv", ".parquet")
PICTURES = (
    ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".ico", ".tga",
    ".avif", ".jp2", ".pcx",
)  # fmt: skip


def is_list(path: Path) -> bool:
    """Return whether a file is a list of images, by its suffix."""
    return path.suffix.lower() in LISTS


def holds_lists(folder: Path) -> bool:
    """Return whether a folder holds lists and no pictures beside them: then each list is an input shard.

    Raises:
        CorpusError: it holds both, so that either could be meant.
    """
    names = [path for path in sorted(folder.iterdir()) if path.is_file()]
    lists = [path for path in names if is_list(path)]
    if lists and (picture := next(_pictures(folder), None)) is not None:
        raise CorpusError(
            f"{folder} holds a list ({lists[0].name}) and pictures ({Path(picture).name}); name the list, "
            "or move one of the two elsewhere"
        )
    return bool(lists)


def refuse_inside(folder: Path, given: Path) -> None:
    """Refuse to write a corpus into the folder that it is made of: its shards would be taken for lists of images.

    Raises:
        CorpusError: ``folder`` is ``given``, or lies in it.
    """
    if given.is_dir() and folder.resolve().is_relative_to(given.resolve()):
        raise CorpusError(f"--out {folder} lies in {given}, whose files are the input; name a folder beside it")


def read_images(given: Path, column: str = "image") -> Found:
    """Read the images of a folder or of a list, in a fixed order.

    The id of an image is its path, as the argument begins it: what data formats call an image, too.

    Args:
        given: a folder of pictures, in folders of any depth; a folder of lists; or a list.
        column: of a list, with an image's name, or in JSON lines several names.

    Raises:
        CorpusError: nothing there, a list that cannot be read, or a name that leads out of its list's folder.
    """
    if given.is_dir():
        if not holds_lists(given):
            for path in _pictures(given):
                yield str(given), PurePosixPath(path).as_posix(), path
            return
        lists = [path for path in sorted(given.iterdir()) if path.is_file() and is_list(path)]
    else:
        lists = [given]
    for path in lists:
        for where, name in _names(path, column):
            file = _inside(path, where, name)
            yield path.name, PurePosixPath(file).as_posix(), file


def _pictures(folder: Path) -> Iterator[str]:
    """Walk over the pictures of a folder, sorted by name in each folder."""

    def refuse(error: OSError) -> None:
        raise CorpusError(f"{error.filename} cannot be read: {error.strerror}; check its permissions") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURES:
                yield os.path.join(place, name)


def _inside(path: Path, where: str, name: Any) -> str:
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise CorpusError(f"{path}, {where}: an image is the name of a file, not {name!r:.80}; fix the row")
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts:
        raise CorpusError(
            f"{path}, {where}: image {storable(name)!r:.80} leads out of {path.parent}; write names of files beside it"
        )
    return str(path.parent / inside)


def _names(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    """Yield the place and the name of each image in a list."""
    readers = {".csv": _csv_names, ".parquet": _parquet_names}
    try:
        yield from readers.get(path.suffix.lower(), _json_names)(path, column)
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read: {error}; check the file") from error


def _json_names(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            where = f"line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise CorpusError(f"{path}, {where}: no JSON ({error}); write one object per line") from error
            if not isinstance(row, dict):
                raise CorpusError(f"{path}, {where}: a row is an object, not {type(row).__name__}; fix the row")
            given = row.get(column)
            if given is None and column == "image":
                given = row.get("images")  # a row without either is text alone
            for name in given if isinstance(given, list) else [] if given in (None, "") else [given]:
                yield where, name


def _csv_names(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        try:
            _check_column(path, column, list(rows.fieldnames or ()))
            for row in rows:
                if row[column]:
                    yield f"line {rows.line_num}", row[column]
        except csv.Error as error:
            raise CorpusError(f"{path}, line {rows.line_num}: {error}; save it as CSV again") from error


def _parquet_names(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    arrow, parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            _check_column(path, column, file.schema_arrow.names)
            number = 0
            for batch in file.iter_batches(batch_size=4096, columns=[column]):
                for name in batch.column(0).to_pylist():
                    number += 1
                    if name not in (None, ""):
                        yield f"row {number}", name
    except arrow.ArrowException as error:
        raise CorpusError(f"{path} is no Parquet file, or damaged ({error}); write it again") from error


def _check_column(path: Path, column: str, known: list[str]) -> None:
    if column not in known:
        raise CorpusError(f"{path} has no column '{column}'{nearest(column, known)}; name it with --image-column")
