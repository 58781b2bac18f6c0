"""Mix sources by weight, as a pure function of seed and epoch.

Knows: numbers of samples. No sample is read: the mixture is a list of indices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moai.data.samples import Concatenated, Samples, Selected
from moai.errors import RecipeError


def mix(parts: Sequence[Samples], weights: Sequence[float | None], seed: int = 0, epoch: int = 0) -> Selected:
    """Return one epoch of a mixture, as long as all sources together.

    A source gives its share of the epoch, by largest remainder. One that is larger gives a part of its samples, another
    one every epoch; one that is smaller repeats all of them before any a further time.

    Args:
        parts: samples of each source.
        weights: of each, in any unit; all or none.
        seed, epoch: decide which samples are drawn, and nothing else does.

    Raises:
        RecipeError: some sources have a weight and others have none, or all weights are 0.
    """
    if any(weight is None for weight in weights):
        raise RecipeError("some of data.sources have a weight and others have none; give each a weight, or none")
    given = np.array(weights, dtype=float)
    if not given.sum() > 0:
        raise RecipeError("all weights of data.sources are 0; give one a weight above 0")
    sizes = [len(part) for part in parts]
    counts = shares(given, sum(sizes))
    starts = np.cumsum([0, *sizes[:-1]])
    drawn = [start + _draw(size, count, [seed, epoch, n]) for n, (start, size, count) in enumerate(
        zip(starts, sizes, counts, strict=True))]  # fmt: skip
    return Selected(Concatenated(parts), np.concatenate(drawn))


def shares(weights: np.ndarray, total: int) -> np.ndarray:
    """Split ``total`` by weights, ``(N,)``: whole numbers that add up to it, by largest remainder."""
    exact = weights / weights.sum() * total
    counts = np.floor(exact).astype(np.int64)
    order = np.argsort(counts - exact, kind="stable")  # the largest remainder first
    counts[order[: total - counts.sum()]] += 1
    return counts


def _draw(size: int, count: int, key: list[int]) -> np.ndarray:
    """Draw ``count`` of ``size`` indices: whole permutations, and a part of one more."""
    random = np.random.default_rng(key)
    rounds = -(-int(count) // size)
    order = [random.permutation(size) for _ in range(rounds)]
    return np.concatenate([*order, np.empty(0, np.int64)])[:count].astype(np.int64)
