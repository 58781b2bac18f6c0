"""Low-rank adapters in a host's decoder layers, by peft: the host's own weights stay as they are.

Knows: peft, an optional dependency, and where a host's decoder layers are. After LoRA (arXiv 2106.09685); updates are
scaled by two, as LLaVA-1.5 does (rank 128, alpha 256).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from moai.errors import HostError, nearest
from moai.model.host.layers import decoder_layers

SCALE = 2


def add_lora(host: nn.Module, rank: int, targets: Sequence[str] = ()) -> None:
    """Put adapters of ``rank`` beside the linear layers of the decoder, in place; they start as nothing, in fp32.

    Args:
        host: a causal language model.
        rank: of the adapters.
        targets: last names of the layers that get one (``"q_proj"``); none for all.

    Raises:
        HostError: peft is not installed, or no layer has such a name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise HostError("train.host.lora needs the package 'peft'; pip install 'moai-vlm[lora]'") from None
    names = _linear_names(host)
    known = {name.rpartition(".")[2] for name in names}
    for target in targets:
        if target not in known:
            raise HostError(f"train.host.targets: no layer is called '{target}'{nearest(target, known)}")
    chosen = [name for name in names if not targets or name.rpartition(".")[2] in targets]
    config = LoraConfig(r=rank, lora_alpha=SCALE * rank, lora_dropout=0.0, bias="none", target_modules=chosen)
    inject_adapter_in_model(config, host)
    for parameter in lora_parameters(host).values():
        parameter.data = parameter.data.to(torch.float32)  # half precision rounds small updates away


def merge_lora(host: nn.Module) -> None:
    """Add the adapters to the weights that they stand beside, in place, and take them off."""
    for name, module in list(host.named_modules()):
        if hasattr(module, "lora_A") and hasattr(module, "merge"):
            module.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(host.get_submodule(parent), leaf, module.get_base_layer())


def lora_parameters(host: nn.Module) -> dict[str, nn.Parameter]:
    """Name the adapters' parameters in a host."""
    return {name: p for name, p in host.named_parameters() if any(n.startswith("lora_") for n in name.split("."))}


def _linear_names(host: nn.Module) -> list[str]:
    inside = {id(module) for layer in decoder_layers(host) for module in layer.modules()}
    return [
        name
        for name, module in host.named_modules()
        if id(module) in inside and isinstance(module, (nn.Linear, Conv1D))
    ]
