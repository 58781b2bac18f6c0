"""What autograd keeps of one training sample, measured on one forward of fake tensors.

Knows: the model's parts; nothing of recipes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from moai.model.encoders.connectors import TextInput
from moai.model.mixer.forward_context import ForwardContext, MixerInputs
from moai.model.mixer.graft import half_precision
from moai.model.modeling import MoaiForConditionalGeneration

ANSWER = 8  # tokens whose logits a training step computes, per sample


def kept_by_autograd(
    model: MoaiForConditionalGeneration, tokens: dict[str, int], pictures: tuple[int, int], checkpointed: bool
) -> int:
    """Bytes that autograd keeps of one sample's forward, weights aside; with checkpointing, outside the layers only.

    Args:
        model: on fake tensors.
        tokens: of a sample, by kind.
        pictures: how many an encoder of ours encodes of a sample, and their height and width in pixels.
        checkpointed: whether the host's layers run again in the backward pass.
    """
    if checkpointed:
        model.activation_checkpointing_enable()
    else:
        model.activation_checkpointing_disable()
    model.train()
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, tuple[Any, int]] = {}  # the storage is held, so that its address stays its own

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = (storage, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        loss = _forward(model, tokens, *pictures)
    assert loss.requires_grad, "nothing trains"
    return sum(size for _, size in kept.values())


def _forward(model: MoaiForConditionalGeneration, tokens: dict[str, int], pictures: int, size: int) -> Tensor:
    """One sample as in training. Not ``model.forward``: that asks masks for their values, and there are none."""
    table = model.get_input_embeddings().weight
    width, image, prompt = table.shape[1], tokens["image"], tokens["prompt"]
    with half_precision(table):
        connector = model.images.adapters().get("connector")
        if connector is None:  # the host's vision tower is frozen and takes pixels: autograd keeps nothing of it
            images = torch.empty(1, image, width)
        else:
            output = model.images.vision(torch.empty(pictures, 3, size, size))
            text = TextInput(torch.empty(pictures, prompt, width), torch.ones(pictures, prompt, dtype=torch.bool))
            images = connector(output, text) if getattr(connector, "reads_text", False) else connector(output)
            images = images.flatten(0, 1)[None]
        words, compressor = torch.empty(1, tokens["aux"], width), model.auxiliary.compressor
        mask = torch.ones(1, tokens["aux"], dtype=torch.bool)
        aux = words[:, :0] if compressor is None else compressor(words, mask)
    embeds = torch.cat([images.to(table.dtype), torch.empty(1, prompt, width, dtype=table.dtype)], dim=1)
    places = [torch.zeros(1, n, dtype=torch.long) for n in (images.shape[1], prompt)]
    masks = [torch.ones_like(place, dtype=torch.bool) for place in places]
    aux_mask = torch.ones(1, aux.shape[1], dtype=torch.bool)
    inputs = MixerInputs(places[0], masks[0], places[1], masks[1], aux, aux_mask, torch.cat(places, dim=1))
    with ForwardContext(model.graft, inputs).running():
        logits = model.host(inputs_embeds=embeds, use_cache=False, logits_to_keep=ANSWER).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), torch.zeros(ANSWER, dtype=torch.long))
