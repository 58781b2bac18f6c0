"""Detect by OWLv2: open-world detection with a vocabulary of any size.

Knows: the parts of transformers' `Owlv2ForObjectDetection`. The names go through the text tower once for all pictures
and are kept on disk (`embeddings`); each picture then goes through the image tower and the heads alone. The picture
is padded to a square on the right and below, so boxes come back in units of its longer side.
"""

from __future__ import annotations

from typing import Any

from PIL import Image
from pydantic import Field

from moai.errors import ExpertError
from moai_transformers.boxes import Found
from moai_transformers.detector import Detector, DetectorOptions, found_in
from moai_transformers.embeddings import cached
from moai_transformers.loading import versioned

LABELS_PER_PASS = 64  # through the text tower
ROOM = 2  # times the model's input side: larger pictures are shrunk first


class OWLv2(Detector):
    """Detect anything that can be named, by OWLv2, the paper's open-world model."""

    name = "owlv2"
    version = versioned("1")
    model_types = ("owlv2",)
    model_class = "Owlv2ForObjectDetection"
    processor_class = "Owlv2Processor"
    licence = "Apache-2.0 (code and weights)"
    weights = "google/owlv2-base-patch16-ensemble (hub), or the option model"

    class Options(DetectorOptions):
        model: str = "google/owlv2-base-patch16-ensemble"
        """Hub id or local folder of an OWLv2 model; larger: google/owlv2-large-patch14-ensemble."""
        min_score: float = Field(0.5, ge=0, le=1)
        """Boxes with a lower score are left out; 0.5 is what MoAI uses, 0.1 is transformers' own."""
        template: str = Field("{}", pattern=r"^[^{}]*\{\}[^{}]*$")
        """What the text tower reads for each name, with {} in its place, e.g. "a photo of a {}"."""
        batch_size: int = Field(4, ge=1)
        """Pictures per pass through the model."""

    _queries: Any = None  # (N, D), normalised

    @property
    def together(self) -> int:
        """Return the option's number of pictures per pass: all become squares of one size."""
        return self.options.batch_size

    def load(self, device: str = "cpu") -> None:
        """Build the model and embed the vocabulary. Raises also ExpertError for a name longer than the text tower."""
        super().load(device)
        prompts = tuple(self.options.template.format(name) for name in self._names)
        self._check_lengths(prompts)
        parts = (self.weights_id(), self.version, self.options.dtype, prompts)
        self._queries = cached(parts, lambda: self._embed(prompts)).to(self._model.device, self._model.dtype)

    def unload(self) -> None:
        """Drop the model and the embedded vocabulary."""
        self._queries = None
        super().unload()

    def _check_lengths(self, prompts: tuple[str, ...]) -> None:
        most = self._model.config.text_config.max_position_embeddings
        encoded = self._processor.tokenizer(list(prompts), padding=False, truncation=False, verbose=False)["input_ids"]
        for name, prompt, ids in zip(self._names, prompts, encoded, strict=True):
            if len(ids) > most:
                raise ExpertError(
                    f"OWLv2 reads {most} tokens per name, and '{name}' (as '{prompt}') has {len(ids)}; shorten it"
                )

    def _embed(self, prompts: tuple[str, ...]) -> Any:
        """Embed the names: ``(N, D)`` float32, normalised as the model's own forward pass does it."""
        import torch

        most = self._model.config.text_config.max_position_embeddings
        parts = []
        with torch.inference_mode():
            for start in range(0, len(prompts), LABELS_PER_PASS):
                batch = list(prompts[start : start + LABELS_PER_PASS])
                inputs = self._processor.tokenizer(batch, padding="max_length", max_length=most, return_tensors="pt")
                inputs = self._send({key: inputs[key] for key in ("input_ids", "attention_mask")})
                features = self._model.owlv2.get_text_features(**inputs).pooler_output
                parts.append(features / torch.linalg.norm(features, ord=2, dim=-1, keepdim=True))
        return self._checked(torch.cat(parts)).cpu()

    def _detect(self, images: list[Image.Image]) -> list[Found]:
        from transformers.models.owlv2.modeling_owlv2 import Owlv2ObjectDetectionOutput

        side = ROOM * self._model.config.vision_config.image_size
        pixels = self._processor.image_processor(images=[_shrunk(i, side) for i in images], return_tensors="pt")
        grid = self._model.image_embedder(**self._send(pixels))[0]  # (B, h, w, D)
        patches = grid.flatten(1, 2)  # (B, h*w, D)
        queries = self._queries.expand(len(images), -1, -1)
        logits = self._checked(self._model.class_predictor(patches, queries)[0])
        boxes = self._checked(self._model.box_predictor(patches, grid))
        results = self._processor.post_process_grounded_object_detection(
            Owlv2ObjectDetectionOutput(logits=logits, pred_boxes=boxes),
            threshold=self.options.min_score,
            target_sizes=[(image.height, image.width) for image in images],
        )
        return [found_in(result, image) for result, image in zip(results, images, strict=True)]


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    """Shrink to at most ``side`` pixels; the processor's own blur takes minutes where it has to shrink a lot."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.resize(size, Image.Resampling.BILINEAR)
