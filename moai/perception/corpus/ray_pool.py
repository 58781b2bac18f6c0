"""Run workers as actors of Ray Data, on this machine or on a cluster.

Knows: Ray, which an extra installs. Numbers of shards travel to the actors, and counts travel back; the folder of the
corpus and the images have to be on a file system that all nodes share.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from moai.errors import CorpusError, MoaiError
from moai.perception.corpus.local_pool import BLOCKS, THREADS, worker_environment
from moai.perception.corpus.shard import Counts
from moai.perception.corpus.worker import Done, Job, ShardWorker


def run_ray(job: Job, shards: Sequence[int], workers: int, advance: Callable[[int], None]) -> Iterator[Done]:
    """Write shards by actors of Ray Data; yield each when it is written.

    ``RAY_ADDRESS`` names a cluster; without it Ray is started on this machine.

    Args:
        job: for each actor.
        shards: numbers.
        workers: actors.
        advance: called with the number of images of each shard that is done.

    Raises:
        CorpusError: Ray is not installed or cannot be started, or a worker's error.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise CorpusError(f"--engine ray needs Ray ({error}); pip install 'moai-vlm[ray]'") from error
    with worker_environment(job.threads), _started(ray, job, workers):
        items = ray.data.from_items([{"shard": number} for number in shards], override_num_blocks=len(shards))
        done = items.map_batches(
            _Actor,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=job.threads,
            num_gpus=1 if "cuda" in str(job.device) else 0,
        )
        for row in done.iter_rows():
            report = json.loads(row["report"])
            if "error" in report:
                raise CorpusError(report["error"])
            counts = Counts(**report.pop("counts"))
            advance(counts.images)
            yield Done(counts=counts, **report)


@contextmanager
def _started(ray: Any, job: Job, workers: int) -> Iterator[None]:
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors come as exceptions, too
    own = not ray.is_initialized()
    if own:
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if os.environ.get("RAY_ADDRESS"):
            settings["runtime_env"] = {"env_vars": {name: os.environ[name] for name in (*THREADS, BLOCKS)}}
        else:  # nodes that are started here inherit the environment
            settings |= {"include_dashboard": False, "num_cpus": max(os.cpu_count() or 1, workers * job.threads + 1)}
        try:
            ray.init(**settings)
        except Exception as error:  # Ray raises nearly anything where a node cannot be started or reached
            raise CorpusError(f"Ray cannot be started ({error}); check RAY_ADDRESS and the cluster") from error
    if main:
        signal.signal(signal.SIGTERM, handler)  # Ray sets its own, which exits with another code
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        if own:
            ray.shutdown()


class _Actor:
    """Write the shards whose numbers come in batches."""

    def __init__(self, job: Job) -> None:
        self.job, self.worker = job, None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"report": [self._report(int(number)) for number in batch["shard"]]}

    def _report(self, number: int) -> str:
        try:
            self.worker = self.worker or ShardWorker(self.job)
            done = self.worker.write(number, lambda images: None)
        except MoaiError as error:  # Ray would retry, and wrap the sentence into a traceback
            return json.dumps({"error": str(error)})
        return json.dumps({**vars(done), "counts": vars(done.counts)})
