"""Where a mixed token took what it took: gates, attention, and the way back through the compressor.

Knows: tensors and modules; words and experts are put to the numbers by whoever made the auxiliary tokens. Nothing here
runs unless it is asked for: ``model(..., return_attribution=True)`` records one forward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from moai.errors import PromptError
from moai.model.encoders.compressor import Compressor, PerceiverLayer
from moai.model.mixer.forward_context import MixerInputs
from moai.model.mixer.mixer import Mixer, Streams


class Taken(NamedTuple):
    """What the tokens of one stream took in one mixer; rows of padding are zero. ``T`` is ``I`` or ``P``."""

    gates: Tensor  # (B, T, 3) in the order of IMAGE_MODULES or LANGUAGE_MODULES in moai.model.mixer.mixer; sums to one
    latents: Tensor  # (B, T, C) attention over the compressed tokens, mean over heads; sums to one, or zero without any
    size: Tensor  # (B, T) of the gated auxiliary update, in units of the token's own size


class MixerAttribution(NamedTuple):
    """One mixer's two streams."""

    layer: int
    image: Taken
    language: Taken


@dataclass(frozen=True)
class Attribution:
    """Where the prompt's tokens took what the mixers gave them; fp32, the batch in front.

    What an answer's tokens read (``mixer.answer_tokens``) is left out: only prompts are analysed.

    ``rollout`` leads from compressed tokens to auxiliary tokens, and is an approximation: attention rollout
    (arXiv 2005.00928) through the compressor's layers. A latent that starts from an auxiliary token belongs to it.
    In each layer the mean over heads of the attention says what is mixed in, and the norms of the two summands (the
    latent, and what attention adds) say how much of it, where rollout in its first form takes a half. Feed-forwards mix
    no tokens; norms, the values' own sizes, and what a latent has learnt on its own are left out, and rows are scaled
    to one. With a ``context_layer``, what a word's vector holds of the words before it counts as its own.
    """

    mixers: tuple[MixerAttribution, ...]
    image_index: Tensor  # (B, I) positions in the sequence; 0 where padded
    image_mask: Tensor  # (B, I) bool
    language_index: Tensor  # (B, P)
    language_mask: Tensor  # (B, P) bool
    rollout: Tensor  # (B, C, A) sums to one over A, in the order of aux_input_ids, then the maps' tokens
    aux_mask: Tensor  # (B, A) bool

    def attended(self, mixer: int) -> tuple[Tensor, Tensor]:
        """The auxiliary tokens that the tokens of the ``mixer``-th mixer attended to: ``(B, I, A)``, ``(B, P, A)``.

        Rows sum to one, less what a none token took; those of padding, and of prompts without auxiliary tokens, are
        zero.
        """
        read = self.mixers[mixer]
        return read.image.latents @ self.rollout, read.language.latents @ self.rollout

    def shares(self) -> Tensor:
        """Each auxiliary token's share of what all prompt tokens took in all mixers, ``(B, A)``; sums to one.

        A token counts by the size of its update, so that a layer which writes nothing counts nothing.
        """
        total = self.rollout.new_zeros(len(self.rollout), self.rollout.shape[1])
        for mixer in self.mixers:
            for taken in (mixer.image, mixer.language):
                total = total + (taken.size[..., None] * taken.latents).sum(dim=1)
        return _to_one((total[:, None] @ self.rollout)[:, 0])

    def row(self, row: int) -> tuple[list[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]], np.ndarray]:
        """One prompt without its padding, as arrays.

        Returns:
            per mixer: layer, gates of its image tokens ``(I, 3)`` and of its question tokens ``(P, 3)``, and what each
            attended to, ``(I, A)`` and ``(P, A)``; and the shares ``(A,)``.
        """
        real, masks = self.aux_mask[row], (self.image_mask[row], self.language_mask[row])
        mixers = []
        for number, mixer in enumerate(self.mixers):
            gates = [taken.gates[row][mask] for taken, mask in zip((mixer.image, mixer.language), masks, strict=True)]
            read = [a[row][mask][:, real] for a, mask in zip(self.attended(number), masks, strict=True)]
            mixers.append((mixer.layer, *(part.cpu().numpy() for part in (*gates, *read))))
        return mixers, self.shares()[row][real].cpu().numpy()


@dataclass
class AugmentedOutput(CausalLMOutputWithPast):
    """A causal language model's output.

    Attributes:
        attention_loss: of attention supervision, where targets were given; ``loss`` is without it.
        attribution: where it was asked for.
    """

    attention_loss: Tensor | None = None
    attribution: Attribution | None = None


class Trace:
    """Records one forward pass: its mixers and its compressor report what they attend to."""

    def __init__(self, layers: list[int]) -> None:
        self.layers = layers
        self.mixers: list[MixerAttribution] = []
        self.compressed: tuple[Compressor, Tensor, Tensor | None] | None = None  # with the masks (B, A) it was given
        self.steps: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def mixed(self, number: int, mixer: Mixer, streams: Streams) -> None:
        """Record what the ``number``-th mixer is about to mix."""
        with torch.autocast(streams.aux.device.type, enabled=False):
            s = Streams(*(part.float() if part is not None and part.is_floating_point() else part for part in streams))
            gates, masks = mixer.gate_weights(s), (s.image_mask, s.language_mask)
            pairs = zip(("image", "language"), mixer.inputs(s), masks, gates, strict=True)
            taken = [_taken(mixer, f"{name}_aux", x, mask, gate, s) for name, x, mask, gate in pairs]
        self.mixers.append(MixerAttribution(self.layers[number], *taken))

    def compressing(self, compressor: Compressor, mask: Tensor, ends: Tensor | None) -> None:
        """Record that a compressor begins, with the masks ``(B, A)`` of its tokens."""
        self.compressed, self.steps = (compressor, mask.bool(), ends), []

    def step(self, layer: PerceiverLayer, latents: Tensor, x: Tensor, mask: Tensor | None) -> None:
        """Record what a layer of the compressor is about to attend to."""
        self.steps.append(_step(layer, latents, x, mask))

    def result(self, inputs: MixerInputs | None) -> Attribution:
        """Build the attribution of everything recorded, with the positions in ``inputs``.

        Raises:
            PromptError: nothing was mixed, or the compressed tokens were given instead of words.
        """
        if inputs is None or not self.mixers:
            raise PromptError("there is nothing to attribute: this model has no mixers, or its prompt is not mixed")
        c = inputs
        if self.compressed is None:
            if c.aux.shape[1]:
                raise PromptError(
                    "return_attribution leads back through the compressor; give aux_input_ids instead of aux"
                )
            rollout, mask = c.aux.new_zeros(len(c.aux), 0, 0).float(), c.aux_mask[:, :0]
        else:
            rollout, mask = _rollout(*self.compressed, self.steps), self.compressed[1]
            rollout, mask = (rollout, mask) if c.batch_rows is None else (rollout[c.batch_rows], mask[c.batch_rows])
        return Attribution(
            tuple(self.mixers), c.image_index, c.image_mask, c.language_index, c.language_mask, rollout, mask
        )


def patches(model: nn.Module, tokens: int) -> tuple[int, int] | None:
    """Rows and columns of an image's tokens where they stand for its patches, row by row; None where they do not.

    A connector says by a true attribute ``spatial`` that it keeps the grid of patches. The tokens of several images, or
    of one that is cut into tiles, are no grid.
    """
    side = math.isqrt(tokens)
    kept = getattr(model.images.adapters().get("connector"), "spatial", False) and tokens == model.config.image_tokens
    return (side, side) if kept and tokens and side * side == tokens else None


def _taken(mixer: Mixer, name: str, x: Tensor, mask: Tensor, gates: Tensor, s: Streams) -> Taken:
    if name not in mixer.attention:  # images have no tokens
        return Taken(gates, x.new_zeros(*x.shape[:2], s.aux.shape[1]), x.new_zeros(x.shape[:2]))
    module = mixer.attention[name]
    real = mask[..., None].float()
    count, (aux, aux_mask) = s.aux.shape[1], mixer.readable(s)
    latents = module.weights(x, aux, aux_mask).mean(dim=1)[..., :count] if count else x.new_zeros(*x.shape[:2], 0)
    update = gates[..., :1] * module(x, aux, aux_mask)
    size = update.norm(dim=-1) / x.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    return Taken(gates * real, latents * real, size * mask)


@torch.no_grad()
def _step(layer: PerceiverLayer, latents: Tensor, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """One layer's attention ``(B, C, A + C)``, mean over heads, and attention's part in its output ``(B, C, 1)``."""
    with torch.autocast(x.device.type, enabled=False):
        latents, x = latents.float(), x.float()
        normed = layer.norm_latents(latents)
        keys, values = layer.key_value(torch.cat([layer.norm_input(x), normed], dim=1)).chunk(2, dim=-1)
        parts = (layer.query(normed), keys, values)
        q, k, v = (part.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in parts)
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask is not None:
            readable = nn.functional.pad(mask, (0, latents.shape[1]), value=True)
            logits = logits.masked_fill(~readable[:, None, None, :], float("-inf"))
        weights = logits.softmax(dim=-1)
        added = layer.output((weights @ v).transpose(1, 2).flatten(2)).norm(dim=-1, keepdim=True)
        part = added / (added + latents.norm(dim=-1, keepdim=True)).clamp(min=torch.finfo(torch.float32).tiny)
        return weights.mean(dim=1), part


def _rollout(compressor: Compressor, mask: Tensor, ends: Tensor | None, steps: list[tuple[Tensor, Tensor]]) -> Tensor:
    """``(B, C, A)`` in the order in which the compressor was given its input."""
    count, width = len(compressor.latents), mask.shape[1]
    order, lengths = compressor.order(mask, ends)
    found = torch.zeros(len(mask), count, width, device=mask.device)
    if not compressor.published and width:
        found.scatter_(2, compressor.start_index(lengths)[..., None], 1.0)
    for weights, part in steps:
        read = weights[..., :width] + weights[..., width:] @ found
        found = part * read + (1 - part) * found
    found = torch.zeros_like(found).scatter(2, order[:, None].expand_as(found), found)
    return _to_one(found * mask[:, None])


def _to_one(x: Tensor) -> Tensor:
    total = x.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, x / total.clamp(min=torch.finfo(torch.float32).tiny), 0.0)
