"""Perceiving a corpus: the runner over the expert alone, and two workers over one, by processes and by Ray.

Knows: the runner's parts. The expert takes about 20 ms of one core per image and needs no engine, so that the runner
is measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measure import Row, Work, in_turns, ratio, spread
from PIL import Image

import moai
from moai import plugins
from moai.images import read_image
from moai.perception.corpus.expert_settings import expert_settings
from moai.perception.corpus.image_list import write_list
from moai.perception.corpus.inputs import read_images
from moai.perception.corpus.local_pool import run_local
from moai.perception.corpus.ray_pool import run_ray
from moai.perception.corpus.shard import shard_path
from moai.perception.corpus.worker import Job, ShardWorker
from moai.types import Detection, Perception

OVERHEAD, SPEEDUP = 1.05, 1.7
SECONDS = 0.02  # of the expert, per image
SIZE = (640, 480)
BATCH = 16  # images per call of an expert, as the perceiver gives them


class Steady(moai.Expert):
    """Finds two objects after a fixed number of hashes."""

    name, role, version = "steady", "open_world", "1"

    class Options(moai.Options):
        """The work per image."""

        rounds: int = 1000

    def perceive(self, images, context):
        """Hash for a while, on one core."""
        return [self._look(image) for image in images]

    def _look(self, image):
        hashlib.pbkdf2_hmac("sha256", image.tobytes()[:64], b"salt", self.options.rounds)
        boxes = ((0.1, 0.1, 0.4, 0.5), (0.5, 0.2, 0.9, 0.8))
        return Perception(detections=tuple(Detection(name, 0.5, box) for name, box in zip(("cup", "table"), boxes)))


@moai.hookimpl
def register_experts(register):
    """Register the expert; workers find it by the entry point that ``installed`` writes."""
    register(Steady)


def run(quick: bool, repeats: int) -> Iterator[Row]:
    """The overhead in one process, then the speed of two workers over one."""
    with tempfile.TemporaryDirectory() as folder, installed(Path(folder)), contextlib.chdir(folder):
        options = {"steady": {"rounds": _calibrated()}}
        _draw(Path("pictures"), 800)
        yield from _overhead(options, 128 if quick else 512, repeats)
        yield _speedup("local", options, 400 if quick else 800, 1 if quick else min(repeats, 3))
        if importlib.util.find_spec("ray") is not None:
            yield _speedup("ray", options, 800, 1 if quick else min(repeats, 3))
        else:
            print("  corpus: Ray is not installed, so it is not measured", file=sys.stderr)


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[None]:
    """Make the expert the only one that is installed, also in processes that are started meanwhile."""
    info = folder / "moai_steady-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moai-steady\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[moai]\nsteady = {Path(__file__).stem}\n")
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "MOAI_PLUGINS")}
    os.environ |= {"PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{folder}", "MOAI_PLUGINS": "steady"}
    sys.path.insert(0, str(folder))
    plugins.registry.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        plugins.registry.cache_clear()


def _calibrated() -> int:
    """Rounds of hashing that take as long as the expert should, by the fastest of a few tries."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        hashlib.pbkdf2_hmac("sha256", b"x" * 64, b"salt", 10_000)
        times.append(time.perf_counter() - started)
    return round(10_000 * SECONDS / min(times))


def _draw(folder: Path, count: int) -> None:
    """Save JPEG files of noise over a gradient, which take as long to read as photographs."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, SIZE[0], dtype=np.uint8)[None, :, None].repeat(SIZE[1], 0).repeat(3, 2)
    for number in range(count):
        noise = rng.integers(0, 55, (SIZE[1] // 8, SIZE[0] // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(ramp + noise).save(folder / f"{number:05d}.jpg", quality=90)


def _overhead(options: dict, count: int, repeats: int) -> Iterator[Row]:
    """One shard by a worker, over reading its images and calling the expert on them; both in this process."""
    worker, expert = ShardWorker(_job(Path("shard"), count, count, options)), Steady(**options["steady"])
    paths, used = [image.path for image in worker.list.images(0)], ([], [])

    def runner() -> None:
        shard_path(worker.job.folder, 0).unlink(missing_ok=True)
        worker.write(0, lambda images: None)

    def direct() -> None:
        for start in range(0, len(paths), BATCH):
            images = [read_image(path) for path in paths[start : start + BATCH]]
            expert.perceive(images, [Perception()] * len(images))

    def counted(work: Work, into: list[float]) -> Work:
        def run() -> None:
            started = time.process_time()
            work()
            into.append(time.process_time() - started)

        return run

    slow, fast = in_turns(counted(runner, used[0]), counted(direct, used[1]), repeats)
    for clock, over, under in (("", slow, fast), (", CPU time", used[0][1:], used[1][1:])):
        detail = {"runner": spread(over), "direct": spread(under), "images": count}
        yield Row(
            f"perceiving a shard over calling the expert{clock}", ratio(over, under), OVERHEAD, True, detail=detail
        )


def _speedup(engine: str, options: dict, count: int, repeats: int) -> Row:
    """Images per second of two workers over one, in turns, from when all work until one has nothing left."""
    rates: tuple[list[float], list[float]] = ([], [])
    alone: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats):
        for workers in (1, 2) if turn % 2 == 0 else (2, 1):
            job = _job(Path(f"{engine}-{workers}-{turn}"), count, 8, options)
            rates[workers - 1].append(_rate(engine, job, count // 8, workers))
            alone[workers - 1].append(_hashes(workers, options["steady"]["rounds"]))
    detail = {"one": spread(rates[0]), "two": spread(rates[1]), "load": os.getloadavg()[0]}
    name, machine = f"two workers over one, images per second, engine {engine}", ratio(alone[1], alone[0])
    return Row(name, ratio(rates[1], rates[0]), SPEEDUP, at_most=False, floor=machine, detail=detail)


def _hashes(processes: int, rounds: int) -> float:
    """The expert's work per second by bare processes: what the machine allows beside what else it does."""
    loop = f"for _ in range(100): hashlib.pbkdf2_hmac('sha256', b'x', b'salt', {rounds})"
    code = f"import hashlib, time\nstarted = time.perf_counter()\n{loop}\nprint(100 / (time.perf_counter() - started))"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(processes)]
    return sum(float(one.communicate()[0]) for one in running)


def _job(folder: Path, count: int, shard_size: int, options: dict) -> Job:
    """List the first images in a folder."""
    folder.mkdir()
    write_list(folder, read_images(Path("pictures")), shard_size, count)
    return Job(folder.absolute(), Path.cwd(), expert_settings(["steady"], options), options)


def _rate(engine: str, job: Job, shards: int, workers: int) -> float:
    """Images per second without the start of workers, which may take longer than all the images of a benchmark."""
    ends: list[float] = []
    owners: set[int] = set()
    for done in {"local": run_local, "ray": run_ray}[engine](job, range(shards), workers, lambda images: None):
        owners.add(done.worker)
        if len(owners) == workers:
            ends.append(time.perf_counter())
    if len(ends) < shards // 4:
        raise SystemExit(
            f"only {len(ends)} of {shards} shards were written while {workers} workers worked; run it again"
        )
    return 8 * (len(ends) - 1) / (ends[-1] - ends[0])
