"""Expert dropout: which training samples lose which expert, so that a model has met perceptions with one missing.

Knows: names and numbers. Every draw is a function of (seed, step, row), so a resumed run repeats them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence


class ExpertDropout:
    """Draws the expert that a row of a batch does without.

    Args:
        seed: of every draw.
        share: of the rows that lose one expert, each expert equally likely.
        experts: their names; without any, nothing is lost.
    """

    def __init__(self, seed: int, share: float, experts: Sequence[str]) -> None:
        self.seed, self.share, self.experts = seed, share, tuple(experts)

    def lost(self, step: int, rows: int) -> list[str | None]:
        """For each row of the batch of ``step`` the expert it loses, or None."""
        if not self.share or not self.experts:
            return [None] * rows
        return [self._draw(step, row) for row in range(rows)]

    def needed(self, batches: Sequence[Sequence[int]]) -> dict[str, list[int]]:
        """Expert -> samples that lose it in any step, in their order: what has to be perceived without it."""
        found: dict[str, set[int]] = {expert: set() for expert in self.experts}
        for step, indices in enumerate(batches):
            for index, expert in zip(indices, self.lost(step, len(indices)), strict=True):
                if expert is not None:
                    found[expert].add(index)
        return {expert: sorted(indices) for expert, indices in found.items() if indices}

    def _draw(self, step: int, row: int) -> str | None:
        rng = random.Random(f"{self.seed}/{step}/{row}/expert")
        return rng.choice(self.experts) if rng.random() < self.share else None
