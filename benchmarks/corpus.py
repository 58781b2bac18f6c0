"""Perceiving a corpus: the runner over the expert alone, and two workers over one, by processes and by Ray.

Knows: the runner's parts. The expert takes about 20 ms of one core per image and needs no engine: the runner is what is
measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measure import Row, in_turns, ratio, spread
from PIL import Image

import moai
from moai import plugins
from moai.images import read_image
from moai.perception.corpus.arrow import GROUP
from moai.perception.corpus.expert_settings import expert_settings
from moai.perception.corpus.image_list import write_list
from moai.perception.corpus.inputs import read_images
from moai.perception.corpus.run import Workers, perceive_corpus
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


def run(quick: bool, repeats: int) -> list[Row]:
    """The overhead in one process, then the speed of two workers over one."""
    with tempfile.TemporaryDirectory() as folder, installed(Path(folder)), contextlib.chdir(folder):
        options = {"steady": {"rounds": _calibrated()}}
        _draw(Path("pictures"), 64 if quick else 400)
        rows = [_overhead(options, repeats)]
        rows.append(_speedup("local", options, 16, repeats))
        if importlib.util.find_spec("ray") is not None:
            rows.append(_speedup("ray", options, 16, repeats))
        else:
            print("  corpus: Ray is not installed, so it is not measured", file=sys.stderr)
        return rows


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
    """Save photographs' like: JPEG files of noise over a gradient."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, SIZE[0], dtype=np.uint8)[None, :, None].repeat(SIZE[1], 0).repeat(3, 2)
    for number in range(count):
        noise = rng.integers(0, 55, (SIZE[1] // 8, SIZE[0] // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(ramp + noise).save(folder / f"{number:05d}.jpg", quality=90)


def _overhead(options: dict, repeats: int) -> Row:
    """One shard by a worker, over reading its images and calling the expert on them; both in this process."""
    paths = [path for _, _, path in read_images(Path("pictures"))][: 2 * GROUP]
    Path("one").mkdir()
    write_list(Path("one"), (("pictures", path, path) for path in paths), len(paths))
    settings = expert_settings(["steady"], options)
    worker, expert = ShardWorker(Job(Path("one"), Path.cwd(), settings, options)), Steady(**options["steady"])

    def runner() -> None:
        shard_path(Path("one"), 0).unlink(missing_ok=True)
        worker.write(0, lambda images: None)

    def direct() -> None:
        for start in range(0, len(paths), BATCH):
            images = [read_image(path) for path in paths[start : start + BATCH]]
            expert.perceive(images, [Perception()] * len(images))

    slow, fast = in_turns(runner, direct, max(repeats, 5))
    detail = {"runner": spread(slow), "direct": spread(fast), "images": len(paths)}
    return Row("perceiving a shard over calling the expert", ratio(slow, fast), OVERHEAD, at_most=True, detail=detail)


def _speedup(engine: str, options: dict, shard_size: int, repeats: int) -> Row:
    """Images per second of two workers over one, in turns, from the first shard to the last."""
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(min(repeats, 3)):
        for count in (1, 2) if turn % 2 == 0 else (2, 1):
            rates[count - 1].append(_rate(engine, options, shard_size, count, f"{engine}-{count}-{turn}"))
    detail = {"one": spread(rates[0]), "two": spread(rates[1]), "load": os.getloadavg()[0]}
    name = f"two workers over one, images per second, engine {engine}"
    return Row(name, ratio(rates[1], rates[0]), SPEEDUP, at_most=False, detail=detail)


def _rate(engine: str, options: dict, shard_size: int, workers: int, out: str) -> float:
    """Images per second without the start: what is done when the first shard is done is not counted."""
    seen: list[tuple[float, int]] = []

    @contextlib.contextmanager
    def report(images: int, done: int) -> Iterator:
        yield lambda count: seen.append((time.perf_counter(), count))

    images, given = read_images(Path("pictures")), Workers(engine, workers)  # type: ignore[arg-type]
    perceive_corpus(images, out, ["steady"], options=options, shard_size=shard_size, workers=given, report=report)
    return sum(count for _, count in seen[1:]) / (seen[-1][0] - seen[0][0])
