"""Perceive shards in one process, in which the experts are loaded once.

Knows: the perceiver. What travels to a worker are settings, paths and numbers of shards, never pixels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL.Image import Image

from moai.perception.corpus.arrow import import_pyarrow
from moai.perception.corpus.expert_settings import Settings
from moai.perception.corpus.image_list import ImageList
from moai.perception.corpus.shard import Counts, write_shard
from moai.perception.running.perceiver import Perceiver
from moai.perception.running.time_limit import TIME_LIMIT, TimeLimit
from moai.types import Perception


@dataclass(frozen=True)
class Job:
    """Say what a worker has to know; it is sent to each of them once."""

    folder: Path  # of the corpus
    base: Path  # that relative paths of images begin at
    settings: Settings
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    device: str | Mapping[str, str] = "cpu"
    time_limit: TimeLimit = TIME_LIMIT
    threads: int = 1  # of each worker


@dataclass(frozen=True)
class Done:
    """Report a shard that was written."""

    shard: int
    counts: Counts
    seconds: float  # that the worker spent on it
    loading: float  # seconds that it spent on loading the experts before
    worker: int  # number of its process


class ShardWorker:
    """Write shards, one after another.

    Raises:
        CorpusError: the list of images cannot be read.
        ExpertError: an expert cannot be loaded.
    """

    def __init__(self, job: Job) -> None:
        started = time.monotonic()
        import_pyarrow()  # its second is not an image's
        self.job, self.list = job, ImageList(job.folder)
        names = [one["name"] for one in job.settings]
        self._perceiver = Perceiver(names, options=job.options, device=job.device, time_limit=job.time_limit)
        self._perceiver.load()
        self._loading = time.monotonic() - started

    def write(self, number: int, advance: Callable[[int], None]) -> Done:
        """Write the shard of a number. ``advance`` is called with a number of images that are done."""
        started, job = time.monotonic(), self.job
        shard, images = self.list.shards[number], self.list.images(number)
        counts = write_shard(job.folder, shard, images, job.base, job.settings, self._perceive, advance)
        loading, self._loading = self._loading, 0.0
        return Done(number, counts, time.monotonic() - started, loading, os.getpid())

    def _perceive(self, images: list[Image]) -> list[Perception]:
        """Perceive images; an expert that cannot be loaded anew, after it took too long, ends the run."""
        found = self._perceiver.perceive(images)
        if self._perceiver.given_up():
            self._perceiver.load()  # which raises the reason
        return found
