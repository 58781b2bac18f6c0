"""Grafting: putting mixers on the decoder layers of a frozen host, and taking them off again.

Knows: module trees. Mixers sit in forward pre-hooks, so the host's ``state_dict`` keys stay as they were, and taking
the hooks off gives the host back exactly. The conditioning is set once per forward and overwritten by the next one; it
is never cleared in between, because activation checkpointing runs the hooks again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from moai.errors import HostError
from moai.model.arithmetic import is_published
from moai.model.mixer.gather import add, take
from moai.model.mixer.mixer import Mixer, Streams

LAYER_LISTS = ("layers", "h", "blocks", "block")
ATTENTIONS = ("self_attn", "attention", "attn", "self_attention", "multi_head_attention")


@dataclass
class Conditioning:
    """What the mixers of one forward need; all tensors have the batch in front."""

    image_index: Tensor  # (B, I) positions of image tokens in the sequence; 0 where padded
    image_mask: Tensor  # (B, I) bool
    language_index: Tensor  # (B, P) positions of prompt text
    language_mask: Tensor  # (B, P) bool
    aux: Tensor  # (B, C, D)
    aux_mask: Tensor  # (B, C) bool
    choices: list[tuple[int, int]] | None = None  # step 1's draw, one pair per mixer
    question: Tensor | None = None  # (B, D), see Streams
    said: Tensor | None = None  # (B, C, D), see Streams
    guide: Tensor | None = None  # (B, G, C + 1) bool: what the last prompt token should read; collected in ``guided``
    guided: list[Tensor] = field(default_factory=list)  # one loss per mixer
    calls: int = 0


@dataclass
class Holder:
    """The one place where the conditioning of the running forward lies; shared by all hooks of one graft."""

    conditioning: Conditioning | None = None
    trace: Any = None  # a moai.model.analysis.attribution.Trace while somebody looks inside


def decoder_layers(host: nn.Module) -> nn.ModuleList:
    """The host's stack of decoder layers.

    Raises:
        HostError: no known layout; names the class.
    """
    decoder = host.get_decoder() if hasattr(host, "get_decoder") else host
    for candidate in (decoder, getattr(decoder, "decoder", None), getattr(decoder, "model", None)):
        for name in LAYER_LISTS:
            layers = getattr(candidate, name, None)
            if isinstance(layers, nn.ModuleList):
                return layers
    raise HostError(
        f"{type(host).__name__} has no list of decoder layers named {', '.join(LAYER_LISTS)}; "
        "use a decoder-only language model of transformers as the host"
    )


def attention_of(layer: nn.Module) -> nn.Module | None:
    """The self-attention module of a decoder layer; ``None`` where it has none, as in a state-space layer."""
    return next((getattr(layer, n) for n in ATTENTIONS if isinstance(getattr(layer, n, None), nn.Module)), None)


class _Reached(Exception):
    """A forward has come as far as it has to."""


@torch.no_grad()
def states_entering(layer: nn.Module, forward: Callable[[], object]) -> Tensor | None:
    """Run ``forward`` until a decoder layer is handed its hidden states, and return these; what lies above never runs.

    Args:
        layer: a decoder layer of the host.
        forward: runs the host.

    Returns:
        ``(B, S, D)`` as they come to the layer, before its own mixer; None when it was not reached.
    """
    found: list[Tensor] = []

    def stop(module, args, kwargs):
        found.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    hook = layer.register_forward_pre_hook(stop, with_kwargs=True, prepend=True)
    try:
        forward()
    except _Reached:
        return found[0]
    finally:
        hook.remove()
    return None


class MixerHook:
    """Forward pre-hook that adds a mixer's updates to the hidden states it is handed.

    An object and not a closure, so that ``copy.deepcopy`` of a model copies it together with its mixer.
    """

    def __init__(self, mixer: Mixer, index: int, holder: Holder) -> None:
        self.mixer, self.index, self.holder = mixer, index, holder

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict):
        """Replace ``hidden_states`` where a conditioning is set; otherwise change nothing."""
        conditioning = self.holder.conditioning
        if conditioning is None:
            return None
        conditioning.calls += 1
        if args:
            return (self.mix(args[0], conditioning), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self.mix(kwargs["hidden_states"], conditioning)}

    def mix(self, hidden: Tensor, c: Conditioning) -> Tensor:
        """``(B, S, D) -> (B, S, D)``: prompt positions get their updates, all others stay as they are."""
        index = torch.cat([c.image_index, c.language_index], dim=1)
        image, language = take(hidden, index).split([c.image_index.shape[1], c.language_index.shape[1]], dim=1)
        aux = c.aux.to(hidden.dtype)
        streams = Streams(image, c.image_mask, language, c.language_mask, aux, c.aux_mask, c.question, c.said)
        if self.holder.trace is not None:
            self.holder.trace.mixed(self.index, self.mixer, streams)
        with half_precision(hidden):
            choice = None if c.choices is None else c.choices[self.index]
            image_update, language_update = self.mixer(streams, choice)
            if c.guide is not None:
                c.guided.append(self.mixer.guide_loss(streams, c.guide))
        real = torch.cat([c.image_mask, c.language_mask], dim=1)
        return add(hidden, index, torch.cat([image_update, language_update], dim=1) * real[..., None])


def graft(host: nn.Module, mixers: nn.ModuleDict, holder: Holder, arithmetic: str) -> None:
    """Put ``mixers`` (keyed by layer number) on ``host``.

    Args:
        host: a causal language model.
        mixers: layer number as a string -> mixer.
        holder: where the model will set the conditioning.
        arithmetic: ``"moai"`` puts them on the residual stream before the layer, as the paper does; ``"published"`` on
            the normed input of self-attention.

    Raises:
        HostError: a layer that does not exist, or no attention module to hook.
    """
    layers = decoder_layers(host)
    for order, (name, mixer) in enumerate(mixers.items()):
        if int(name) >= len(layers):
            raise HostError(
                f"mixer in layer {name}, but the host has layers 0 to {len(layers) - 1}; change mixer.layers"
            )
        target = layers[int(name)]
        if is_published(arithmetic):
            target = attention_of(target)
            if target is None:
                raise HostError(
                    f"layer {name} of {type(host).__name__} has no attention module; "
                    "change mixer.layers, or use arithmetic: moai"
                )
        target.register_forward_pre_hook(MixerHook(mixer, order, holder), with_kwargs=True)


def ungraft(host: nn.Module) -> None:
    """Take the mixers off: the host is again what it was. Found by structure, so it works on copied models too."""
    for module in host.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, MixerHook):
                del module._forward_pre_hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)


def locate(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Turn a bool mask ``(B, S)`` into padded positions ``(B, n)`` and their mask, ``n`` the largest row count."""
    counts = mask.sum(dim=1)
    width = int(counts.max()) if counts.numel() else 0
    index = mask.long().argsort(dim=1, descending=True, stable=True)[:, :width]
    valid = torch.arange(width, device=mask.device) < counts[:, None]
    return index.masked_fill(~valid, 0), valid


def half_precision(like: Tensor):
    """Autocast to ``like``'s dtype when that is bf16 or fp16; otherwise nothing changes, an outer autocast included."""
    if like.dtype in (torch.bfloat16, torch.float16):
        return torch.autocast(like.device.type, dtype=like.dtype)
    return nullcontext()
