"""Auxiliary words in context: what the host's own first layers make of the verbalized perception.

Knows: the host's layers. A word embedding says "circle"; the host's state at that word, a few layers up, says which
circle: it has read the words before it. The host is frozen, so this trains nothing and costs a share of one forward.
"""

from __future__ import annotations

from torch import Tensor, nn

from moai.errors import HostError
from moai.model.mixer.graft import Holder, decoder_layers, states_entering
from moai.model.norms import centered, unit


def context_states(host: nn.Module, holder: Holder, input_ids: Tensor, mask: Tensor, layer: int) -> Tensor:
    """Hidden states that enter decoder layer ``layer`` while the host reads ``input_ids``, without any mixer.

    Args:
        host: the frozen language model.
        holder: of the graft; its conditioning is put aside meanwhile.
        input_ids, mask: ``(B, A)``, padded on the right.
        layer: from 1 to the number of layers less one.

    Returns:
        ``(B, A, D)`` in fp32 at unit scale, less each row's mean over its own tokens, since the states of all words
        share a few huge directions; zero at padding.

    Raises:
        HostError: there is no such layer.
    """
    layers = decoder_layers(host)
    if not 1 <= layer < len(layers):
        raise HostError(f"perception.context_layer is {layer}; this host takes 1 to {len(layers) - 1}")
    start = host.config.get_text_config().bos_token_id
    added = 0 if start is None else 1
    if added:  # the first token becomes the attention sink and loses what it says; that should be none of the words
        input_ids = nn.functional.pad(input_ids, (1, 0), value=start)
        attended = nn.functional.pad(mask, (1, 0), value=1)
    else:
        attended = mask
    conditioning, holder.conditioning = holder.conditioning, None
    try:
        states = states_entering(
            layers[layer], lambda: host(input_ids=input_ids, attention_mask=attended.long(), use_cache=False)
        )
    finally:
        holder.conditioning = conditioning
    kept = mask.bool()
    return centered(unit(states[:, added:].float()), kept) * kept[..., None]
