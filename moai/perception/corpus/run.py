"""Perceive a corpus: list its images, write the shards that are not there yet, and describe it.

Knows: the parts of this folder. Killed at any point, the same call goes on: shards that are there are complete, and
those that are not are perceived.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from moai.errors import CorpusError
from moai.perception.corpus.arrow import import_pyarrow
from moai.perception.corpus.expert_settings import check_settings, expert_settings
from moai.perception.corpus.image_list import write_list
from moai.perception.corpus.local_pool import run_local
from moai.perception.corpus.manifest import (
    MANIFEST,
    Manifest,
    Measurement,
    add_measurement,
    read_manifest,
    write_manifest,
)
from moai.perception.corpus.ray_pool import run_ray
from moai.perception.corpus.shard import Counts, read_counts, shard_path
from moai.perception.corpus.stopping import terminable
from moai.perception.corpus.worker import Done, Job
from moai.perception.running.time_limit import TIME_LIMIT, TimeLimit

Engine = Literal["local", "ray"]
Advance = Callable[[int], None]
Report = Callable[[int, int], AbstractContextManager[Advance]]  # images in all, images done before


@dataclass(frozen=True)
class Workers:
    """Say who perceives: the engine, how many workers, and what each of them may take."""

    engine: Engine = "local"
    count: int = 1
    threads: int = 1
    device: str | Mapping[str, str] = "cpu"
    time_limit: TimeLimit = TIME_LIMIT


def perceive_corpus(
    images: Iterable[tuple[str, str, str]],
    folder: str | os.PathLike[str],
    experts: Sequence[str],
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    shard_size: int | None = 1000,
    limit: int | None = None,
    workers: Workers | None = None,
    report: Report | None = None,
) -> Manifest:
    """Perceive images into the Parquet shards of a folder, or go on with what is there.

    Args:
        images: source, id and path of each image; each is perceived once. A relative path begins at the working folder.
        folder: is made where it is missing.
        experts: names.
        options: per expert's name.
        shard_size: images of a shard; None makes one shard of each source.
        limit: only so many images, the first ones: a sample to measure.
        workers: who perceives; one process of this machine where left out.
        report: called with the images of the corpus and those that were done before; gives, as a context, a function
            that is called with a number of images that are done.

    Returns:
        The manifest, which is also in the folder.

    Raises:
        CorpusError: the folder holds a corpus of other images or experts, or is in use; or it cannot be written.
        ExpertError: an unknown expert or option, or an expert that cannot be loaded.
        KeyboardInterrupt: a Ctrl-C, or ``Terminated`` at a SIGTERM. The same call goes on.
    """
    import_pyarrow()
    folder, workers = Path(folder).absolute(), workers or Workers()
    settings, options = expert_settings(experts, options or {}), {k: dict(v) for k, v in (options or {}).items()}
    with terminable(), _locked(folder):
        if (folder / MANIFEST).exists():
            check_settings(read_manifest(folder).experts, settings, str(folder), "name another --out")
        listed = write_list(folder, images, shard_size, limit)
        try:
            there = {shard.number: read_counts(folder, shard, settings) for shard in listed.shards}
            counts = sum((found for found in there.values() if found is not None), Counts())
            missing = [number for number, found in there.items() if found is None]
            job = Job(folder, Path.cwd(), settings, options, workers.device, workers.time_limit, workers.threads)
            with (report or _silent)(len(listed), counts.images) as advance:
                for done in _measured(job, missing, workers, advance):
                    counts += done.counts
            return write_manifest(folder, listed, settings, counts)
        finally:
            listed.close()


def _silent(images: int, done: int) -> AbstractContextManager[Advance]:
    return nullcontext(lambda count: None)


def _measured(job: Job, shards: Sequence[int], workers: Workers, advance: Advance) -> Iterator[Done]:
    """Write shards, and add what was measured to the folder, also when the run is stopped."""
    if not shards:
        return
    run = {"local": run_local, "ray": run_ray}[workers.engine]
    count = min(workers.count, len(shards))
    device = workers.device if isinstance(workers.device, str) else str(dict(workers.device))
    total = Measurement(workers.engine, count, workers.threads, os.cpu_count() or 1, device, 0, 0.0, 0.0, 0.0, 0)
    started = time.monotonic()
    try:
        for done in run(job, shards, count, advance):
            total = replace(
                total,
                images=total.images + done.counts.images,
                seconds=time.monotonic() - started,
                work_seconds=total.work_seconds + done.seconds,
                load_seconds=total.load_seconds + done.loading,
                bytes=total.bytes + shard_path(job.folder, done.shard).stat().st_size,
            )
            yield done
    finally:
        if total.images:
            add_measurement(job.folder, total)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one run, and remove what a killed one left in the middle of writing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            for part in folder.glob(".*.part"):
                part.unlink()
            yield
    except Timeout as error:
        raise CorpusError(f"another run is writing to {folder}; wait for it, or name another --out") from error
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise CorpusError(f"{folder} cannot be used ({error.strerror}); name another --out") from error
