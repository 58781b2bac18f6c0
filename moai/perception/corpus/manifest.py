"""Write and read what a finished corpus says of itself, and what was measured while it was made.

Knows: two JSON files. The manifest is the same for the same images and experts; what was measured is in a file of its
own, since no two runs take equally long.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moai.assets.replacing import replacing
from moai.errors import CorpusError
from moai.perception.corpus.arrow import FORMAT
from moai.perception.corpus.expert_settings import Settings, settings_key
from moai.perception.corpus.image_list import ImageList
from moai.perception.corpus.shard import Counts, shard_path

MANIFEST, MEASURED = "manifest.json", "measured.json"


@dataclass(frozen=True)
class Manifest:
    """Describe a finished corpus."""

    experts: Settings
    experts_key: str
    images_key: str  # the hash of its list of images
    images: int
    unreadable: int
    failures: dict[str, int]  # expert -> images for which it gave nothing
    bytes: int  # of all shards
    shards: tuple[dict[str, Any], ...]  # file, source, rows and bytes of each
    format: int = FORMAT


@dataclass(frozen=True)
class Measurement:
    """Hold the figures of one run of workers."""

    engine: str
    workers: int
    threads: int  # of each worker
    cores: int  # of the machine that started them
    device: str
    images: int
    seconds: float  # from the start of the workers to the end of the last shard
    work_seconds: float  # added over all workers, without loading
    load_seconds: float  # added over all workers: to start and to load the experts
    bytes: int  # of the shards that were written


def write_manifest(folder: Path, listed: ImageList, settings: Settings, counts: Counts) -> Manifest:
    """Write the manifest of a corpus whose shards are all there.

    Raises:
        CorpusError: it cannot be written.
    """
    shards = tuple(
        {"file": path.name, "source": shard.source, "rows": shard.size, "bytes": path.stat().st_size}
        for shard in listed.shards
        for path in [shard_path(folder, shard.number)]
    )
    total = sum(shard["bytes"] for shard in shards)
    manifest = Manifest(settings, settings_key(settings), listed.digest, **vars(counts), bytes=total, shards=shards)
    _write(folder / MANIFEST, asdict(manifest))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a corpus.

    Raises:
        CorpusError: there is none, since the corpus is unfinished or elsewhere; or it is damaged or of another format.
    """
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise CorpusError(f"{path} has format {found['format']}, and this moai reads {FORMAT}; perceive it again")
        return Manifest(**{**found, "shards": tuple(found["shards"])})
    except FileNotFoundError as error:
        raise CorpusError(
            f"{folder} is no finished corpus: it has no {MANIFEST}; `moai perceive-dataset` writes it at the end"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(
            f"{path} cannot be read ({error}); delete it and run `moai perceive-dataset` again"
        ) from error


def add_measurement(folder: Path, measurement: Measurement) -> None:
    """Add the figures of a run.

    Raises:
        CorpusError: the file is damaged or cannot be written.
    """
    _write(folder / MEASURED, [asdict(one) for one in (*read_measurements(folder), measurement)])


def read_measurements(folder: Path) -> list[Measurement]:
    """Read the figures of all runs, the first one first; none where nothing was measured.

    Raises:
        CorpusError: the file is damaged.
    """
    path = folder / MEASURED
    try:
        return [Measurement(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise CorpusError(f"{path} is damaged ({error}); delete it") from error


def _write(path: Path, data: Any) -> None:
    try:
        with replacing(path) as part:
            part.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise CorpusError(f"{path} cannot be written: {error}; fix that, and run the same command again") from error
