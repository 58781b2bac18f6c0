"""What the model is given of each picture: its own perception, none, or another picture's.

Knows: pictures, the perceiver, and the derangement of ``moai.evaluation``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import islice

from PIL.Image import Image

from moai import Perceiver
from moai.errors import RecipeError, nearest
from moai.plugin_api import derange, image_key
from moai.types import Perception

log = logging.getLogger("moai")

PERCEPTIONS = ("on", "off", "shuffled")


class Sight:
    """Looks at pictures as one of ``PERCEPTIONS`` says. ``shuffled`` needs to ``survey`` all pictures first."""

    def __init__(self, perceiver: Perceiver, perception: str = "on", seed: int = 0) -> None:
        """Nothing is looked at yet.

        Raises:
            RecipeError: neither on, off nor shuffled.
        """
        if perception not in PERCEPTIONS:
            reason = f"there is no perception '{perception}' here{nearest(perception, PERCEPTIONS)}"
            if perception == "oracle":
                reason = "perception 'oracle' needs ground truth, and benchmarks of a harness have none; use on or off"
            raise RecipeError(reason)
        self.perceiver, self.perception, self.seed = perceiver, perception, seed
        self._seen: dict[str, Perception] = {}
        self._donors: dict[str, str] = {}
        self._failed: set[tuple[str, str]] = set()

    @property
    def needs_survey(self) -> bool:
        """Whether ``survey`` has to be called with all pictures before the first look."""
        return self.perception == "shuffled"

    def survey(self, pictures: Iterable[Image]) -> None:
        """Look at all pictures of a benchmark and give each another one's perception.

        Raises:
            MoaiError: fewer than two different pictures.
        """
        self._seen = {}
        for group in _batches(pictures, self.perceiver.batch_size):
            new = {image_key(picture): picture for picture in group}
            new = {key: picture for key, picture in new.items() if key not in self._seen}
            self._seen.update(zip(new, self._look(list(new.values())), strict=True))
        self._donors = derange(self._seen, self.seed)

    def __call__(self, pictures: Sequence[Image]) -> list[Perception | None]:
        """One perception per picture, or None."""
        if self.perception == "off" or not self.perceiver.experts:
            return [None] * len(pictures)
        if self.perception == "on":
            return self._look(pictures)
        return [self._seen[self._donors[image_key(picture)]] for picture in pictures]

    def _look(self, pictures: Sequence[Image]) -> list[Perception]:
        found = self.perceiver.perceive(pictures)
        for failure in (failure for perception in found for failure in perception.failures):
            if (failure.expert, failure.reason) not in self._failed:
                self._failed.add((failure.expert, failure.reason))
                log.warning("expert '%s' gave nothing for a picture: %s", failure.expert, failure.reason)
        return found


def _batches(pictures: Iterable[Image], size: int) -> Iterable[list[Image]]:
    rest = iter(pictures)
    while group := list(islice(rest, size)):
        yield group
