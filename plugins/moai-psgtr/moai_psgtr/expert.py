"""Perceive scene graphs by PSGTR: relations between objects with boxes, and with masks when asked.

Knows: pictures and perceptions. The network is in `network`, its weights in `checkpoint`, what its scores mean in
`triplets`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

import moai
from moai.errors import ExpertError
from moai.plugin_api import identify
from moai.types import Box, Mask, Perception, Relation, Segment
from moai_psgtr.checkpoint import PUBLISHED, SHA256, build, locate
from moai_psgtr.names import CLASSES, PREDICATES, is_thing
from moai_psgtr.triplets import Rules, Thing, Triplet, areas, choose, queries_of, unite

MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of RGB from 0 to 255, as published


class PSGTR(moai.Expert):
    """Relate objects of 133 classes by 56 predicates."""

    name = "psgtr"
    role = "scene_graph"
    version = "1"
    modules = ("torch", "transformers")
    install = "pip install moai-psgtr"
    licence = "MIT (OpenPSG, whose weights state no licence of their own); this code Apache-2.0"
    weights = f"Hugging Face space ECCV2022/PSG, 532 MB, SHA-256 {SHA256[:12]}...; or the option weights"
    by_default: ClassVar[bool] = False  # runs when it is named: half a gigabyte to download

    class Options(moai.Options):
        weights: str = PUBLISHED
        """"published": OpenPSG's checkpoint, downloaded once and compared with its hash; or the path of a checkpoint
        (.pth or .safetensors), or a file on the hub as `owner/name/file`."""
        min_score: float = Field(0.8, ge=0, le=1)
        """Relations with a lower predicate score are left out; 0.8 is what MoAI uses."""
        min_object_score: float = Field(0.5, ge=0, le=1)
        """Relations with a lower score of subject or object are left out."""
        max_relations: int = Field(10, ge=1)
        """At most this many relations per picture, the best first."""
        within_objects: bool = True
        """And at most as many as there are objects in them, as MoAI does."""
        segments: bool = False
        """Also return subjects and objects as segments with masks; several times slower on a CPU. Findings of one
        object are then told by their masks, else by their boxes."""
        overlap: float = Field(0.5, ge=0, le=1)
        """Two findings of a class that overlap by more (intersection over union) are one object."""
        mask_threshold: float = Field(0.85, gt=0, lt=1)
        """Probability from which a pixel is part of a mask."""
        short_side: int = Field(800, ge=32)
        """Pictures are scaled to this; 800 is what the published weights were trained with."""
        long_side: int = Field(1333, ge=32)
        """Unless the other side would then be longer than this."""

    _network: Any = None
    _device: str = "cpu"

    @property
    def memory(self) -> int:
        """Estimate the memory, measured with ResNet-50 at 1067 x 800; the masks of ten triplets need as much again."""
        return 1_200_000_000 if self.options.segments else 600_000_000

    def weights_id(self) -> str:
        """Identify the weights by the published hash, or as `moai` identifies a file."""
        return SHA256 if self.options.weights == PUBLISHED else identify(self.options.weights)

    def load(self, device: str = "cpu") -> None:
        """Read the weights.

        Raises:
            AssetError: they cannot be found, are not safe to read, or are not PSGTR's.
            ExpertError: they were trained on other classes or predicates.
        """
        network = build(locate(self.options.weights))
        classes = network.classes["sub"].out_features - 1
        predicates = network.predicates.out_features - 1
        if (classes, predicates) != (len(CLASSES), len(PREDICATES)):
            raise ExpertError(
                f"expert 'psgtr': {self.options.weights} knows {classes} classes and {predicates} predicates, and the "
                f"PSG data set has {len(CLASSES)} and {len(PREDICATES)}; give weights trained on it"
            )
        self._network, self._device = network.to(device), device

    def unload(self) -> None:
        """Drop the network, and hand a GPU's memory back."""
        self._network = None
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Perceive each picture by itself: published batches pad, and the network was not trained to ignore that."""
        return [self.to_perception(self._look(image)) for image in images]

    def to_perception(self, raw: Mapping[str, np.ndarray]) -> Perception:
        """Convert the network's output to relations, and to segments when it holds masks; a pure function.

        Args:
            raw: float arrays: logits ``subject`` and ``object`` (Q, 134) and ``predicate`` (Q, 57); ``subject_box`` and
                ``object_box`` (Q, 4) as (cx, cy, w, h) in [0, 1]; and, if masks were drawn, ``masks`` (K, 2, h, w)
                as logits for the queries ``mask_queries`` (K,).
        """
        triplets = choose(raw, self._rules())
        things, pairs = unite(triplets, raw, self._rules())
        segments = _segments(things, self.options.mask_threshold) if "masks" in raw else {}
        boxes = [segments[p].box if p in segments else thing.box for p, thing in enumerate(things)]
        found: dict[tuple[int, int, int], Relation] = {}
        for triplet, (subject, object_) in zip(triplets, pairs, strict=True):
            if subject != object_:  # trees beside trees: stuff is one, and says nothing about itself
                relation = _relation(triplet, boxes[subject], boxes[object_])
                found.setdefault((subject, triplet.predicate, object_), relation)
        objects = {place for subject, _, object_ in found for place in (subject, object_)}
        most = self.options.max_relations
        if self.options.within_objects:
            most = min(most, len(objects))
        return Perception(segments=tuple(segments.values()), relations=tuple(list(found.values())[:most]))

    def _rules(self) -> Rules:
        options = self.options
        return Rules(options.min_score, options.min_object_score, options.overlap, options.mask_threshold)

    def _look(self, image: Image.Image) -> dict[str, np.ndarray]:
        import torch

        with torch.inference_mode():
            prediction = self._network(pixels(image, self.options.short_side, self.options.long_side).to(self._device))
            raw = {
                "subject": prediction.classes["sub"],
                "object": prediction.classes["obj"],
                "predicate": prediction.predicates,
                "subject_box": prediction.boxes["sub"],
                "object_box": prediction.boxes["obj"],
            }
            raw = {name: tensor.float().cpu().numpy() for name, tensor in raw.items()}
            if not all(np.isfinite(array).all() for array in raw.values()):
                raise ExpertError("expert 'psgtr' computed NaN or infinity; its weights are damaged")
            queries = queries_of(choose(raw, self._rules())) if self.options.segments else []
            if queries:
                masks = self._network.draw(prediction, torch.tensor(queries, device=self._device))
                raw |= {"masks": masks.float().cpu().numpy(), "mask_queries": np.array(queries)}
        return raw


def scaled(size: tuple[int, int], short_side: int, long_side: int) -> tuple[int, int]:
    """Scale (width, height): the shorter side as given, unless the longer one would exceed its limit."""
    factor = min(short_side / min(size), long_side / max(size))
    width, height = (max(1, int(side * factor + 0.5)) for side in size)
    return width, height


def pixels(image: Image.Image, short_side: int, long_side: int) -> Any:
    """Prepare a picture for the network: scaled, RGB, normalised; a (1, 3, height, width) tensor."""
    import torch

    width, height = scaled(image.size, short_side, long_side)
    colours = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float()
    # Without smoothing, as OpenCV does it: Pillow's filter would show the network softer pictures than it was taught.
    resized = torch.nn.functional.interpolate(colours, size=(height, width), mode="bilinear", align_corners=False)
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return (resized.round() - mean) / deviation


def _relation(triplet: Triplet, subject_box: Box, object_box: Box) -> Relation:
    subject, object_ = (CLASSES[label] for label in triplet.labels)
    return Relation(subject, PREDICATES[triplet.predicate], object_, round(triplet.score, 6), subject_box, object_box)


def _segments(things: Sequence[Thing], threshold: float) -> dict[int, Segment]:
    """Map an object's place to its segment; an object whose mask is empty, or covered by others, has none."""
    segments = {}
    for place, (thing, area) in enumerate(zip(things, areas(things, threshold), strict=True)):
        if area.any():
            score = round(thing.score, 6)
            name, countable = CLASSES[thing.label], is_thing(thing.label)
            segments[place] = Segment(name, score, _around(area), Mask.encode(area), countable)
    return segments


def _around(area: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(area.any(1)), np.flatnonzero(area.any(0))
    height, width = area.shape
    edges = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    x0, y0, x1, y1 = (round(float(edge), 4) for edge in edges)
    return x0, y0, x1, y1
