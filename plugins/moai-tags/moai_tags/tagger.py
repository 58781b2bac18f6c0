"""Tag the whole picture by a classifier: pictures in, names out.

Knows: the steps from a picture to its tags.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from pydantic import Field

from moai.types import Perception
from moai_tags.imagenet_expert import ImageNetExpert, ImageNetOptions
from moai_tags.views import views
from moai_tags.words import ROLE


class Tags(ImageNetExpert):
    """Name what the whole picture shows: up to three of ImageNet's things, or kinds of them, the most certain first."""

    name = "tags"
    role = ROLE
    version = "1"

    class Options(ImageNetOptions):
        max_tags: int = Field(3, ge=1, le=50)
        """At most so many tags per picture."""

    options: Options

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Tag each picture on its own, so that its tags do not depend on others."""
        return [self.to_perception(self._probabilities(image)) for image in images]

    def to_perception(self, probabilities: np.ndarray) -> Perception:
        """Convert the 1,000 probabilities of a picture to its tags; a pure function.

        A tag's probability is the sum over its classes. Kinds come before their classes where both are as certain.
        """
        scores = self.tag_scores(probabilities)
        best = sorted((tag for tag in scores if scores[tag] >= self.options.min_score), key=lambda tag: -scores[tag])
        chosen = tuple(best[: self.options.max_tags])
        return Perception(notes={self.role: chosen} if chosen else {})

    def _probabilities(self, image: Image.Image) -> np.ndarray:
        given = self._model.pretrained_cfg
        return self.classify(views(image, given["input_size"][1], given["crop_pct"])).mean(0)
