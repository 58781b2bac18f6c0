"""What ``gpu.py`` measures: recipes of known shapes, and their models with random weights made on the device.

Knows: moai's model classes and its memory plan, which is made of the same recipe and shapes. No weights are read.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.initialization import no_init_weights

from moai.model.config import MoaiConfig
from moai.model.modeling import MoaiForConditionalGeneration
from moai.recipe.schema import Recipe
from moai.training.build import image_tokens
from moai.training.build_settings import trained_parts
from moai.training.memory_plan.plan import RESERVE, Plan, plan
from moai.training.memory_plan.shapes import encoder_of, llama

ANSWER = 8  # tokens that carry loss, per sample
CLIP_L = "width=1024,layers=24,heads=16,ffn=4096,patch=14"
TINY_CLIP = "width=32,layers=2,heads=2,ffn=64,patch=14"
TINY_HOST = "layers=3,width=64,heads=4,kv=2,ffn=128,vocab=500"


@dataclass(frozen=True)
class Subject:
    """A model to measure: shapes as ``moai plan`` takes them, and the samples of a training step."""

    name: str
    host: str
    rows: int
    vision: str = CLIP_L
    image_size: int = 336
    prompt: int = 64
    aux: int = 256
    mixers: tuple[int, ...] | None = None  # layers with a mixer; the recipe's default
    quantization: str | None = None
    dtype: str = "bfloat16"

    def recipe(self) -> Recipe:
        """Build the recipe, in which the references stand for shapes."""
        host = {"reference": "random", "dtype": self.dtype, "quantization": self.quantization}
        vision = {"kind": "encoder", "image_size": self.image_size, "drop_first": 1}
        mixer = {"layers": self.mixers}
        return Recipe.model_validate({"version": 1, "name": "gpu", "host": host, "vision": vision, "mixer": mixer})

    def plan(self) -> Plan:
        """Plan its memory."""
        shapes = {"host_shape": self.host, "vision_shape": self.vision}
        return plan(self.recipe(), **shapes, prompt=self.prompt + ANSWER, aux=self.aux)

    @property
    def missing(self) -> str | None:
        """Say which package it needs that is not installed; None where nothing is missing."""
        needs = self.quantization is not None and importlib.util.find_spec("bitsandbytes") is None
        return "bitsandbytes is not installed" if needs else None


SUBJECTS = {
    one.name: one
    for one in (
        Subject("1B", "layers=22,width=2048,heads=32,kv=4,ffn=5632,vocab=32000", 8),  # TinyLlama's shape
        Subject("7B", "layers=32,width=4096,heads=32,ffn=11008,vocab=32000", 4),  # Llama-2-7B's, and Vicuna's
        Subject("7B NF4", "layers=32,width=4096,heads=32,ffn=11008,vocab=32000", 4, quantization="nf4"),
    )
}
TINY = {
    name: Subject(name, TINY_HOST, 2, TINY_CLIP, 28, 6, 8, mixers=(1, 2), quantization=one.quantization)
    for name, one in SUBJECTS.items()
}


def subject(name: str, tiny: bool) -> Subject:
    """Return a subject by its name; the tiny ones have the same names and go the same way."""
    return (TINY if tiny else SUBJECTS)[name]


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a GPU; None for a CPU, where nothing is left out for want of memory."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def fitting(made: Plan, rows: int, free: int | None) -> tuple[int, bool] | None:
    """Return the samples of a step that fit, at most ``rows``, and whether with activation checkpointing.

    None where not even one fits. Checkpointing is taken only where no sample fits without.
    """
    for checkpointed in (False, True):
        for count in range(rows, 0, -1):
            if free is None or made.training(count, checkpointed) + RESERVE <= free:
                return count, checkpointed
    return None


@torch.no_grad()
def random_host(one: Subject, device: torch.device) -> nn.Module:
    """Make the host on the device, weight by weight, so that its memory is never needed twice.

    A quantised host's linear layers are quantised one by one, as transformers does while loading.
    """
    torch.manual_seed(0)
    config, dtype = llama(one.host), getattr(torch, one.dtype)
    with torch.device("meta"), no_init_weights():
        host = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    for parent in list(host.modules()):
        for name, child in parent.named_children():
            if one.quantization and isinstance(child, nn.Linear) and child is not host.lm_head:
                setattr(parent, name, _quantized(child, dtype, device))
        for name, parameter in list(parent.named_parameters(recurse=False)):
            if parameter.is_meta:
                setattr(parent, name, nn.Parameter(_random(parameter.shape, dtype, device), requires_grad=False))
    rotary = host.model.rotary_emb
    host.model.rotary_emb = type(rotary)(config=host.config).to(device)  # its tables are computed, not saved
    assert not any(tensor.is_meta for tensor in (*host.parameters(), *host.buffers())), "a tensor has no memory"
    return host.eval()


def _random(shape: Iterable[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    made = torch.empty(tuple(shape), dtype=dtype, device=device)
    return made.fill_(1.0) if made.ndim == 1 else made.normal_(std=0.02)  # one dimension: a norm


def _quantized(layer: nn.Linear, dtype: torch.dtype, device: torch.device) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    made = Linear4bit(layer.in_features, layer.out_features, bias=False, compute_dtype=dtype, device="meta")
    weight = _random(layer.weight.shape, dtype, device)
    made.weight = Params4bit(
        weight, requires_grad=False, quant_type="nf4", compress_statistics=False, module=made
    ).to(device)  # fmt: skip
    made.support_avx512bf16_for_cpu = False  # see moai/model/host/loading.py: else gradients are lost on a CPU
    return made


def sharing_copy(host: nn.Module) -> nn.Module:
    """Copy a host's modules, sharing all of its weights: the bare host beside the augmented one."""
    shared: dict[int, Any] = {}
    for parameter in host.parameters():
        shared[id(parameter)] = parameter
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            shared[id(state)] = state
    return copy.deepcopy(host, shared)


def augmented(one: Subject, host: nn.Module, device: torch.device) -> MoaiForConditionalGeneration:
    """Build the model around a host that is on the device, as ``moai plan`` builds it of the same recipe."""
    recipe = one.recipe()
    torch.manual_seed(1)
    with torch.device(device):
        vision = encoder_of(recipe.vision, one.vision)
        tokens = image_tokens(recipe.vision, vision)
    config = MoaiConfig(
        text_config=host.config,
        host={},
        vision={"kind": "encoder"},
        connector=recipe.vision.connector.model_dump(),
        image_token_id=host.config.vocab_size,
        image_tokens=tokens,
        **trained_parts(recipe),
    )
    model = MoaiForConditionalGeneration(config, host=host, vision=vision)
    for name, child in model.named_children():
        if name != "host":
            child.to(device)
    return model.eval()


def batch(one: Subject, model: MoaiForConditionalGeneration, rows: int, seed: int = 2) -> dict[str, Tensor]:
    """Build a batch as the processor does, on the model's device: image, question, answer, words of perception."""
    vocab, image = model.config.image_token_id, model.config.image_tokens
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> Tensor:
        return torch.randint(3, vocab, (rows, count), generator=generator)

    ids = torch.cat([torch.full((rows, image), vocab), words(one.prompt + ANSWER)], dim=1)
    prompt = torch.arange(ids.shape[1]).expand_as(ids) < image + one.prompt
    made = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(rows, 3, one.image_size, one.image_size, generator=generator),
        "prompt_mask": prompt,
        "labels": ids.masked_fill(prompt, -100),
        "aux_input_ids": words(one.aux),
        "aux_attention_mask": torch.ones(rows, one.aux, dtype=torch.long),
    }
    device = model.get_input_embeddings().weight.device
    return {name: tensor.to(device) for name, tensor in made.items()}


def sizes(tensors: Iterable[Tensor | None]) -> int:
    """Count the bytes of tensors, a quantised one with its scales; each storage once."""
    storages: dict[int, int] = {}
    for tensor in tensors:
        if tensor is None:
            continue
        state = getattr(tensor, "quant_state", None)
        for part in (tensor, None if state is None else state.absmax):
            if part is not None:
                storages[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
    return sum(storages.values())


def synced(work: Any, device: torch.device) -> Any:
    """Make a work wait until the device has done it, so that a clock around it measures all of it."""

    def waiting() -> Any:
        done = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return done

    return waiting
