"""Run workers as processes of this machine.

Knows: processes. A worker ends at once when the process that started it stops or is killed; the shard that it was
writing is dropped then.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from moai.errors import CorpusError
from moai.perception.corpus.shard import CHUNK
from moai.perception.corpus.worker import Done, Job, ShardWorker

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # read by libraries when they are imported
# Of Pillow: blocks of memory that are used again, for a chunk of images and an expert's copies of them. To get fresh
# memory for each image takes longer than to copy it.
BLOCKS = "PILLOW_BLOCKS_MAX"
_POLL = 0.2  # seconds between two reports of progress


def run_local(job: Job, shards: Sequence[int], workers: int, advance: Callable[[int], None]) -> Iterator[Done]:
    """Write shards by worker processes; yield each when it is written.

    Args:
        job: for each worker.
        shards: numbers.
        workers: processes.
        advance: called with a number of images that are done, also of shards that are not finished.

    Raises:
        CorpusError: a worker was killed, or a shard cannot be written.
        ExpertError: an expert cannot be loaded.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    ended, stop = context.Pipe(duplex=False)
    counter = context.Value("q", 0)
    with worker_environment(job.threads):
        executor = ProcessPoolExecutor(workers, context, _start, (job, ended, counter))
        try:
            yield from _run(executor, shards, workers, counter, advance)
        except BrokenProcessPool as error:
            raise CorpusError(
                "a worker process was ended from outside, perhaps for want of memory; run the same command to go on, "
                "with fewer --workers"
            ) from error
        finally:
            stop.close()  # workers that still work end now
            executor.shutdown(wait=True, cancel_futures=True)
            ended.close()


def _run(
    executor: ProcessPoolExecutor, shards: Sequence[int], workers: int, counter: Any, advance: Callable[[int], None]
) -> Iterator[Done]:
    waiting, running, seen = list(reversed(shards)), set[Future](), 0
    while waiting or running:
        while waiting and len(running) < 2 * workers:  # one more for each, so that none waits for its next one
            running.add(executor.submit(_write, waiting.pop()))
        finished, running = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED)
        count = counter.value
        if count > seen:
            advance(count - seen)
            seen = count
        for future in finished:
            yield future.result()


@contextmanager
def worker_environment(threads: int) -> Iterator[None]:
    """Set the environment of processes that are started meanwhile: the threads of libraries, and Pillow's memory.

    Results of some engines depend on the number of threads in their last bits, so that it is not left to the machine.
    """
    wanted = {**dict.fromkeys(THREADS, str(threads)), BLOCKS: os.environ.get(BLOCKS, str(2 * CHUNK))}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Process:
    """Hold what a worker process knows; the experts are loaded for its first shard, so that errors reach the caller."""

    job: Job
    counter: Any
    worker: ShardWorker | None = None


def _start(job: Job, ended: Connection, counter: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches all processes, and the first of them decides
    threading.Thread(target=_end_with, args=(ended,), daemon=True).start()
    _Process.job, _Process.counter = job, counter


def _end_with(ended: Connection) -> None:
    """End this process when the other end of the pipe is closed, by its process or with it."""
    ended.poll(None)
    os._exit(1)


def _write(number: int) -> Done:
    if _Process.worker is None:
        _Process.worker = ShardWorker(_Process.job)
    return _Process.worker.write(number, _count)


def _count(images: int) -> None:
    with _Process.counter.get_lock():
        _Process.counter.value += images
