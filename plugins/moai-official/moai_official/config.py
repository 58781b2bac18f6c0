"""Configure the published checkpoint's host; apart from its model, so that reading it loads no layers."""

from __future__ import annotations

from transformers import AutoConfig, LlamaConfig


class PLoRALlamaConfig(LlamaConfig):
    """Configure a Llama with PLoRA: the rank of its addition at image positions; its factor is ``alpha / rank``."""

    model_type = "moai_plora_llama"
    plora_rank: int = 256
    plora_alpha: float = 256.0


AutoConfig.register(PLoRALlamaConfig.model_type, PLoRALlamaConfig, exist_ok=True)
