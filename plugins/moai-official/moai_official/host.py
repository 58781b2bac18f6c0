"""Define the published checkpoint's host: a Llama with a low-rank addition at image positions (PLoRA).

Knows: modules. The addition belongs to the frozen host: it was trained before MoAI (InternLM-XComposer2, arXiv
2401.16420) and MoAI left it as it was. It hangs on forward hooks, so the linear layers keep their names and weights.

Where the images are is an argument of each decoder layer's call, and never a state of the model. So any number of
threads may run one model, and activation checkpointing, which runs a layer again with the same arguments, finds them.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from moai.plugin_api import CACHE, takes_cache
from moai_official.config import PLoRALlamaConfig

# One group shares its first factor: the published code projects queries, keys and values with one fused layer.
GROUPS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate": ("mlp.gate_proj",),
    "up": ("mlp.up_proj",),
    "down": ("mlp.down_proj",),
}
IMAGES = "image_index"  # argument of decoder layers: (N,) where image tokens are among the B * S tokens of the batch
_IMAGES: ContextVar[Tensor | None] = ContextVar("moai_plora_images", default=None)  # of the layer that runs


class PLoRA(nn.Module):
    """Hold a first factor ``(r, in)`` and one second factor ``(out, r)`` per linear layer of the group."""

    def __init__(self, width: int, outs: list[int], rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.ModuleList(nn.Linear(rank, out, bias=False) for out in outs)


class PLoRAHook:
    """Add PLoRA to one linear layer in a forward hook; an object, so that a deep copy of the model copies it too."""

    def __init__(self, plora: PLoRA, which: int, scale: float) -> None:
        self.plora, self.which, self.scale = plora, which, scale

    def __call__(self, module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor | None:
        """Add the low-rank update at image positions; elsewhere the output stays bit for bit as it was."""
        index = _IMAGES.get()
        if index is None:
            return None
        x = args[0].flatten(0, 1)[index]  # (N, in)
        update = self.plora.up[self.which](self.plora.down(x)) * self.scale
        return output.flatten(0, 1).index_add(0, index, update.to(output.dtype)).view_as(output)


def _set_images(attention: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Give the image positions to the linear layers' hooks, before self-attention, the first part of a layer.

    Not of the layer itself: activation checkpointing may leave the layer's own hooks out when it runs it again.
    """
    kwargs = dict(kwargs)
    _IMAGES.set(kwargs.pop(IMAGES, None))
    return args, kwargs


def _unset_images(feedforward: nn.Module, args: tuple, output: Any) -> None:
    """Remove the image positions, after the feed-forward network, the last part of a layer."""
    _IMAGES.set(None)


class PLoRALlamaForCausalLM(LlamaForCausalLM):
    """Extend ``LlamaForCausalLM`` by PLoRA; without image positions it computes what the Llama does."""

    config_class = PLoRALlamaConfig
    takes_image_positions = True  # the model gives such a host a mask of its image tokens

    def __init__(self, config: PLoRALlamaConfig) -> None:
        super().__init__(config)
        self.plora = nn.ModuleList(self._add(layer) for layer in self.model.layers)
        self.post_init()

    def _add(self, layer: nn.Module) -> nn.ModuleDict:
        rank, scale = self.config.plora_rank, self.config.plora_alpha / self.config.plora_rank
        layer.self_attn.register_forward_pre_hook(_set_images, with_kwargs=True)
        layer.mlp.register_forward_hook(_unset_images, always_call=True)
        added = nn.ModuleDict()
        for group, names in GROUPS.items():
            linears = [layer.get_submodule(name) for name in names]
            added[group] = PLoRA(linears[0].in_features, [linear.out_features for linear in linears], rank)
            for which, linear in enumerate(linears):
                linear.register_forward_hook(PLoRAHook(added[group], which, scale))
        return added

    @takes_cache
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache=None,
        image_positions: Tensor | None = None,
        **kwargs,
    ):
        """Run the Llama with the addition where ``image_positions (B, S)``, bool, is true.

        Left out, or false everywhere, nothing is added.
        """
        index = None if image_positions is None else image_positions.flatten().nonzero()[:, 0]
        images = {} if index is None or not len(index) else {IMAGES: index}
        return super().forward(input_ids, attention_mask, position_ids, **{CACHE: cache}, **images, **kwargs)


AutoModelForCausalLM.register(PLoRALlamaConfig, PLoRALlamaForCausalLM, exist_ok=True)
