"""Score predicates between boxes of other experts by CLIP or SigLIP: weak, and meant for trying out.

Knows: pairs, crops and prompts. These models were trained on whole captions and hardly know who does what to whom.
They add to geometry a guess at actions ("riding", "holding"). Hence the high threshold, and a prompt without a
relation, whose score a predicate has to exceed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from moai.types import Box, Perception, Relation
from moai_transformers.loading import ModelOptions, TransformersExpert, presentable, versioned

ACTIONS = (
    "riding", "holding", "carrying", "wearing", "eating", "drinking from", "looking at", "talking to", "playing with",
    "sitting on", "standing on", "lying on", "leaning on", "driving", "pushing", "pulling", "feeding", "throwing",
    "catching", "kicking", "cooking", "hanging from",
)  # fmt: skip
REMEMBERED = 1000  # pairs of names whose prompts stay embedded, about 0.1 MB each
Named = tuple[str, Box]


class Predicates(TransformersExpert):
    """Guess who does what to whom by CLIP or SigLIP on crops of two boxes; expect mistakes."""

    name = "predicates"
    role = "scene_graph"
    version = versioned("1")
    requires = ("panoptic", "open_world")
    model_types = ("clip", "siglip")
    model_class = "AutoModel"
    processor_class = "AutoProcessor"
    licence = "Apache-2.0 (SigLIP 2, code and weights); MIT (OpenAI's CLIP)"
    weights = "google/siglip2-base-patch16-224 (hub), or the option model"

    class Options(ModelOptions):
        model: str = "google/siglip2-base-patch16-224"
        """Hub id or local folder of a CLIP or SigLIP model, e.g. openai/clip-vit-base-patch32."""
        predicates: tuple[str, ...] = Field(ACTIONS, min_length=1)
        """Words between subject and object; geometry is better at "left of" and the like."""
        min_score: float = Field(0.8, ge=0, le=1)
        """Relations with a lower share of the softmax over all prompts of a pair are left out."""
        max_pairs: int = Field(8, ge=1)
        """Pairs per picture, the nearest first; each costs a crop through the image tower, and, when its two
        names are new, all prompts through the text tower."""
        reach: float = Field(0.1, ge=0, le=1)
        """Pairs with a wider gap, as a share of the picture, are left out."""
        max_relations: int = Field(10, ge=1)
        """At most this many relations per picture, the best first."""

    _known: OrderedDict[tuple[str, str], Any]  # vectors of the prompts for two names, the last used at the end

    def load(self, device: str = "cpu") -> None:
        """Build the model."""
        super().load(device)
        self._known = OrderedDict()

    def unload(self) -> None:
        """Drop the model and the prompts' vectors."""
        self._known = OrderedDict()
        super().unload()

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Score the pairs of near boxes in ``context``."""
        import torch

        with torch.inference_mode():
            return [self._relate(image, perceived) for image, perceived in zip(images, context, strict=True)]

    def to_perception(self, raw: np.ndarray, pairs: Sequence[tuple[Named, Named]]) -> Perception:
        """Convert ``raw[k]``, logits of ``prompts(*pairs[k], predicates)``, to at most one relation per pair; pure."""
        relations = []
        words = self.options.predicates
        for (first, second), logits in zip(pairs, raw, strict=True):
            shares = _softmax(logits)
            best = int(shares.argmax())
            if best == 0 or shares[best] < self.options.min_score:
                continue
            turned, which = divmod(best - 1, len(words))
            subject, object_ = (second, first) if turned else (first, second)
            score = round(float(shares[best]), 4)
            relations.append(Relation(subject[0], words[which], object_[0], score, subject[1], object_[1]))
        relations.sort(key=lambda relation: -relation.score)
        return Perception(relations=tuple(relations[: self.options.max_relations]))

    def _relate(self, image: Image.Image, perceived: Perception) -> Perception:
        pairs = near_pairs(perceived.boxes, self.options.reach, self.options.max_pairs)
        if not pairs:
            return Perception()
        crops = [crop(image, first[1], second[1]) for first, second in pairs]
        pixels = self._send(self._processor.image_processor(images=crops, return_tensors="pt"))
        seen_crops = _unit(self._model.get_image_features(**pixels).pooler_output)
        scale = self._model.logit_scale.exp().item()
        rows = []
        for vector, (first, second) in zip(seen_crops, pairs, strict=True):
            words = self._texts(first[0], second[0])
            rows.append(self._checked(words @ vector * scale).cpu().numpy())
        return self.to_perception(np.stack(rows), pairs)

    def _texts(self, first: str, second: str) -> Any:
        if (first, second) not in self._known:
            texts = prompts(first, second, self.options.predicates)
            most = self._model.config.text_config.max_position_embeddings
            settings = {"padding": "max_length", "max_length": most, "truncation": True, "return_tensors": "pt"}
            # SigLIP was trained without a mask over the padding, and its tokenizer makes none.
            inputs = self._send(self._processor.tokenizer(texts, **settings))
            self._known[first, second] = _unit(self._model.get_text_features(**inputs).pooler_output)
        self._known.move_to_end((first, second))
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return self._known[first, second]


def prompts(first: str, second: str, predicates: Sequence[str]) -> list[str]:
    """List the prompts: no relation; each predicate from the first to the second; each from the second to the first."""
    there = [f"a photo of a {first} {word} a {second}" for word in predicates]
    back = [f"a photo of a {second} {word} a {first}" for word in predicates]
    return [f"a photo of a {first} and a {second}", *there, *back]


def near_pairs(boxes: Sequence[Named], reach: float, most: int) -> list[tuple[Named, Named]]:
    """List pairs with a gap of at most ``reach``, the nearest first; equal gaps keep the order of the boxes."""
    pairs = [(gap(a[1], b[1]), a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :]]
    close = sorted((pair for pair in pairs if pair[0] <= reach), key=lambda pair: pair[0])
    return [(a, b) for _, a, b in close[:most]]


def gap(a: Box, b: Box) -> float:
    """Measure the distance between two boxes along the worse axis; 0 when they touch or overlap."""
    return max(0.0, a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])


def crop(image: Image.Image, a: Box, b: Box) -> Image.Image:
    """Crop the picture to both boxes, at least a pixel of it."""
    width, height = image.size
    left, top = min(int(min(a[0], b[0]) * width), width - 1), min(int(min(a[1], b[1]) * height), height - 1)
    right, bottom = round(max(a[2], b[2]) * width), round(max(a[3], b[3]) * height)
    return presentable(image.crop((left, top, max(right, left + 1), max(bottom, top + 1))))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def _unit(vectors: Any) -> Any:
    return vectors / vectors.norm(dim=-1, keepdim=True)
