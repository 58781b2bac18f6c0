"""Find the decoder layers of a host.

Knows: how transformers' models of many families name their parts.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from moai.errors import HostError

LAYER_LISTS = ("layers", "h", "blocks", "block")
ATTENTIONS = ("self_attn", "attention", "attn", "self_attention", "multi_head_attention")


def decoder_layers(host: nn.Module) -> nn.ModuleList:
    """Find the host's stack of decoder layers.

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
    """Find the self-attention module of a decoder layer; ``None`` where it has none, as in a state-space layer."""
    return next((getattr(layer, n) for n in ATTENTIONS if isinstance(getattr(layer, n, None), nn.Module)), None)


def mixer_layers(count: int, layers: list[int] | None, every: int | None) -> list[int]:
    """Number the decoder layers with a mixer: ``layers``, or every ``every``-th as the paper counts (7, 15, 23, ..).

    Raises:
        HostError: ``every`` is larger than the number of layers, so that no layer would have a mixer.
    """
    if layers is not None:
        return sorted(set(layers))
    every = every or 8
    if every > count:
        raise HostError(
            f"mixer.every is {every} and the host has {count} layers, 0 to {count - 1}, so none would have a mixer; "
            "lower mixer.every, or name mixer.layers"
        )
    return [index for index in range(count) if (index + 1) % every == 0]


def check_layers(count: int, layers: Iterable[int]) -> None:
    """Refuse mixers in layers that the host has not.

    Raises:
        HostError: names the layer, and how many there are.
    """
    for layer in layers:
        if not 0 <= layer < count:
            raise HostError(f"mixer in layer {layer}, but the host has layers 0 to {count - 1}; change mixer.layers")


def check_context_layer(count: int, layer: int) -> None:
    """Refuse a layer that cannot put words in context.

    Raises:
        HostError: says which could.
    """
    if not 1 <= layer < count:
        raise HostError(f"perception.context_layer is {layer}; this host takes 1 to {count - 1}")
