"""Measure what an expert costs on pictures of yours: seconds to load, seconds a picture, and the memory of the process.

    OMP_NUM_THREADS=1 python benchmarks/expert_cost.py ssd-coco garden.jpg street.jpg

Knows: one expert by name, called without the cache, with one thread where its options name threads. The first round
warms up; of five more the median counts for each picture.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

from moai.images import read_image
from moai.plugins import registry
from moai.types import Perception

ROUNDS = 5


def main() -> None:
    """Measure one expert on the pictures that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("expert", help="its name, as moai experts lists it")
    parser.add_argument("images", nargs="+", help="picture files")
    given = parser.parse_args()
    expert = registry().get_expert(given.expert)()
    pictures = {path: read_image(path) for path in given.images}
    before, start = peak(), time.perf_counter()
    expert.load()
    print(f"{given.expert}: loaded in {time.perf_counter() - start:.2f} s")
    for path, picture in pictures.items():
        seconds = [timed(expert, picture) for _ in range(ROUNDS + 1)][1:]
        print(f"{statistics.median(seconds):.3f} s  {picture.width} x {picture.height}  {path}")
    print(f"peak memory {peak()} MB, of which {before} MB before loading")


def timed(expert, picture) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    expert.perceive([picture.copy()], [Perception()])
    return time.perf_counter() - start


def peak() -> int:
    """Return the most memory that this process has had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


if __name__ == "__main__":
    main()
