"""The modules of a mixer at once, where each is narrow and without an activation: the same numbers, fewer products.

Knows: tensors. A stream meets the first factors of all modules that read it in one product, and the small products of
modules that go together are taken together: short prompts wait for the number of operations, not for their size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from moai.model.mixer.attention import AttentionModule
from moai.model.mixer.low_rank import logit_scale, queries_and_keys
from moai.model.mixer.masks import logit_bias, readable

CONTEXTS = {
    "image_aux": "aux", "image_language": "language", "image_self": "image",
    "language_aux": "aux", "language_image": "image", "language_self": "language",
}  # fmt: skip  # what each module reads; its name begins with the stream that it changes
Stream = tuple[Tensor, Tensor]  # tokens (B, T, D) and their bool mask (B, T)


class StreamWeights(NamedTuple):
    """The weights that meet one stream: of the modules that change it, at most three, and of those that read it."""

    changing: tuple[str, ...]  # their names, in the gate's order
    reading: tuple[str, ...]
    down: Tensor  # (n * r, D) first factors: queries of the three, keys of the two, values of the two
    query: Tensor | None  # (3, r, H * r), as in low_rank.Tables; None for auxiliary tokens
    sizes: Tensor | None  # (n, r, H * r) query_size of the three, then key_size of the two; only where there are norms
    value: Tensor  # (2, r, H * r), in the dtype of ``down``
    up: Tensor | None  # (D, 3 * r) the output projections' second factors side by side


def changing(stream: str) -> list[str]:
    """Names of the modules whose update is for ``stream``, in the gate's order."""
    return [name for name in CONTEXTS if name.startswith(f"{stream}_")]


def reading(stream: str) -> list[str]:
    """Names of the modules whose context is ``stream``: the one for image tokens, then the one for language tokens."""
    return [name for name, context in CONTEXTS.items() if context == stream]


def stack_weights(attention: Mapping[str, AttentionModule], dtype: torch.dtype) -> dict[str, StreamWeights]:
    """From the modules of a mixer, for products in ``dtype``."""
    made = {name: attention[name].tables() for name in CONTEXTS if name in attention}
    found = {}
    for stream in ("image", "language", "aux"):
        own, others = ([name for name in names if name in made] for names in (changing(stream), reading(stream)))
        if not others:  # a stream that a model without image tokens does not have
            continue
        down = [attention[name].query.down.weight for name in own]
        down += [attention[name].key.down.weight for name in others]
        down += [attention[name].value.down.weight for name in others]
        sizes = [made[name].query_size for name in own] + [made[name].key_size for name in others]
        found[stream] = StreamWeights(
            tuple(own),
            tuple(others),
            torch.cat(down).to(dtype),
            torch.stack([made[name].query for name in own]) if own else None,
            None if sizes[0] is None else torch.stack(sizes),
            torch.stack([made[name].value for name in others]).to(dtype),
            torch.cat([attention[name].output.up.weight for name in own], dim=1).to(dtype) if own else None,
        )
    return found


def fused(
    one: AttentionModule, made: Mapping[str, StreamWeights], streams: Mapping[str, Stream], gates: Mapping[str, Tensor]
) -> list[Tensor]:
    """The updates of the streams that have a gate: for image and language tokens, ``(B, I, D)`` and ``(B, P, D)``.

    Args:
        one: any of the modules; they are alike but for their weights.
        made: of :func:`stack_weights`.
        streams: each with at least one token.
        gates: ``(B, I, 3)`` for images, ``(B, P, 3)`` for language.
    """
    with torch.autocast(one.query.down.weight.device.type, enabled=False):
        asked, offered = {}, {}
        for stream, weights in made.items():
            y = F.linear(streams[stream][0].to(weights.down.dtype), weights.down)
            asked[stream], keyed, valued = _projected(one, y, weights)
            offered.update(zip(weights.reading, zip(keyed, valued, strict=True), strict=True))
        dtype = asked["language"].dtype
        masks = {stream: logit_bias(readable(mask), dtype)[:, None, None] for stream, (_, mask) in streams.items()}
        some = {stream: mask.any(dim=1)[:, None, None] for stream, (_, mask) in streams.items()}
        updates = []
        for stream, weights in gates.items():
            names = made[stream].changing
            factor = logit_scale(one.size, one.qk_norm_scale)
            read = [
                F.scaled_dot_product_attention(q, *offered[name], attn_mask=masks[CONTEXTS[name]], scale=factor)
                for name, q in zip(names, asked[stream], strict=True)
            ]
            # A row without context has read everything, since a softmax over nothing is NaN; here it takes nothing.
            kept = weights * torch.cat([some[CONTEXTS[name]] for name in names], dim=-1)
            parts = torch.stack(read, dim=-2).sum(dim=1) * kept[..., None]  # (B, T, 3, r)
            up = made[stream].up
            updates.append(F.linear(parts.flatten(2).to(up.dtype), up))
    return updates


def _projected(one: AttentionModule, y: Tensor, weights: StreamWeights) -> tuple[Tensor | None, Tensor, Tensor]:
    """Queries ``(3, B, H, T, r)``, keys and values ``(2, B, H, T, r)`` from what is behind the first factors."""
    rank, count = one.query.down.out_features, len(weights.value)
    parts = y.flatten(0, 1).unflatten(1, (-1, rank)).transpose(0, 1)  # (n, B * T, r)
    v = parts[-count:]

    def by_head(x: Tensor) -> Tensor:
        return x.unflatten(1, y.shape[:2]).transpose(2, 3)

    turned, k = queries_and_keys(parts[:-count], weights.query, weights.sizes, one.heads, one.size)
    q = None if turned is None else by_head(turned)
    return q, by_head(k), by_head((v @ weights.value).unflatten(-1, (one.heads, -1)))
