"""Auxiliary words in context: what the host's own first layers make of the verbalized perception.

Knows: the host's layers. A word embedding says "circle"; the host's state at that word, a few layers up, says which
circle: it depends on the words before it. The host is frozen, so this trains nothing and costs a share of one forward.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from moai.compat import is_compiled
from moai.errors import HostError
from moai.model.host.layers import check_context_layer, decoder_layers
from moai.model.mixer.forward_context import ForwardContext, Reached
from moai.model.mixer.graft import Graft
from moai.model.norms import centered, rms_normalize


@torch.no_grad()
def context_states(host: nn.Module, graft: Graft, input_ids: Tensor, mask: Tensor, layer: int) -> Tensor:
    """Run the host on ``input_ids`` without mixers, and return the hidden states that enter decoder layer ``layer``.

    Args:
        host: the frozen language model.
        graft: of the model; it has a hook that stops at ``layer``.
        input_ids, mask: ``(B, A)``, padded on the right.
        layer: from 1 to the number of layers less one.

    Returns:
        ``(B, A, D)`` in fp32 at unit scale, less each row's mean over its own tokens, since the states of all words
        share a few huge directions; zero at padding.

    Raises:
        HostError: there is no such layer.
    """
    check_context_layer(len(decoder_layers(host)), layer)
    start = host.config.get_text_config().bos_token_id
    added = 0 if start is None else 1
    if added:  # the first token becomes the attention sink and loses what it says; that should be none of the words
        input_ids = nn.functional.pad(input_ids, (1, 0), value=start)
        attended = nn.functional.pad(mask, (1, 0), value=1)
    else:
        attended = mask
    states = _states_entering(host, graft, input_ids, attended, layer)
    kept = mask.bool()
    return centered(rms_normalize(states[:, added:].float()), kept) * kept[..., None]


def _states_entering(host: nn.Module, graft: Graft, input_ids: Tensor, mask: Tensor, layer: int) -> Tensor:
    # A graph cannot be left in its middle.
    eager = torch.compiler.set_stance("force_eager") if is_compiled(host) else nullcontext()
    with eager, ForwardContext(graft, stop_at=layer).running():
        try:
            host(input_ids=input_ids, attention_mask=mask.long(), use_cache=False)
        except Reached as reached:
            return reached.states
    raise HostError(f"{type(host).__name__} did not run layer {layer}, so it cannot give words in context")
