"""Mix sources by weight, as a pure function of seed and epoch.

Knows: numbers of samples. No sample is read: an epoch is an array of indices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moai.data.samples import Concatenated, Samples
from moai.errors import RecipeError


class Mixture(Concatenated):
    """Join the samples of several sources, of which each epoch is a mixture by weight.

    As a sequence it has every sample once; :meth:`epoch_rows` says which an epoch has, as many as all together. A
    source gives its share of the epoch, by largest remainder. One that is larger gives a part of its samples, another
    one every epoch; one that is smaller repeats all of them before any a further time.

    Args:
        parts: samples of each source.
        weights: of each, in any unit; all or none.
        seed: decides, with the epoch, which samples are drawn, and nothing else does.

    Raises:
        RecipeError: some sources have a weight and others have none, or all weights are 0.
    """

    def __init__(self, parts: Sequence[Samples], weights: Sequence[float | None], seed: int = 0) -> None:
        super().__init__(parts)
        if any(weight is None for weight in weights):
            raise RecipeError("some of data.sources have a weight and others have none; give each a weight, or none")
        given = np.array(weights, dtype=float)
        if not given.sum() > 0:
            raise RecipeError("all weights of data.sources are 0; give one a weight above 0")
        self.sizes, self.seed = [len(part) for part in parts], seed
        self.counts = shares(given, sum(self.sizes))

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Draw the samples of an epoch, as indices ``(N,)`` int64, source by source."""
        starts = np.cumsum([0, *self.sizes[:-1]])
        drawn = [
            start + _draw(size, count, [self.seed, epoch, number])
            for number, (start, size, count) in enumerate(zip(starts, self.sizes, self.counts, strict=True))
        ]
        return np.concatenate(drawn)


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
