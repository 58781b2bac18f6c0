"""Configure KOSMOS-1's decoder; apart from its model, so that reading it loads no layers."""

from __future__ import annotations

import math

from transformers import AutoConfig, LlamaConfig


class KosmosConfig(LlamaConfig):
    """Configure the decoder of KOSMOS-1 (arXiv 2302.14045, section 3.2), whose sizes are the defaults.

    ``xpos_scale_base`` is the distance in tokens over which a pair of dimensions decays by its own factor (512 in
    torchscale); ``layer_norm_eps`` is of every norm. Positions have no limit of their own: ``max_position_embeddings``
    is the context that the decoder is trained with.
    """

    model_type = "moai_kosmos"
    base_model_tp_plan = None  # Llama's names layers that are not here
    base_model_pp_plan = None

    vocab_size: int = 65037  # of Kosmos-2's tokenizer, the nearest that was released
    hidden_size: int = 2048
    intermediate_size: int = 8192
    num_hidden_layers: int = 24
    num_attention_heads: int = 32
    hidden_act: str = "gelu"
    max_position_embeddings: int = 2048
    layer_norm_eps: float = 1e-5
    xpos_scale_base: float = 512.0
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs):
        """Refuse widths that heads or xPos cannot split."""
        super().__post_init__(**kwargs)
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of twice the {self.num_attention_heads} heads; "
                "change num_attention_heads"
            )


def init_scale(layers: int) -> float:
    """Compute the factor on the first weights of a decoder with sub-LN, ``sqrt(ln 2N)``: 1.9675 for 24 layers."""
    return math.sqrt(math.log(2 * layers))


AutoConfig.register(KosmosConfig.model_type, KosmosConfig, exist_ok=True)
