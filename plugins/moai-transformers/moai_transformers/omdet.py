"""Detect by OmDet-Turbo: an open-world detector made for speed.

Knows: how transformers runs it. The names' embeddings are kept in the model's own cache, which is made large enough
for the whole vocabulary. The engine suppresses overlapping boxes itself and clips them.
"""

from __future__ import annotations

from typing import Any

from PIL import Image
from pydantic import Field

from moai_transformers.boxes import Found
from moai_transformers.detector import Detector, DetectorOptions, found_in
from moai_transformers.loading import versioned

LABELS_PER_PASS = 64  # through the text tower


class OmDetTurbo(Detector):
    """Detect by OmDet-Turbo."""

    name = "omdet-turbo"
    version = versioned("1")
    model_types = ("omdet-turbo",)
    model_class = "OmDetTurboForObjectDetection"
    processor_class = "OmDetTurboProcessor"
    licence = "Apache-2.0 (code; the weights are published under the same licence, which their page should confirm)"
    weights = "omlab/omdet-turbo-swin-tiny-hf (hub), or the option model"

    class Options(DetectorOptions):
        model: str = "omlab/omdet-turbo-swin-tiny-hf"
        """Hub id or local folder of an OmDet-Turbo model."""
        min_score: float = Field(0.3, ge=0, le=1)
        """Boxes with a lower score are left out; 0.3 is transformers' own."""
        task: str = ""
        """What the model is told to do; empty for "Detect a, b, c.", which the engine cuts off at 77 tokens."""

    _texts: tuple[list[str], str] = ([], "")

    def load(self, device: str = "cpu") -> None:
        """Build the model and put the vocabulary through its text tower."""
        import torch

        super().load(device)
        names = list(self._names)
        self._texts = (names, self.options.task or f"Detect {', '.join(names)}.")
        cache = self._model.language_cache_class
        cache.capacity = max(cache.capacity, len(names))
        with torch.inference_mode():
            for start in range(0, len(names), LABELS_PER_PASS):
                ids = self._tokens(names[start : start + LABELS_PER_PASS])
                self._model.get_cached_class_embeddings(ids["input_ids"], ids["attention_mask"])

    def _tokens(self, texts: list[str]) -> dict[str, Any]:
        settings = {**self._processor.text_kwargs, "return_tensors": "pt"}
        return self._send(self._processor.tokenizer(text=texts, **settings))

    def _detect(self, images: list[Image.Image]) -> list[Found]:
        names, task = self._texts
        text = {"text": [names], "task": [task], "text_kwargs": {"return_tensors": "pt"}}
        inputs = self._processor(images=images, images_kwargs={"return_tensors": "pt"}, **text)
        outputs = self._model(**self._send({k: v for k, v in inputs.items() if k != "pixel_mask"}))
        outputs.decoder_coord_logits = self._checked(outputs.decoder_coord_logits)
        outputs.decoder_class_logits = self._checked(outputs.decoder_class_logits)
        results = self._processor.post_process_grounded_object_detection(
            outputs,
            threshold=self.options.min_score,
            nms_threshold=self.options.nms,
            target_sizes=[(image.height, image.width) for image in images],
        )
        return [found_in(result, image) for result, image in zip(results, images, strict=True)]
