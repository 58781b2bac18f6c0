"""Tiny random vision-language models with their processors, by family: LLaVA-1.5, LLaVA-OneVision, Qwen2.5-VL.

Knows: their configurations in transformers, and the chat templates that their published checkpoints bring.
"""

from __future__ import annotations

import functools
from pathlib import Path

import tiny
import torch
import transformers
from tokenizers import processors
from transformers import AddedToken, AutoModelForImageTextToText

TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.15,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "image_size": 16, "patch_size": 8,
         "num_attention_heads": 2}  # fmt: skip
SIZE = {"height": 16, "width": 16}
_PICTURE = "selectattr('type', 'equalto', 'image')"
_WORDS = "selectattr('type', 'equalto', 'text')"
_CHATML = (
    "{{% for message in messages %}}<|im_start|>{{{{ message['role'] }}}}{gap}"
    "{{% for item in message['content'] | " + _PICTURE + " %}}{image}{{% endfor %}}"
    "{{% for item in message['content'] | "
    + _WORDS
    + " %}}{{{{ item['text'] }}}}{{% endfor %}}<|im_end|>\n{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
)
TEMPLATES = {
    "llava": (
        "{% for message in messages %}{{ message['role'].upper() }}: "
        "{% for item in message['content'] | " + _PICTURE + " %}<image>\n{% endfor %}"
        "{% for item in message['content'] | " + _WORDS + " %}{{ item['text'] + ' ' }}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
    "onevision": _CHATML.format(gap=" ", image="<image>\n"),
    "qwen": _CHATML.format(gap="\n", image="<|vision_start|><|image_pad|><|vision_end|>"),
}


def words(*special):
    made = tiny.tokenizer()
    made.add_tokens([AddedToken(token, special=True) for token in special])
    made.chat_template = None
    return made


def llava():
    known = words("<image>")
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**TEXT, vocab_size=len(known)),
        vision_config=transformers.CLIPVisionConfig(**TOWER, projection_dim=32),
        image_token_id=known.convert_tokens_to_ids("<image>"),
    )
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size=SIZE, crop_size=SIZE), known, patch_size=8,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    return config, processor, "<image>"


def onevision():
    known = words("<image>", "<video>")
    grid = [[16, 16], [16, 32], [32, 16]]
    config = transformers.LlavaOnevisionConfig(
        text_config=transformers.Qwen2Config(**TEXT, vocab_size=len(known)),
        vision_config=transformers.SiglipVisionConfig(**TOWER, vision_use_head=False),
        image_token_id=known.convert_tokens_to_ids("<image>"),
        video_token_id=known.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
    )
    processor = transformers.LlavaOnevisionProcessor(
        transformers.LlavaOnevisionImageProcessor(size=SIZE, image_grid_pinpoints=grid), known,
        transformers.LlavaOnevisionVideoProcessor(size=SIZE), num_image_tokens=4,
        vision_feature_select_strategy="full",
    )  # fmt: skip
    return config, processor, "<image>"


def qwen():
    known = words("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    ids = known.convert_tokens_to_ids
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**TEXT, "vocab_size": len(known), "rope_parameters": rope},
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8, "window_size": 32,
            "out_hidden_size": 64, "fullatt_block_indexes": [1], "temporal_patch_size": 2, "spatial_merge_size": 2,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    patches = {"patch_size": 8, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 256, "max_pixels": 1024}
    processor = transformers.Qwen2_5_VLProcessor(
        transformers.Qwen2VLImageProcessor(**patches), known, transformers.Qwen2VLVideoProcessor(**patches)
    )
    return config, processor, "<|vision_start|><|image_pad|><|vision_end|>"


HOSTS = {"llava": llava, "onevision": onevision, "qwen": qwen}


def made(family: str):
    """A model in evaluation mode, the same at every call; its processor; and what stands for an image in a prompt."""
    config, processor, placeholder = HOSTS[family]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForImageTextToText.from_config(config).eval(), processor, placeholder


@functools.cache
def folder(family: str, template: bool = True) -> Path:
    """A folder with a model and its processor files, removed with the other assets; ``template``: a chat template."""
    host, processor, _ = made(family)
    where = tiny.assets() / f"{family}{'' if template else '-plain'}"
    if template:
        processor.chat_template = TEMPLATES[family]
    if family == "llava":  # Llama's tokenizer begins every text; LLaVA's template leaves that to it
        begin = ("<|im_start|>", 1)
        processor.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin[0]} $A", pair=f"{begin[0]} $A $B", special_tokens=[begin]
        )
    host.save_pretrained(where)
    processor.save_pretrained(where)
    return where


def recipe(family: str, template: bool = True, **changes):
    """The tiny recipe around a host with its own vision; its expert gives words alone, without panoptic maps."""
    sections = {"host": {}, "perception": {}, **changes}
    where = {"reference": str(folder(family, template)), "chat_template": "host"}
    return tiny.recipe(**{**sections, "host": {**where, **sections["host"]}, "vision": {"kind": "host"}})
