"""The published checkpoint's host: a Llama whose linear layers have a low-rank addition at image positions (PLoRA).

Knows: modules. The addition belongs to the frozen host: it was trained before MoAI (InternLM-XComposer2, arXiv
2401.16420) and MoAI left it as it was. It hangs on forward hooks, so the linear layers keep their names and weights.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from moai.plugin_api import CACHE, MixerHook, locate, takes_cache
from moai_official.config import PLoRALlamaConfig

# One group shares its first factor: the published code projects queries, keys and values with one fused layer.
GROUPS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate": ("mlp.gate_proj",),
    "up": ("mlp.up_proj",),
    "down": ("mlp.down_proj",),
}


class ImagePositions:
    """Where the running forward has image tokens: ``index (B, I)`` and ``valid (B, I)``; shared by all hooks."""

    def __init__(self) -> None:
        self.index: Tensor | None = None
        self.valid: Tensor | None = None

    def set(self, mask: Tensor | None) -> None:
        """Take a bool mask ``(B, S)``; ``None``, or a mask without any image token, switches the addition off."""
        self.index, self.valid = (None, None) if mask is None else locate(mask)
        if self.index is not None and self.index.shape[1] == 0:
            self.index = None


class PLoRA(nn.Module):
    """A first factor ``(r, in)`` and one second factor ``(out, r)`` per linear layer of the group."""

    def __init__(self, width: int, outs: list[int], rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.ModuleList(nn.Linear(rank, out, bias=False) for out in outs)


class PLoRAHook:
    """Forward hook of one linear layer; an object, so that a deep copy of the model copies it with its factors."""

    def __init__(self, plora: PLoRA, which: int, scale: float, images: ImagePositions) -> None:
        self.plora, self.which, self.scale, self.images = plora, which, scale, images

    def __call__(self, module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor | None:
        """Add the low-rank update at image positions; elsewhere the output stays bit for bit as it was."""
        index, valid = self.images.index, self.images.valid
        if index is None:
            return None
        x = args[0].gather(1, index[..., None].expand(-1, -1, args[0].shape[2]))  # (B, I, in)
        update = self.plora.up[self.which](self.plora.down(x)) * self.scale
        update = (update * valid[..., None]).to(output.dtype)
        return output.scatter_add(1, index[..., None].expand_as(update), update)


class PLoRALlamaForCausalLM(LlamaForCausalLM):
    """``LlamaForCausalLM`` with PLoRA; without image positions it is the Llama that its other weights make."""

    config_class = PLoRALlamaConfig
    takes_image_positions = True  # the model tells such a host which inputs are image tokens

    def __init__(self, config: PLoRALlamaConfig) -> None:
        super().__init__(config)
        self.images = ImagePositions()
        self.plora = nn.ModuleList(self._add(layer) for layer in self.model.layers)
        self.post_init()

    def _add(self, layer: nn.Module) -> nn.ModuleDict:
        rank, scale = self.config.plora_rank, self.config.plora_alpha / self.config.plora_rank
        added = nn.ModuleDict()
        for group, names in GROUPS.items():
            linears = [layer.get_submodule(name) for name in names]
            added[group] = PLoRA(linears[0].in_features, [linear.out_features for linear in linears], rank)
            for which, linear in enumerate(linears):
                linear.register_forward_hook(PLoRAHook(added[group], which, scale, self.images))
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
        """As Llama's, with ``image_positions (B, S)``: bool, true where the input is an image token.

        Left out, they are those that the grafted mixers were given for this forward. They are overwritten by the next
        forward and not cleared behind this one: activation checkpointing runs the layers again in backward.
        """
        if image_positions is not None:
            self.images.set(image_positions)
        else:
            conditioning = self._conditioning()
            if conditioning is None or conditioning.image_index.shape[1] == 0:
                self.images.set(None)
            else:
                self.images.index, self.images.valid = conditioning.image_index, conditioning.image_mask
        return super().forward(input_ids, attention_mask, position_ids, **{CACHE: cache}, **kwargs)

    def _conditioning(self):
        for module in self.model.layers.modules():
            for hook in module._forward_pre_hooks.values():
                if isinstance(hook, MixerHook):
                    return hook.holder.conditioning
        return None


AutoModelForCausalLM.register(PLoRALlamaConfig, PLoRALlamaForCausalLM, exist_ok=True)
