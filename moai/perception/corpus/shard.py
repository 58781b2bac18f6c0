"""Write one shard: a Parquet file with a row per image, whole or not at all; and tell whether it is there.

Knows: the columns, and what the file's metadata say of how it was made. A shard that is there is complete.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL.Image import Image

from moai.assets.hashes import sha256_file
from moai.assets.replacing import replacing
from moai.errors import CorpusError, MoaiError
from moai.images import read_image
from moai.perception.corpus.arrow import FORMAT, GROUP, import_pyarrow, shard_schema, storable
from moai.perception.corpus.expert_settings import Settings, settings_key
from moai.perception.corpus.image_list import ListedImage, Shard
from moai.types import Perception

log = logging.getLogger("moai")
CHUNK = 16  # images in memory at a time; GROUP is a multiple of it
Row = dict[str, Any]
Perceive = Callable[[list[Image]], list[Perception]]


@dataclass(frozen=True)
class Counts:
    """Count the images of a shard or of a corpus."""

    images: int = 0
    unreadable: int = 0
    failures: dict[str, int] = field(default_factory=dict)  # expert -> images for which it gave nothing

    def __add__(self, other: Counts) -> Counts:
        failures = Counter(self.failures) + Counter(other.failures)
        return Counts(self.images + other.images, self.unreadable + other.unreadable, dict(sorted(failures.items())))


def shard_path(folder: Path, number: int) -> Path:
    """Name the file of a shard."""
    return folder / f"shard-{number:05d}.parquet"


def write_shard(
    folder: Path,
    shard: Shard,
    images: Sequence[ListedImage],
    base: Path,
    settings: Settings,
    perceive: Perceive,
    advance: Callable[[int], None],
) -> Counts:
    """Perceive the images of a shard and write its file.

    Args:
        folder: of the corpus.
        shard: which one.
        images: its images, in the order of its rows.
        base: the folder that relative paths begin at.
        settings: of the experts.
        perceive: returns a perception for each of at most ``CHUNK`` images.
        advance: called with a number of images that are done.

    Returns:
        The counts, which are also in the file.

    Raises:
        CorpusError: the file cannot be written.
        MoaiError: of ``perceive``.
    """
    arrow, parquet = import_pyarrow()
    path, key, counts = shard_path(folder, shard.number), settings_key(settings), Counts()
    schema = shard_schema().with_metadata({b"moai": _identity(shard, settings)})
    made_by = {"experts": ", ".join(f"{one['name']} {one['version']}" for one in settings), "experts_key": key}
    try:
        with replacing(path) as part, parquet.ParquetWriter(part, schema, compression="zstd") as writer:
            for start in range(0, len(images), GROUP):
                rows: list[Row] = []
                for first in range(start, min(start + GROUP, len(images)), CHUNK):
                    rows += _rows(images[first : min(first + CHUNK, start + GROUP)], base, perceive)
                    advance(min(start + GROUP, len(images), first + CHUNK) - first)
                table = arrow.Table.from_pylist([{**row, **made_by} for row in rows], schema=schema)
                writer.write_table(table, row_group_size=GROUP)
                counts += _count(rows)
            writer.add_key_value_metadata({"moai.counts": json.dumps(vars(counts), sort_keys=True)})
    except OSError as error:
        raise CorpusError(f"{path} cannot be written: {error}; fix that, and run the same command to go on") from error
    return counts


def read_counts(folder: Path, shard: Shard, settings: Settings) -> Counts | None:
    """Read the counts of a shard that is there; None where there is none.

    Raises:
        CorpusError: it is damaged, or was made of other images or with other settings.
    """
    path = shard_path(folder, shard.number)
    if not path.is_file():
        return None
    arrow, parquet = import_pyarrow()
    try:
        metadata = parquet.read_metadata(path).metadata or {}
        identity, counts = metadata[b"moai"], Counts(**json.loads(metadata[b"moai.counts"]))
    except (arrow.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise CorpusError(f"{path} is damaged ({error}); delete it and run the same command again") from error
    if identity != _identity(shard, settings) or counts.images != shard.size:
        raise CorpusError(f"{path} was made of other images or with other settings; name another --out")
    return counts


def _identity(shard: Shard, settings: Settings) -> bytes:
    about = {"format": FORMAT, "shard": shard.number, "images": shard.digest, "experts": settings}
    return json.dumps(about, sort_keys=True).encode()


def _rows(images: Sequence[ListedImage], base: Path, perceive: Perceive) -> list[Row]:
    """Perceive images; one that cannot be read is a row with its error."""
    rows: list[Row] = []
    pictures: dict[int, Image] = {}
    for index, image in enumerate(images):
        row: Row = {"id": image.id, "path": storable(image.path), "failures": []}
        file = base / image.path
        try:
            pictures[index] = picture = read_image(file)
            row |= {"width": picture.width, "height": picture.height}
            row |= {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
        except (MoaiError, OSError, ValueError) as error:  # ImageError, or it was removed meanwhile
            row["error"] = storable(str(error).replace(str(file), image.path))
            pictures.pop(index, None)
        rows.append(row)
    for index, perception in zip(pictures, perceive(list(pictures.values())), strict=True):
        rows[index]["perception"] = json.dumps(perception.to_dict(), separators=(",", ":"), allow_nan=False)
        rows[index]["failures"] = [
            {"expert": storable(failure.expert), "reason": storable(failure.reason)} for failure in perception.failures
        ]
    return rows


def _count(rows: list[Row]) -> Counts:
    failed = Counter(failure["expert"] for row in rows for failure in row["failures"])
    return Counts(len(rows), sum("error" in row for row in rows), dict(failed))
