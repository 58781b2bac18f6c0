"""Detect by the Grounding-DINO family: Grounding DINO, MM-Grounding-DINO and LLMDet.

Knows: how transformers runs them. All names are read together with the picture, so a vocabulary that does not fit one
text is looked for in several passes. A pass's names attend to each other through the picture: scores of a name depend a
little on the names beside it, and splitting a vocabulary is not exactly the same as reading it at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from moai_transformers.boxes import Found, join
from moai_transformers.chunking import chunks, name_scores, text_of, token_labels, written
from moai_transformers.detector import Detector, DetectorOptions
from moai_transformers.loading import versioned


class GroundingOptions(DetectorOptions):
    """Hold the options of the family."""

    names_per_pass: int = Field(80, ge=1)
    """Names in one text, at most; fewer than the model's 256 tokens hold may be more accurate, and is slower."""


class Grounding(Detector):
    """Detect by text chunks; the base of the three."""

    model_class = "AutoModelForZeroShotObjectDetection"
    processor_class = "GroundingDinoProcessor"
    licence = "Apache-2.0 (code and weights)"

    _passes: tuple[tuple[Any, np.ndarray, list[int]], ...] = ()  # text inputs, name of each token, names' indices

    def load(self, device: str = "cpu") -> None:
        """Build the model. Raises also ExpertError for a name that does not fit the text on its own."""
        super().load(device)
        tokenizer = self._processor.tokenizer
        names = [written(name) for name in self._names]

        def count(name: str) -> int:
            return len(tokenizer(name, add_special_tokens=False)["input_ids"])

        groups = chunks(names, count, self._model.config.max_text_len, self.options.names_per_pass)
        self._passes = tuple(self._read([names[index] for index in group], group) for group in groups)

    def unload(self) -> None:
        """Drop the model and the texts."""
        self._passes = ()
        super().unload()

    def _read(self, names: list[str], group: list[int]) -> tuple[Any, np.ndarray, list[int]]:
        tokenizer = self._processor.tokenizer
        inputs = tokenizer(text_of(names), return_token_type_ids=True, return_tensors="pt")
        separator = tokenizer.convert_tokens_to_ids(".")
        return inputs, token_labels(inputs["input_ids"][0].tolist(), separator, len(names)), group

    def _detect(self, images: list[Image.Image]) -> list[Found]:
        pixels = self._send(self._processor.image_processor(images=images, return_tensors="pt"))
        return [join([self._pass(pixels, *one) for one in self._passes])]

    def _pass(self, pixels: dict[str, Any], text: Any, labels: np.ndarray, group: list[int]) -> Found:
        outputs = self._model(**pixels, **self._send(text))
        boxes = self._checked(outputs.pred_boxes[0]).cpu().numpy()
        tokens = self._checked(outputs.logits[0]).sigmoid().cpu().numpy()
        scores = name_scores(tokens, labels, len(group))
        best = scores.argmax(axis=1)
        found = Found(corners(boxes), scores.max(axis=1), np.asarray(group, dtype=np.int64)[best])
        return found.rows(found.scores > self.options.min_score)


class LLMDet(Grounding):
    """Detect by LLMDet, MM-Grounding-DINO trained with captions: the most accurate of the family."""

    name = "llmdet"
    version = versioned("1")
    model_types = ("mm-grounding-dino",)
    weights = "iSEE-Laboratory/llmdet_tiny (hub), or the option model"

    class Options(GroundingOptions):
        model: str = "iSEE-Laboratory/llmdet_tiny"
        """Hub id or local folder; larger: iSEE-Laboratory/llmdet_base and llmdet_large."""


class MMGroundingDino(Grounding):
    """Detect by MM-Grounding-DINO."""

    name = "mm-grounding-dino"
    version = versioned("1")
    model_types = ("mm-grounding-dino",)
    weights = "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_grit_v3det (hub), or the option model"

    class Options(GroundingOptions):
        model: str = "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_grit_v3det"
        """Hub id or local folder of an MM-Grounding-DINO model."""


class GroundingDino(Grounding):
    """Detect by the first Grounding DINO."""

    name = "grounding-dino"
    version = versioned("1")
    model_types = ("grounding-dino",)
    weights = "IDEA-Research/grounding-dino-tiny (hub), or the option model"

    class Options(GroundingOptions):
        model: str = "IDEA-Research/grounding-dino-tiny"
        """Hub id or local folder of a Grounding DINO model."""


def corners(boxes: np.ndarray) -> np.ndarray:
    """Convert ``(N, 4)`` (centre x, centre y, width, height) to (x0, y0, x1, y1)."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)
