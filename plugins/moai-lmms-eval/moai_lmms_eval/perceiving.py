"""Perceive a benchmark's images: each image's own perception, none, or another image's.

Knows: images, the perceiver, and the derangement of ``moai.evaluation``.
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


class PerceptionSource:
    """Give each image a perception, as one of ``PERCEPTIONS``. ``shuffled`` has to ``prepare`` all images first.

    Args:
        perceiver: the experts.
        perception: ``"on"``, ``"off"``, or ``"shuffled"``, each image with another one's perception.
        seed: of the shuffling.

    Raises:
        RecipeError: neither on, off nor shuffled.
    """

    def __init__(self, perceiver: Perceiver, perception: str = "on", seed: int = 0) -> None:
        if perception not in PERCEPTIONS:
            reason = f"there is no perception '{perception}' here{nearest(perception, PERCEPTIONS)}"
            if perception == "oracle":
                reason = "perception 'oracle' needs ground truth, and benchmarks of a harness have none; use on or off"
            raise RecipeError(reason)
        self.perceiver, self.perception, self.seed = perceiver, perception, seed
        self._perceptions: dict[str, Perception] = {}
        self._donors: dict[str, str] = {}
        self._failed: set[tuple[str, str]] = set()

    @property
    def needs_all_images(self) -> bool:
        """Return whether ``prepare`` has to be called with all images before ``perceive``."""
        return self.perception == "shuffled"

    def prepare(self, images: Iterable[Image]) -> None:
        """Perceive all images of a benchmark and give each another one's perception.

        Raises:
            MoaiError: fewer than two different images.
        """
        self._perceptions = {}
        for group in _batches(images, self.perceiver.batch_size):
            new = {image_key(image): image for image in group}
            new = {key: image for key, image in new.items() if key not in self._perceptions}
            self._perceptions.update(zip(new, self._perceive(list(new.values())), strict=True))
        self._donors = derange(self._perceptions, self.seed)

    def perceive(self, images: Sequence[Image]) -> list[Perception | None]:
        """Return one perception per image, or None for each."""
        if self.perception == "off" or not self.perceiver.experts:
            return [None] * len(images)
        if self.perception == "on":
            return self._perceive(images)
        return [self._perceptions[self._donors[image_key(image)]] for image in images]

    def _perceive(self, images: Sequence[Image]) -> list[Perception]:
        found = self.perceiver.perceive(images)
        for failure in (failure for perception in found for failure in perception.failures):
            if (failure.expert, failure.reason) not in self._failed:
                self._failed.add((failure.expert, failure.reason))
                log.warning("expert '%s' gave nothing for an image: %s", failure.expert, failure.reason)
        return found


def _batches(images: Iterable[Image], size: int) -> Iterable[list[Image]]:
    rest = iter(images)
    while group := list(islice(rest, size)):
        yield group
