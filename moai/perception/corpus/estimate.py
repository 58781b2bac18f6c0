"""Estimate how long and how much disk a larger corpus takes, from what was measured on a smaller one.

Knows: measurements. Where nothing was measured nothing is estimated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moai.errors import CorpusError
from moai.perception.corpus.image_list import NAME, ImageList
from moai.perception.corpus.manifest import Measurement, read_measurements

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class Estimate:
    """Hold what was measured, and what follows for a number of images."""

    images: int
    measured: Measurement  # runs of one kind, added up
    seconds_per_image: float  # of one worker, without loading
    bytes_per_image: float  # of shards
    list_bytes_per_image: float  # of the list

    @property
    def bytes(self) -> int:
        """Bytes on disk, of shards and list."""
        return round(self.images * (self.bytes_per_image + self.list_bytes_per_image))

    def hours(self, workers: int) -> float:
        """Hours that workers take that are each as fast as those measured."""
        return self.images * self.seconds_per_image / workers / 3600

    def to_dict(self, workers: Sequence[int]) -> dict[str, Any]:
        """Plain JSON types: what was measured, and hours by number of workers."""
        hours = {str(count): self.hours(count) for count in workers}
        return {**asdict(self), "bytes": self.bytes, "hours": hours}


def estimate(folder: str | Path, images: int) -> Estimate:
    """Estimate from the last kind of run (engine, workers, threads, device) that a corpus was made by.

    Args:
        folder: of the corpus, finished or not.
        images: for which it is estimated.

    Raises:
        CorpusError: nothing was measured there.
    """
    folder = Path(folder)
    runs = read_measurements(folder)
    if not runs:
        raise CorpusError(
            f"nothing was measured in {folder}; perceive a sample first, by moai perceive-dataset with --limit 1000"
        )
    last = runs[-1]
    same = [run for run in runs if _kind(run) == _kind(last)]
    added = {
        name: sum(getattr(run, name) for run in same)
        for name in ("images", "seconds", "work_seconds", "load_seconds", "bytes")
    }
    measured = Measurement(**{**vars(last), **added})
    listed = ImageList(folder)
    return Estimate(
        images,
        measured,
        measured.work_seconds / measured.images,
        measured.bytes / measured.images,
        (folder / NAME).stat().st_size / len(listed),
    )


def parse_count(text: str) -> int:
    """Read a number of images: ``10M``, ``250k`` or ``5000``.

    Raises:
        CorpusError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)", text.strip().replace(",", ""))
    count = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if not count:
        raise CorpusError(f"'{text}' is no number of images; write 5000, 250k or 10M")
    return count


def _kind(run: Measurement) -> tuple:
    return run.engine, run.workers, run.threads, run.cores, run.device
