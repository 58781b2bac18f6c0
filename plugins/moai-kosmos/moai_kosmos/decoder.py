"""Define KOSMOS-1's decoder as a causal language model of transformers: sub-LN (MAGNETO) and xPos.

Knows: modules. What is Llama's is inherited: masks, the cache, generation and the loss. The layers are torchscale's:
a norm before attention and before the feed-forward network, one on the joined heads before the output projection, and
one after the activation. Embeddings, those of images too, are multiplied by ``sqrt(D)``.

``B`` batch, ``S`` sequence, ``H`` heads, ``W`` width of a head, ``D`` decoder width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM, LlamaModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from moai.plugin_api import CACHE, takes_cache
from moai_kosmos.config import KosmosConfig, init_scale

BASE = 10000.0  # of the rotation's wave lengths
Positions = tuple[Tensor, Tensor, Tensor]  # cosine, sine and scale of each position, each (B, 1, S, W)


class XPos(nn.Module):
    """Compute xPos (arXiv 2212.10554): a rotation of pairs of dimensions that also decays with distance.

    A pair's scale is ``zeta ** (n / base)`` for a query at position ``n`` and its inverse for a key, so that a score
    depends on the distance of the two alone. Positions are counted from the middle of the context, which changes no
    score and keeps the scales small. (torchscale counts from the middle of what is there, and so has to rotate cached
    keys anew in every step.)
    """

    def __init__(self, config: KosmosConfig) -> None:
        super().__init__()
        self.width, self.base = config.head_dim, config.xpos_scale_base
        self.middle = config.max_position_embeddings // 2

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> Positions:
        """Compute the factors of positions ``(B, S)`` in fp32."""
        pairs = torch.arange(0, self.width, 2, dtype=torch.float32, device=x.device)
        zeta = (pairs + 0.4 * self.width) / (1.4 * self.width)
        n = (position_ids - self.middle).to(torch.float32)[:, None, :, None]  # (B, 1, S, 1)
        angle = n * BASE ** (-pairs / self.width)
        parts = (angle.cos(), angle.sin(), zeta ** (n / self.base))
        cosine, sine, scale = (part.repeat_interleave(2, dim=-1) for part in parts)
        return cosine, sine, scale


def rotate_pairs(x: Tensor) -> Tensor:
    """Turn each two neighbouring dimensions by a quarter: ``(a, b, ..) -> (-b, a, ..)``."""
    pairs = x.unflatten(-1, (-1, 2))
    return torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)


def apply_xpos(query: Tensor, key: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
    """Rotate and scale queries and keys ``(B, H, S, W)``, in fp32; they keep their type."""
    cosine, sine, scale = positions

    def turned(x: Tensor, factor: Tensor) -> Tensor:
        wide = x.float()
        return ((wide * cosine + rotate_pairs(wide) * sine) * factor).to(x.dtype)

    return turned(query, scale), turned(key, 1 / scale)


def linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """Build a linear layer whose first weights are Xavier's times ``gain``: MAGNETO's factor, where it has one."""
    made = nn.Linear(inputs, outputs)
    made.gain = gain
    return made


class KosmosAttention(nn.Module):
    """Attend with xPos, and normalise the joined heads before the output projection."""

    is_causal = True
    num_key_value_groups = 1

    def __init__(self, config: KosmosConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.head_dim, self.scaling = config.head_dim, config.head_dim**-0.5
        width, gain = config.hidden_size, init_scale(config.num_hidden_layers)
        part = 2**-0.5  # torchscale draws queries, keys and values at this share of Xavier's width
        self.q_proj, self.k_proj = linear(width, width, part), linear(width, width, part)
        self.v_proj, self.out_proj = linear(width, width, part * gain), linear(width, width, gain)
        self.inner_attn_ln = nn.LayerNorm(width, eps=config.layer_norm_eps)

    @takes_cache
    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: Positions | None = None,
        cache=None,
        **kwargs,
    ) -> tuple[Tensor, Tensor | None]:
        """``(B, S, D) -> (B, S, D)``, and the attention weights where the implementation returns them."""
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (part(hidden_states).view(shape).transpose(1, 2) for part in projections)  # (B, H, S, W)
        query, key = apply_xpos(query, key, position_embeddings)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **kwargs
        )  # (B, S, H, W)
        output = output.reshape(*hidden_states.shape[:-1], -1).contiguous()
        return self.out_proj(self.inner_attn_ln(output)), weights


class KosmosFeedForward(nn.Module):
    """Apply two linear layers with GELU, and a norm before the second."""

    def __init__(self, config: KosmosConfig) -> None:
        super().__init__()
        gain = init_scale(config.num_hidden_layers)
        self.fc1 = linear(config.hidden_size, config.intermediate_size, gain)
        self.ffn_layernorm = nn.LayerNorm(config.intermediate_size, eps=config.layer_norm_eps)
        self.fc2 = linear(config.intermediate_size, config.hidden_size, gain)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, S, D) -> (B, S, D)``."""
        return self.fc2(self.ffn_layernorm(F.gelu(self.fc1(x).float()).to(x.dtype)))


class KosmosLayer(GradientCheckpointingLayer):
    """Add attention and the feed-forward network to the residual stream, each after its norm."""

    def __init__(self, config: KosmosConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = KosmosAttention(config, layer_idx)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.ffn = KosmosFeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor, *args, **kwargs) -> Tensor:
        """``(B, S, D) -> (B, S, D)``; further arguments are those of the attention."""
        attended, _ = self.self_attn(self.self_attn_layer_norm(hidden_states), *args, **kwargs)
        hidden_states = hidden_states + attended
        return hidden_states + self.ffn(self.final_layer_norm(hidden_states))


class _Initialised:
    """Draw the first weights: each linear layer Xavier's, times the gain that it was built with."""

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=module.embedding_dim**-0.5)
        elif isinstance(module, nn.Linear) and hasattr(module, "gain"):  # the output layer is the embeddings
            init.xavier_uniform_(module.weight, gain=module.gain)
            init.zeros_(module.bias)


class KosmosModel(_Initialised, LlamaModel):
    """Run the layers on embeddings that are multiplied by ``sqrt(D)``, those of images as well."""

    config_class = KosmosConfig
    _no_split_modules = ["KosmosLayer"]
    _can_record_outputs = {"hidden_states": KosmosLayer, "attentions": KosmosAttention}

    def __init__(self, config: KosmosConfig) -> None:
        super(LlamaModel, self).__init__(config)  # without a Llama's layers
        self.padding_idx, self.vocab_size = config.pad_token_id, config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(KosmosLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.rotary_emb = XPos(config)  # under Llama's name, whose forward calls it
        self.gradient_checkpointing = False
        self.post_init()

    @takes_cache
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache=None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ):
        """Run as Llama's, on ids or on embeddings ``(B, S, D)``.

        Raises:
            ValueError: both or neither of them.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("the decoder takes either input_ids or inputs_embeds; pass one of the two")
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        scaled = embeds * self.config.hidden_size**0.5
        given = {"attention_mask": attention_mask, "position_ids": position_ids, "use_cache": use_cache, CACHE: cache}
        return super().forward(inputs_embeds=scaled, **given, **kwargs)


class KosmosForCausalLM(_Initialised, LlamaForCausalLM):
    """Predict the next token; the output layer is the word embeddings'."""

    config_class = KosmosConfig
    _no_split_modules = ["KosmosLayer"]
    _tp_plan = _pp_plan = None
    _can_record_outputs = KosmosModel._can_record_outputs

    def __init__(self, config: KosmosConfig) -> None:
        super(LlamaForCausalLM, self).__init__(config)  # without a Llama's layers
        self.model = KosmosModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


AutoModelForCausalLM.register(KosmosConfig, KosmosForCausalLM, exist_ok=True)
