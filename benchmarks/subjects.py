"""What is measured: hosts of known shapes with random weights, and augmented models around them.

Knows: moai's model classes. Weights are random: no time here depends on what they say.
"""

from __future__ import annotations

import copy
import functools

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from moai.model.config import MoaiConfig
from moai.model.encoders.vision import VisionEncoder
from moai.model.modeling import MoaiForConditionalGeneration

SHAPES = {
    "tiny": {"layers": 8, "width": 64, "heads": 4, "kv": 2, "ffn": 128, "vocab": 500},
    "smollm2": {"layers": 30, "width": 576, "heads": 9, "kv": 3, "ffn": 1536, "vocab": 49152},
    "1b": {"layers": 16, "width": 2048, "heads": 32, "kv": 8, "ffn": 8192, "vocab": 128256},
}  # the second is SmolLM2-135M's, the third Llama-3.2-1B's
VISION = 256  # width of the features
OURS = {"rank": 64, "heads": 4, "qk_norm_scale": 4.0}
READING = {
    "answer_tokens": True, "copy_words": True, "copy_next": True, "null_token": True, "question_context": 1.0,
}  # fmt: skip
COMPRESSOR = {"latents": 64, "depth": 4, "heads": 4, "head_width": 64}


class Features(nn.Module):
    """A stand-in for a vision encoder: image features are handed over as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.empty = nn.Parameter(torch.zeros(1))

    def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(N, tokens, VISION)`` to itself."""
        return pixels


def host_config(shape: str) -> LlamaConfig:
    """A Llama of one of ``SHAPES``."""
    s = SHAPES[shape]
    return LlamaConfig(
        num_hidden_layers=s["layers"], hidden_size=s["width"], num_attention_heads=s["heads"],
        num_key_value_heads=s["kv"], intermediate_size=s["ffn"], vocab_size=s["vocab"],
        max_position_embeddings=4096, tie_word_embeddings=True,
    )  # fmt: skip


@functools.lru_cache(maxsize=1)  # one host at a time: they are large
def bare(shape: str) -> nn.Module:
    """The host alone, in bfloat16."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(host_config(shape), dtype=torch.bfloat16, attn_implementation="sdpa").eval()


def augmented(
    shape: str, image: int, layers: list[int] | None = None, reading: bool = False
) -> MoaiForConditionalGeneration:
    """A model around a copy of the host that shares its weights, so that the bare host stays without hooks.

    Args:
        image: tokens per image.
        layers: with a mixer; every 8th when left out.
        reading: answer tokens read auxiliary tokens, and copy words and the words after them.
    """
    original = bare(shape)
    shared = {id(p): p for p in original.parameters()}
    host = copy.deepcopy(original, dict(shared))
    torch.manual_seed(1)
    config = MoaiConfig(
        text_config=host.config,
        host={},
        vision={"kind": "encoder"},
        connector={"kind": "mlp", "options": {}},
        compressor=COMPRESSOR,
        mixer={"layers": layers, "every": 8, **OURS, **(READING if reading else {})},
        fact_ends=[0] if reading else None,
        image_token_id=SHAPES[shape]["vocab"],
        image_tokens=image,
    )
    return MoaiForConditionalGeneration(config, host=host, vision=VisionEncoder(Features(), VISION)).eval()


def batch(shape: str, rows: int, image: int, prompt: int, aux: int, answer: int = 0) -> dict[str, torch.Tensor]:
    """A batch as the processor makes it: image placeholders, question, answer; and words of perception."""
    vocab, generator = SHAPES[shape]["vocab"], torch.Generator().manual_seed(2)

    def words(count: int) -> torch.Tensor:
        return torch.randint(3, vocab, (rows, count), generator=generator)

    ids = torch.cat([torch.full((rows, image), vocab), words(prompt + answer)], dim=1)
    made = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(rows, image, VISION, generator=generator),
        "prompt_mask": torch.arange(ids.shape[1]).expand_as(ids) < image + prompt,
    }
    if aux:
        made.update(aux_input_ids=words(aux), aux_attention_mask=torch.ones(rows, aux, dtype=torch.long))
    if answer:
        made["labels"] = ids.masked_fill(made["prompt_mask"], -100)
    return made
