"""Tag parts of a picture by a classifier: pictures in, named boxes out.

Knows: the steps. One pass over the whole picture says where a tag is likely; a second look at each such part, at two
scales, says whether it is so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from moai.errors import ExpertError
from moai.types import Box, Detection, Perception
from moai_tags.imagenet_expert import ImageNetExpert, ImageNetOptions, torch_threads
from moai_tags.names import BROAD, KINDS, detected_tags
from moai_tags.regions import WINDOW, Region, find_regions, places, union
from moai_tags.views import part_views, whole

CELL = 32  # pixels of the picture per cell of the features, in each of timm's classifiers of this kind
NEARLY = 0.75  # of the best tag's score: the most particular of the tags that are as likely as that is said


class TagRegions(ImageNetExpert):
    """Name parts of the picture with ImageNet's things or kinds of them, each name once, with a coarse box."""

    name = "tag-regions"
    role = "open_world"
    version = "1"
    memory = 300_000_000
    by_default = False  # on drawings it would say what looks like them, as detections that are counted

    class Options(ImageNetOptions):
        side: int = Field(384, ge=128, le=1024, multiple_of=CELL)
        """The shorter side of the picture in the first pass, in pixels."""
        max_parts: int = Field(6, ge=1, le=50)
        """At most so many parts are looked at again, the most likely."""
        coco: bool = False
        """Also name things that detectors of COCO's 80 kinds find, which have better boxes and count."""

    options: Options
    _detected: frozenset[str] | None = None  # tags that are left to detectors

    def load(self, device: str = "cpu") -> None:
        """Build the classifier.

        Raises:
            AssetError: weights that are not there, or are not the architecture's.
            ExpertError: an architecture that timm does not know, or that has no map of features.
        """
        super().load(device)
        features = self._features(np.zeros((128, 160, 3), dtype=np.float32))
        if features.ndim != 4 or features.shape[2:] != (128 // CELL, 160 // CELL):
            raise ExpertError(
                f"expert '{self.name}' needs a convolutional classifier with a feature per {CELL} pixels, and "
                f"{self.options.architecture} is none; name another one in the option architecture"
            )
        assert self._tags is not None
        self._detected = frozenset() if self.options.coco else detected_tags(self._tags)

    def unload(self) -> None:
        """Drop the classifier and its tags."""
        super().unload()
        self._detected = None

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Tag the parts of each picture on its own, so that they do not depend on other pictures."""
        return [self._tag(image) for image in images]

    def to_perception(self, named: Sequence[Region]) -> Perception:
        """Make one detection of each name, around all of its parts: a classifier cannot tell one thing from two."""
        boxes: dict[str, list[Box]] = {}
        scores: dict[str, float] = {}
        for region in named:
            boxes.setdefault(region.tag, []).append(region.reach)
            scores[region.tag] = max(scores.get(region.tag, 0.0), region.score)
        found = [
            Detection(tag, round(min(scores[tag], 1.0), 4), tuple(round(edge, 4) for edge in union(boxes[tag])))
            for tag in sorted(scores, key=lambda tag: -scores[tag])
        ]
        return Perception(detections=tuple(found))

    def name_part(self, likely: Sequence[Region], scores: Mapping[str, float]) -> Region | None:
        """Name one part of a picture.

        Args:
            likely: the tags that the first pass found there, the strongest first.
            scores: what the second look says of all tags.

        Returns:
            The part with its name; nothing where no tag is certain enough, or a detector's.
        """
        sure = [region.tag for region in likely if scores[region.tag] >= self.options.min_score]
        assert self._tags is not None and self._detected is not None, "load comes first"
        if not sure or self._detected.intersection(sure):
            return None
        sizes = {tag: len(self._tags[tag]) for tag in sure if not self._too_particular(tag, sure)}
        best = max(scores[tag] for tag in sizes)
        tag = min((tag for tag in sizes if scores[tag] >= NEARLY * best), key=lambda tag: sizes[tag])
        return replace(next(region for region in likely if region.tag == tag), score=float(scores[tag]))

    def _too_particular(self, tag: str, sure: Sequence[str]) -> bool:
        """Return whether a tag is of a kind that is as sure, and by which people call such a thing."""
        assert self._tags is not None
        kinds = [self._tags[kind] for kind in sure if kind in KINDS and kind not in BROAD]
        return any(set(self._tags[tag]) < set(classes) for classes in kinds)

    def _tag(self, image: Image.Image) -> Perception:
        pixels = whole(image, self.options.side, CELL, 3 * self.options.side)
        likely = places(find_regions(self.tag_scores(self._windows(self._features(pixels)))))
        likely = likely[: self.options.max_parts]
        side = self._model.pretrained_cfg["input_size"][1]
        named = []
        for place in likely:  # one by one: a batch of all takes more memory, and on a CPU as long
            scores = self.tag_scores(self.classify(part_views(image, place[0].box, side)).mean(0))
            named.append(self.name_part(place, {tag: float(score) for tag, score in scores.items()}))
        return self.to_perception([region for region in named if region is not None])

    def _features(self, pixels: np.ndarray) -> Any:
        """Return the ``(1, channels, rows, columns)`` features of ``(height, width, 3)`` pixels in [0, 1]."""
        import torch

        with torch_threads(self.options.threads), torch.inference_mode():
            return self._model.forward_features(self._batch(pixels[None]))

    def _windows(self, features: Any) -> np.ndarray:
        """Return the ``(rows, columns, 1000)`` probabilities of each window of the features, taken for a picture."""
        import torch

        with torch_threads(self.options.threads), torch.inference_mode():
            # (channels, rows, columns, WINDOW, WINDOW)
            windows = features[0].unfold(1, WINDOW, 1).unfold(2, WINDOW, 1)
            rows, columns = windows.shape[1:3]
            flat = windows.permute(1, 2, 0, 3, 4).flatten(0, 1)  # (rows * columns, channels, WINDOW, WINDOW)
            probabilities = self._model.forward_head(flat).float().softmax(-1)
            return probabilities.reshape(rows, columns, -1).cpu().numpy()
