"""Define PSGTR's network on the DETR of transformers.

Knows: torch and transformers; import it inside a function. One DETR with 100 queries, each of which stands for a whole
triplet: on top of it are a class, a box and a mask for the subject and for the object, and a predicate between them.
Legend: Q queries, D width, H attention heads, C classes and "nothing", P predicates and "no relation", K chosen
queries, (h, w) the size of a feature map.

Source: Yang et al., Panoptic Scene Graph Generation (ECCV 2022), section 4.2, and OpenPSG's published weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DetrConfig, DetrModel, ResNetConfig
from transformers.models.detr.modeling_detr import (
    DetrMaskHeadSmallConv,
    DetrMHAttentionMap,
    DetrMLPPredictionHead,
)

ROLES = ("sub", "obj")  # as the published names call subject and object
AT_ONCE = 10  # masks computed together; each takes about 60 MB at the published size


@dataclass(frozen=True)
class Size:
    """Hold the sizes of a network; the defaults are PSGTR with ResNet-50."""

    stem: int = 64
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    hidden: int = 256
    heads: int = 8
    feedforward: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    queries: int = 100
    classes: int = 133
    predicates: int = 56

    def config(self) -> DetrConfig:
        """Return the same as a configuration of transformers."""
        backbone = ResNetConfig(
            embedding_size=self.stem,
            hidden_sizes=list(self.widths),
            depths=list(self.depths),
            layer_type="bottleneck",
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
        return DetrConfig(
            backbone_config=backbone,
            d_model=self.hidden,
            num_queries=self.queries,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            encoder_attention_heads=self.heads,
            decoder_attention_heads=self.heads,
            encoder_ffn_dim=self.feedforward,
            decoder_ffn_dim=self.feedforward,
        )


class Prediction(NamedTuple):
    """Hold the network's output for one picture; scores as logits, boxes as (cx, cy, w, h) in [0, 1]."""

    classes: dict[str, Tensor]  # per role (Q, C)
    boxes: dict[str, Tensor]  # per role (Q, 4)
    predicates: Tensor  # (Q, P)
    queries: Tensor  # (1, Q, D)
    memory: Tensor  # (1, D, h, w), after the encoder
    projected: Tensor  # (1, D, h, w), before it
    pyramid: list[Tensor]  # three finer maps of the backbone, the coarsest first


class Network(nn.Module):
    """Predict triplets by DETR with PSGTR's heads: one picture at a time, so that nothing is padded or masked."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.detr = DetrModel(size.config())
        width, levels = size.hidden, list(size.widths)[-2::-1]
        self.classes = _per_role(lambda: nn.Linear(width, size.classes + 1))
        self.boxes = _per_role(lambda: DetrMLPPredictionHead(width, width, 4, 3))
        self.predicates = nn.Linear(width, size.predicates + 1)
        self.attention = _per_role(lambda: DetrMHAttentionMap(width, size.heads))
        self.masks = _per_role(lambda: DetrMaskHeadSmallConv(width + size.heads, levels, width))

    def forward(self, pixels: Tensor) -> Prediction:
        """Run one picture: ``pixels`` is (1, 3, height, width), normalised."""
        detr = self.detr
        *fine, coarse = detr.backbone.model(pixels).feature_maps
        projected = detr.input_projection(coarse)  # (1, D, h, w)
        where = detr.position_embedding(shape=coarse.shape, device=pixels.device, dtype=pixels.dtype)
        where = where.expand_as(projected).flatten(2).transpose(1, 2)  # (1, h*w, D)
        encoded = detr.encoder(
            inputs_embeds=projected.flatten(2).transpose(1, 2), attention_mask=None, spatial_position_embeddings=where
        ).last_hidden_state
        ask = detr.query_position_embeddings.weight[None]  # (1, Q, D)
        queries = detr.decoder(
            inputs_embeds=torch.zeros_like(ask),
            attention_mask=None,
            spatial_position_embeddings=where,
            object_queries_position_embeddings=ask,
            encoder_hidden_states=encoded,
            encoder_attention_mask=None,
        ).last_hidden_state
        return Prediction(
            {role: self.classes[role](queries)[0] for role in ROLES},
            {role: self.boxes[role](queries)[0].sigmoid() for role in ROLES},
            self.predicates(queries)[0],
            queries,
            encoded.transpose(1, 2).reshape(projected.shape),
            projected,
            fine[::-1],
        )

    def draw(self, prediction: Prediction, chosen: Tensor) -> Tensor:
        """Compute the mask logits of some queries, at a quarter of the picture's size.

        Args:
            seen: what ``forward`` returned.
            chosen: (K,) query numbers. A mask does not depend on which others are drawn.

        Returns:
            (K, 2, h, w): of the subject, and of the object.
        """
        parts = [self._draw(prediction, part) for part in chosen.split(AT_ONCE)]
        return torch.cat(parts)

    def _draw(self, prediction: Prediction, chosen: Tensor) -> Tensor:
        drawn = []
        for role in ROLES:
            attention = self.attention[role](prediction.queries[:, chosen], prediction.memory)  # (1, K, H, h, w)
            drawn.append(self.masks[role](prediction.projected, attention, prediction.pyramid))  # (K, 1, h, w)
        return torch.cat(drawn, dim=1)


def _per_role(make: Any) -> nn.ModuleDict:
    return nn.ModuleDict({role: make() for role in ROLES})
