"""Segment panoptically by EoMT and Mask2Former.

Knows: how the two are called and post-processed in transformers. Numbering, void and fusing are in `fusing`.
Masks are made at a limited resolution (`mask_side`): the engines enlarge the masks of all queries to the size asked
for, which for a photograph from a camera would be gigabytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from moai.types import Perception
from moai_transformers.classes import Classes, classes_of
from moai_transformers.fusing import fuse, regions, segment
from moai_transformers.loading import ModelOptions, TransformersExpert, presentable, versioned


class PanopticOptions(ModelOptions):
    """Hold the options of both engines."""

    min_score: float = Field(0.5, ge=0, le=1)
    """Segments with a lower class score are left out."""
    mask_threshold: float = Field(0.5, ge=0, le=1)
    """Probability from which a pixel counts as part of a mask."""
    overlap: float = Field(0.8, ge=0, le=1)
    """A mask is dropped when other masks leave it less than this share of its area."""
    things: tuple[str, ...] | None = None
    """Names of the classes that can be counted; null where the model has COCO's 133. The rest is fused."""
    mask_side: int = Field(640, ge=16)
    """Pixels along the longer side of the masks, at most."""
    batch_size: int = Field(4, ge=1)
    """Pictures per pass through the model."""


class Panoptic(TransformersExpert):
    """Convert the engine's maps of pictures to segments; the base of the two."""

    role = "panoptic"
    model_class = "AutoModelForUniversalSegmentation"

    _classes: Classes | None = None

    def load(self, device: str = "cpu") -> None:
        """Build the model. Raises also ExpertError when it is not known which classes can be counted."""
        super().load(device)
        self._classes = classes_of(self._model.config.id2label, self.options.things, self.name)

    def unload(self) -> None:
        """Drop the model and its classes."""
        self._classes = None
        super().unload()

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Perceive the pictures in batches of those that the processor makes equally large.

        None is padded to another's size: transformers would stretch Mask2Former's padding over the picture.
        """
        shown = [presentable(image) for image in images]
        encoded = [self._processor(images=[image], return_tensors="pt")["pixel_values"] for image in shown]
        found: dict[int, Perception] = {}
        for batch in _equal_shapes([pixels.shape for pixels in encoded], self.options.batch_size):
            sizes = [_limited(shown[i].size, self.options.mask_side) for i in batch]
            for i, raw in zip(batch, self._segment([encoded[i] for i in batch], sizes), strict=True):
                found[i] = self.to_perception(raw, self._classes)
        return [found[i] for i in range(len(images))]

    def to_perception(self, raw: Mapping[str, Any], classes: Classes) -> Perception:
        """Convert ``{"segmentation": (H, W), "segments_info": [...]}``, made without fusing; a pure function."""
        found = fuse(regions(np.asarray(raw["segmentation"]), raw["segments_info"]), classes.stuff)
        return Perception(segments=tuple(segment(region, classes.names, classes.stuff) for region in found))

    def _segment(self, pixels: list[Any], sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
        """Run one pass: raw results at ``sizes`` (height, width)."""
        import torch

        with torch.inference_mode():
            outputs = self._model(**self._send({"pixel_values": torch.cat(pixels)}))
            outputs.class_queries_logits = self._checked(outputs.class_queries_logits)
            outputs.masks_queries_logits = self._checked(outputs.masks_queries_logits)
            results = self._post_process(outputs, sizes)
        return [{**result, "segmentation": result["segmentation"].cpu().numpy()} for result in results]

    def _post_process(self, outputs: Any, sizes: list[tuple[int, int]]) -> list[dict]:
        raise NotImplementedError

    def _thresholds(self) -> dict[str, float]:
        options = self.options
        return {
            "threshold": options.min_score,
            "mask_threshold": options.mask_threshold,
            "overlap_mask_area_threshold": options.overlap,
        }


class EoMT(Panoptic):
    """Segment by EoMT, an encoder-only mask transformer; weights free to use."""

    name = "eomt"
    version = versioned("1")
    model_types = ("eomt", "eomt_dinov3")
    processor_class = "EomtImageProcessor"
    licence = "MIT (EoMT's weights on DINOv2); models on DINOv3 are under Meta's DINOv3 licence"
    weights = "tue-mps/coco_panoptic_eomt_base_640_2x (hub), or the option model"

    class Options(PanopticOptions):
        model: str = "tue-mps/coco_panoptic_eomt_base_640_2x"
        """Hub id or local folder of an EoMT panoptic model; larger: tue-mps/coco_panoptic_eomt_large_640."""
        min_score: float = Field(0.8, ge=0, le=1)
        """Segments with a lower class score are left out; 0.8 is EoMT's own."""

    def _post_process(self, outputs: Any, sizes: list[tuple[int, int]]) -> list[dict]:
        return self._processor.post_process_panoptic_segmentation(outputs, target_sizes=sizes, **self._thresholds())


class Mask2Former(Panoptic):
    """Segment by Mask2Former, the paper's panoptic model; its published weights are not for commercial use."""

    name = "mask2former"
    version = versioned("1")
    model_types = ("mask2former",)
    processor_class = "Mask2FormerImageProcessor"
    licence = "MIT (code); weights CC-BY-NC-4.0: no commercial use"
    weights = "facebook/mask2former-swin-base-coco-panoptic (hub), or the option model"

    class Options(PanopticOptions):
        model: str = "facebook/mask2former-swin-base-coco-panoptic"
        """Hub id or local folder of a Mask2Former panoptic model."""
        mask_threshold: float = Field(0.95, ge=0, le=1)
        """Probability from which a pixel counts as part of a mask, after transformers has multiplied it with the class
        score: a segment with a lower score is dropped. 0.95 is what MoAI uses."""

    def _post_process(self, outputs: Any, sizes: list[tuple[int, int]]) -> list[dict]:
        return self._processor.post_process_panoptic_segmentation(
            outputs, target_sizes=sizes, label_ids_to_fuse=set(), **self._thresholds()
        )


def _equal_shapes(shapes: Sequence[tuple[int, ...]], most: int) -> list[list[int]]:
    """Group indices of the same shape, at most ``most`` in a group."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, shape in enumerate(shapes):
        groups.setdefault(tuple(shape), []).append(index)
    return [group[start : start + most] for group in groups.values() for start in range(0, len(group), most)]


def _limited(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Limit the masks' (height, width) of a picture of (width, height) to ``longest`` on either side, at least one."""
    scale = min(1.0, longest / max(size))
    return max(round(size[1] * scale), 1), max(round(size[0] * scale), 1)
