"""Graft mixers on the decoder layers of a frozen host, and take them off again.

Knows: module trees. Mixers sit in forward pre-hooks, so the host's ``state_dict`` keys stay as they were, and taking
the hooks off gives the host back exactly. Hooks are set once; what they do depends on the context of the running call.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from moai.errors import HostError
from moai.model.arithmetic import is_published
from moai.model.host.layers import attention_of, check_layers, decoder_layers
from moai.model.mixer.forward_context import ForwardContext, MixerInputs, Reached, current
from moai.model.mixer.gather import gather_flat, scatter_add_flat
from moai.model.mixer.mixer import Mixer, Streams


class Graft:
    """Marks the hooks of one model, so that they heed no other model's forward pass; copies have one of their own.

    Attributes:
        mixers: how many there are.
    """

    def __init__(self, mixers: int) -> None:
        self.mixers = mixers


class MixerHook:
    """Forward pre-hook that adds a mixer's updates to the hidden states it is handed.

    An object and not a closure, so that ``copy.deepcopy`` of a model copies it together with its mixer.
    """

    def __init__(self, mixer: Mixer, index: int, graft: Graft) -> None:
        self.mixer, self.index, self.graft = mixer, index, graft

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict):
        """Replace ``hidden_states`` in a forward pass that mixes; otherwise change nothing."""
        context = current(self.graft)
        if context is None:
            return None
        hidden = args[0] if args else kwargs["hidden_states"]
        if context.states is not None:
            context.states.append(hidden)
            if len(context.states) == self.graft.mixers:
                raise Reached(hidden)
        if context.inputs is None:
            return None
        context.calls += 1
        mixed = self.mix(hidden, context, context.inputs)
        return ((mixed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": mixed})

    def mix(self, hidden: Tensor, context: ForwardContext, c: MixerInputs) -> Tensor:
        """``(B, S, D) -> (B, S, D)``: prompt positions get their updates, and answers theirs; all others stay."""
        if c.answers is None:
            return self.mix_prompt(hidden, context, c)
        a, choice = c.answers, None if c.choices is None else c.choices[self.index]
        tokens = hidden if a.positions is None else gather_flat(hidden, a.positions)
        with half_precision(hidden):
            if a.caches is None:
                given = (a.aux.to(hidden.dtype), a.aux_mask, a.sources, a.following, a.word_matches)
                cache = self.mixer.answer_cache(*given)
            else:
                cache = a.caches[self.index]
            update = self.mixer.answer_update(tokens, cache, a.question, a.matches, choice)
        if a.positions is None:
            return hidden + update.to(hidden.dtype)
        mixed = self.mix_prompt(hidden, context, c) if c.positions.shape[1] else hidden
        return scatter_add_flat(mixed, a.positions, update * a.mask[..., None])

    def mix_prompt(self, hidden: Tensor, context: ForwardContext, c: MixerInputs) -> Tensor:
        """Add the updates of the prompt's tokens."""
        tokens = gather_flat(hidden, c.positions)
        image, language = tokens.split([c.image_index.shape[1], c.language_index.shape[1]], dim=1)
        aux = c.aux.to(hidden.dtype)
        own = (image, c.image_mask, language, c.language_mask, aux, c.aux_mask)
        streams = Streams(*own, c.question, c.sources, c.word_matches)
        if context.trace is not None:
            context.trace.mixed(self.index, self.mixer, streams)
        with half_precision(hidden):
            choice = None if c.choices is None else c.choices[self.index]
            image_update, language_update = self.mixer(streams, choice)
            if c.targets is not None:
                context.losses.append(self.mixer.attention_loss(streams, c.targets))
        real = torch.cat([c.image_mask, c.language_mask], dim=1)
        update = torch.cat([image_update, language_update], dim=1) * real[..., None]
        return scatter_add_flat(hidden, c.positions, update)


class StopHook:
    """Forward pre-hook that ends a forward pass which only wants the states that enter its layer."""

    def __init__(self, layer: int, graft: Graft) -> None:
        self.layer, self.graft = layer, graft

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Raise :class:`Reached` where the running forward pass stops at this layer."""
        context = current(self.graft)
        if context is not None and context.stop_at == self.layer:
            raise Reached(args[0] if args else kwargs["hidden_states"])


def graft(host: nn.Module, mixers: nn.ModuleDict, arithmetic: str, stop_at: int | None = None) -> Graft:
    """Put ``mixers`` (keyed by layer number) on ``host``.

    Args:
        host: a causal language model.
        mixers: layer number as a string -> mixer.
        arithmetic: ``"moai"`` puts them on the residual stream before the layer, as the paper does; ``"published"`` on
            the normed input of self-attention.
        stop_at: a layer at which a forward pass may stop.

    Returns:
        what the contexts of this model's forward passes name.

    Raises:
        HostError: a layer that does not exist, or no attention module to hook.
    """
    layers, made = decoder_layers(host), Graft(len(mixers))
    if stop_at is not None and stop_at < len(layers):  # another is refused where it is used
        layers[stop_at].register_forward_pre_hook(StopHook(stop_at, made), with_kwargs=True)
    check_layers(len(layers), map(int, mixers))
    for order, (name, mixer) in enumerate(mixers.items()):
        target = layers[int(name)]
        if is_published(arithmetic):
            target = attention_of(target)
            if target is None:
                raise HostError(
                    f"layer {name} of {type(host).__name__} has no attention module; "
                    "change mixer.layers, or use arithmetic: moai"
                )
        target.register_forward_pre_hook(MixerHook(mixer, order, made), with_kwargs=True)
    return made


def ungraft(host: nn.Module) -> None:
    """Take the mixers off: the host is again what it was. Found by structure, so it works on copied models too."""
    for module in host.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, (MixerHook, StopHook)):
                del module._forward_pre_hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)


def half_precision(like: Tensor):
    """Autocast to ``like``'s dtype when that is bf16 or fp16; otherwise nothing changes, an outer autocast included."""
    if like.dtype in (torch.bfloat16, torch.float16):
        return torch.autocast(like.device.type, dtype=like.dtype)
    return nullcontext()
