"""Tiny random configurations of the language models of transformers, by family."""

from __future__ import annotations

import copy

import torch
import transformers
from transformers import AutoModelForCausalLM

SIZES = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 378}
WIDE = {**SIZES, "intermediate_size": 96, "max_position_embeddings": 192}
GROUPED = {**WIDE, "num_key_value_heads": 2}
HEADED = {**GROUPED, "head_dim": 16}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32}
OLD = {"n_embd": 64, "n_layer": 4, "n_head": 4, "vocab_size": 378, "n_positions": 192}

FAMILIES = {
    "llama": ("LlamaConfig", HEADED),
    "internlm": ("LlamaConfig", {**HEADED, "attention_bias": True}),  # InternLM 1 and 2 in transformers' own layout
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen3": ("Qwen3Config", HEADED),
    "mistral": ("MistralConfig", {**HEADED, "sliding_window": 8}),
    "gemma": ("GemmaConfig", HEADED),
    "gemma2": ("Gemma2Config", {**HEADED, "sliding_window": 8, "query_pre_attn_scalar": 16}),
    "gemma3": ("Gemma3TextConfig", {**HEADED, "sliding_window": 8, "query_pre_attn_scalar": 16}),
    "phi": ("PhiConfig", WIDE),
    "phi3": ("Phi3Config", {**GROUPED, "pad_token_id": 0}),
    "gpt_neox": ("GPTNeoXConfig", WIDE),
    "gpt2": ("GPT2Config", OLD),
    "opt": ("OPTConfig", {**SIZES, "ffn_dim": 96, "word_embed_proj_dim": 64, "max_position_embeddings": 192}),
    "falcon": ("FalconConfig", SIZES),
    "falcon_alibi": ("FalconConfig", {**SIZES, "alibi": True}),
    "olmo2": ("Olmo2Config", GROUPED),
    "stablelm": ("StableLmConfig", GROUPED),
    "cohere": ("CohereConfig", {**GROUPED, "logit_scale": 0.25}),
    "cohere2": ("Cohere2Config", {**GROUPED, "logit_scale": 0.25, "sliding_window": 8}),
    "granite": ("GraniteConfig", {**GROUPED, "embedding_multiplier": 12.0, "logits_scaling": 8.0}),
    "smollm3": ("SmolLM3Config", {**GROUPED, "pad_token_id": 0}),
    "mpt": ("MptConfig", {"d_model": 64, "n_layers": 4, "n_heads": 4, "vocab_size": 378, "max_seq_len": 192}),
    "bloom": ("BloomConfig", {"hidden_size": 64, "n_layer": 4, "n_head": 4, "vocab_size": 378}),
    "gptj": ("GPTJConfig", {**OLD, "rotary_dim": 16}),
    "gpt_neo": ("GPTNeoConfig", {"hidden_size": 64, "num_layers": 4, "attention_types": [[["global", "local"], 2]],
                                 "num_heads": 4, "vocab_size": 378, "max_position_embeddings": 192}),
    "gpt_bigcode": ("GPTBigCodeConfig", OLD),
    "starcoder2": ("Starcoder2Config", GROUPED),
    "codegen": ("CodeGenConfig", {**OLD, "rotary_dim": 16}),
    "glm4": ("Glm4Config", {**HEADED, "pad_token_id": 0}),
    "nemotron": ("NemotronConfig", GROUPED),
    "exaone4": ("Exaone4Config", {**HEADED, "sliding_window": 8}),
    "mixtral": ("MixtralConfig", {**GROUPED, "num_local_experts": 2, "num_experts_per_tok": 1}),
    "qwen3_moe": ("Qwen3MoeConfig", {**HEADED, **EXPERTS}),
    "gpt_oss": ("GptOssConfig", {**HEADED, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 8}),
    "xglm": ("XGLMConfig", {"d_model": 64, "num_layers": 4, "attention_heads": 4, "ffn_dim": 96, "vocab_size": 378,
                            "max_position_embeddings": 192}),
    "biogpt": ("BioGptConfig", WIDE),
    "lfm2": ("Lfm2Config", GROUPED),  # convolutions between the attention layers
    "qwen3_next": ("Qwen3NextConfig", {**HEADED, **EXPERTS, "shared_expert_intermediate_size": 32}),
    "falcon_h1": ("FalconH1Config", {**GROUPED, "embedding_multiplier": 5.6, "mamba_d_ssm": 64, "mamba_n_heads": 4}),
    "ctrl": ("CTRLConfig", {**OLD, "dff": 96}),
}  # fmt: skip
NAMED = (
    "llama", "internlm", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi3", "gpt_neox", "gpt2", "opt", "falcon",
)  # fmt: skip


def tiny_host(family: str, seed: int = 0):
    """A random host of the family in evaluation mode: four layers of width 64."""
    name, settings = FAMILIES[family]
    config = getattr(transformers, name)(**copy.deepcopy(settings))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()
