"""The format ``hf``: Parquet files, or a data set of the hub, by the library ``datasets``.

Knows: ``datasets``, which is an extra. Rows are those of the formats ``jsonl`` and ``llava``; images may be columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, validate_call

from moai.assets.hashes import sha256_file
from moai.data.formats import jsonl, llava
from moai.data.records import Records, joined_digest
from moai.data.row_index import Place, cached_digest, file_key
from moai.data.samples import LazySamples
from moai.data.source import Source
from moai.errors import DataError, RecipeError
from moai.types import Sample

INSTALL = "format hf needs the library datasets; pip install 'moai-vlm[data]'"


@validate_call(config=ConfigDict(arbitrary_types_allowed=True))
def hf(
    source: Source,
    columns: dict[str, str] | None = None,
    config: str | None = None,
    revision: str | None = None,
    marker: str = jsonl.MARKER,
) -> LazySamples:
    """Read Parquet files (a path) or a hub id (a name), which ``datasets`` maps into memory.

    Args:
        source: with a path or a name.
        columns: key of a row -> name of the column that holds it, where they differ.
        config: the hub's name of a subset.
        revision: branch, tag or commit of a hub id.
        marker: the text of a message or turn that is an image's place.

    Raises:
        RecipeError: ``datasets`` is not installed, or a column is not there.
        DataError: the data set cannot be loaded.
    """
    records = _HubRecords(_load(source, config, revision), columns or {}, source.name or str(source.path))
    records.digest = _digest(source)

    def to_sample(row: Mapping[str, Any], place: Place) -> Sample:
        read = llava.from_row if "conversations" in row else jsonl.from_row
        return read(source, row, place, marker)

    return LazySamples(records, to_sample, group=_group)


class _HubRecords(Records):
    """Read rows of a data set by their numbers; an image is its bytes with their hash, or its file's name."""

    def __init__(self, table: Any, columns: Mapping[str, str], name: str) -> None:
        if missing := [column for column in columns.values() if column not in table.column_names]:
            known = ", ".join(table.column_names)
            raise RecipeError(f"{name} has no column '{missing[0]}'; known: {known}")
        self.table, self.columns, self.name = table, columns, name
        self.key = f"{table._fingerprint} {sorted(columns.items())}"

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        row = self.table[int(index)]
        row |= {key: row[column] for key, column in self.columns.items()}
        for key in ("image", "images"):
            if isinstance(row.get(key), list):
                row[key] = [_image(one) for one in row[key]]
            elif row.get(key) is not None:
                row[key] = _image(row[key])
        return {key: value for key, value in row.items() if value is not None}

    def place(self, index: int) -> Place:
        """Return the data set's name and the number of a row."""
        return Place(self.name, int(index) + 1)


def _load(source: Source, config: str | None, revision: str | None) -> Any:
    if (source.path is None) == (source.name is None):
        raise RecipeError("format hf reads Parquet files or a hub id; give data.sources a path or a name")
    try:
        import datasets
    except ImportError as error:
        raise RecipeError(INSTALL) from error
    try:
        if source.path is not None:
            files = [str(path) for path in _files(source)]
            table = datasets.load_dataset("parquet", data_files=files, split="train")
        else:
            table = datasets.load_dataset(source.name, config, split=source.split, revision=revision)
    except Exception as error:  # the library, the hub and Arrow raise nearly anything
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        name = source.name or source.path
        raise DataError(f"{name} cannot be loaded ({said}); check the name, the split and the network") from error
    undecoded = datasets.Image(decode=False)
    for column, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, undecoded)
        elif isinstance(getattr(feature, "feature", None), datasets.Image):
            table = table.cast_column(column, datasets.List(undecoded))
    return table


def _files(source: Source) -> list[Path]:
    return [one for path in source.paths for one in (sorted(path.glob("*.parquet")) or [path])]


def _digest(source: Source) -> str:
    """Hash all bytes of Parquet files, cached; empty for a hub id."""
    if source.path is None:
        return ""
    return joined_digest([cached_digest(file_key(p), p, partial(sha256_file, p)) for p in _files(source)])


def _image(value: Any) -> Any:
    """Return the bytes of an image with their hash, or its file's name."""
    if isinstance(value, Mapping):
        if value.get("bytes"):
            return value["bytes"], hashlib.sha256(value["bytes"]).hexdigest()
        return value.get("path") or ""
    return value


def _group(row: Mapping[str, Any]) -> object:
    """Name what must stay in one split with a row, without its images' bytes."""
    image = row.get("image") or row.get("images") or row.get("id")
    listed = image if isinstance(image, list) else [image]
    names = [one[1] if isinstance(one, tuple) else one for one in listed if one is not None]
    return names or {key: value for key, value in row.items() if isinstance(value, (str, list))}
