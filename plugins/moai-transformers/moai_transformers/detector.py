"""Detect a vocabulary's names: the options and the conversion that the open-world detectors share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from moai.types import Perception
from moai_transformers.boxes import Found, detections, suppress
from moai_transformers.loading import ModelOptions, TransformersExpert, presentable
from moai_transformers.vocabulary import Vocabulary, names_of, vocabulary_id


class DetectorOptions(ModelOptions):
    """Hold the options of every detector."""

    vocabulary: Vocabulary = "coco"
    """What is detected: a list of names, the path of a text file with one name per line, or "coco" (80 names)."""
    min_score: float = Field(0.25, ge=0, le=1)
    """Boxes with a lower score are left out."""
    nms: float = Field(0.5, ge=0, le=1)
    """Of two boxes of a label that overlap more than this (IoU) the one with the lower score is left out."""
    across_labels: bool = False
    """Suppress also between labels: for a vocabulary with synonyms, which name one object several times."""
    max_detections: int = Field(100, ge=1)
    """At most this many per picture, the best first."""


class Detector(TransformersExpert):
    """Detect names: `_detect` of a subclass gives findings above `min_score`, in units of the picture."""

    role = "open_world"
    Options = DetectorOptions
    together: int = 1  # pictures per pass: padding or joining changes the results of most of these engines a little

    _names: tuple[str, ...] = ()

    def weights_id(self) -> str:
        """Identify the weights and the content of a vocabulary file."""
        return f"{super().weights_id()} {vocabulary_id(self.options.vocabulary)}".strip()

    def load(self, device: str = "cpu") -> None:
        """Build the model. Raises also ExpertError when there is something wrong with the vocabulary."""
        names = names_of(self.options.vocabulary)
        super().load(device)
        self._names = names

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Detect the vocabulary's names in each picture."""
        import torch

        perceived: list[Perception] = []
        with torch.inference_mode():
            for start in range(0, len(images), self.together):
                batch = [presentable(image) for image in images[start : start + self.together]]
                for found in self._detect(batch):
                    kept = suppress(found, self.options.nms, self.options.across_labels)
                    perceived.append(self.to_perception(kept, self._names))
        return perceived

    def to_perception(self, raw: Found, names: Sequence[str]) -> Perception:
        """Convert findings after suppression to detections; ``raw.labels`` index ``names``. A pure function."""
        return Perception(detections=detections(raw, names, self.options.max_detections))

    def _detect(self, images: list[Image.Image]) -> list[Found]:
        raise NotImplementedError


def found_in(result: dict[str, Any], image: Image.Image) -> Found:
    """Convert transformers' ``{"boxes", "scores", "labels"}`` in pixels of ``image`` to findings."""
    sides = np.array([image.width, image.height] * 2, dtype=np.float32)
    boxes, scores, labels = (result[key].float().cpu().numpy() for key in ("boxes", "scores", "labels"))
    return Found(boxes.reshape(-1, 4) / sides, scores, labels.astype(np.int64))
