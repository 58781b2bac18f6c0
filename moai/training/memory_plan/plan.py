"""What a recipe's model needs in memory, found without any: shapes alone, on PyTorch's fake tensors.

Knows: recipes and the model's builders. Parameters are counted on the real modules; activations are the tensors that
autograd keeps of one real forward. Weights are never read, so a ``config.json`` is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from moai.compat import FakeTensorMode
from moai.errors import RecipeError
from moai.model.config import MoaiConfig
from moai.model.encoders.image_input import EncoderImages
from moai.model.encoders.vision import VisionEncoder
from moai.model.host.checks import check_vision
from moai.model.host.layers import decoder_layers
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.parts import parts_of
from moai.model.processor.tiles import Tiles
from moai.recipe.schema import Recipe
from moai.recipe.sections import EncoderVision, HostVision
from moai.training.build import image_tokens
from moai.training.build_settings import trained_parts
from moai.training.memory_plan.activations import kept_by_autograd
from moai.training.memory_plan.native_vision import PICTURE, host_image_tokens, host_vision, refuse_shapes
from moai.training.memory_plan.shapes import encoder_of, host_config_of, llama

CARDS = (24, 48, 80)  # GiB
RESERVE = 1.5 * 2**30  # bytes of a card that the driver, the kernels and fragments take


@dataclass(frozen=True)
class Part:
    """One part of the model; all but ``parameters`` in bytes. What is frozen has neither gradients nor moments."""

    name: str
    parameters: int
    weights: int
    gradients: int = 0
    optimizer: int = 0

    @property
    def total(self) -> int:
        """Bytes while training."""
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class Plan:
    """What a recipe needs. ``activations`` and ``checkpointed`` are bytes per sample of a training batch."""

    parts: tuple[Part, ...]
    mixer_layers: tuple[int, ...]
    tokens: dict[str, int]  # image, prompt, aux: per sample
    activations: int
    checkpointed: int
    cache: int  # bytes of one answered prompt's keys and values

    def training(self, batch: int, checkpointed: bool) -> int:
        """Bytes of a training step with ``batch`` samples."""
        sample = self.checkpointed if checkpointed else self.activations
        return sum(part.total for part in self.parts) + batch * sample

    def answering(self) -> int:
        """Bytes to answer one question: every weight, and the prompt's cache."""
        return sum(part.weights for part in self.parts) + self.cache

    def largest_batch(self, card: int, checkpointed: bool) -> int:
        """The most samples per step on a card of ``card`` GiB; 0 where not even one fits."""
        free = card * 2**30 - RESERVE - self.training(0, checkpointed)
        return max(0, int(free // (self.checkpointed if checkpointed else self.activations)))

    def to_dict(self, batch: int) -> dict[str, Any]:
        """Plain JSON types; bytes throughout."""
        cards = {
            str(card): {
                "answers": self.answering() + RESERVE <= card * 2**30,
                "batch": self.largest_batch(card, False),
                "batch_checkpointed": self.largest_batch(card, True),
            }
            for card in CARDS
        }
        return {
            **asdict(self),
            "batch": batch,
            "training": self.training(batch, False),
            "training_checkpointed": self.training(batch, True),
            "answering": self.answering(),
            "cards": cards,
        }


def plan(
    recipe: Recipe,
    *,
    host_shape: str | None = None,
    vision_shape: str | None = None,
    picture: tuple[int, int] = PICTURE,
    prompt: int = 64,
    aux: int = 256,
) -> Plan:
    """Build the recipe's model on fake tensors and measure it.

    Args:
        recipe: the recipe; neither its data nor its weights are touched.
        host_shape: ``"layers=32,width=4096,.."`` in place of ``host.reference``: a Llama.
        vision_shape: ``"width=1024,layers=24,.."`` in place of the vision encoder: a CLIP.
        picture: width and height, for a host with its own vision: it may make more tokens of larger pictures.
        prompt, aux: question tokens and words of perception per sample.

    Raises:
        MoaiError: a part that cannot be found; the message names the shape option that would do instead.
    """
    encoder = recipe.vision if isinstance(recipe.vision, EncoderVision) else None
    own_vision = isinstance(recipe.vision, HostVision)
    if own_vision:
        refuse_shapes(host_shape=host_shape, vision_shape=vision_shape)
    elif encoder is None and vision_shape:
        raise RecipeError("--vision-shape is of a vision encoder, and this recipe has none (vision.kind); leave it out")
    host_config = llama(host_shape) if host_shape else host_config_of(recipe)
    check_vision(host_config, recipe.host.reference, own_vision)
    fake = FakeTensorMode()  # one for all blocks: tensors of two do not mix
    with _quiet(), fake:
        dtype = getattr(torch, recipe.host.dtype)
        auto = AutoModelForImageTextToText if own_vision else AutoModelForCausalLM
        with no_init_weights():  # what SigLIP draws its first weights from asks tensors for their values
            host = auto.from_config(host_config, dtype=dtype, attn_implementation="sdpa")
        host.tie_weights()  # which comes with the first weights otherwise
    vision = None if encoder is None else _vision(encoder, vision_shape, fake)
    image = host_image_tokens(recipe, host_config, picture) if own_vision else 0
    with _quiet(), fake:
        pictures = _pictures(encoder)
        each = image if encoder is None else image_tokens(encoder, vision)
        tokens = {"image": each * pictures, "prompt": prompt, "aux": aux}
        config = _config(recipe, host_config, each)
        with _unmoved():
            model = MoaiForConditionalGeneration(config, host=host, vision=vision)
        for part in config.trained or {}:
            for parameter in parts_of(model)[part].values():
                parameter.requires_grad_(True)
        shape = (0, 0) if encoder is None else (pictures, encoder.image_size)
        outside, kept = (kept_by_autograd(model, tokens, shape, checkpointed) for checkpointed in (True, False))
    layers = len(decoder_layers(host))
    states = (tokens["image"] + prompt) * host_config.get_text_config().hidden_size * dtype.itemsize
    checkpointed = outside + layers * states + (kept - outside) // max(1, layers)  # one layer is alive at a time
    return Plan(
        _parts(model, recipe.host.quantization), tuple(map(int, model.mixers)), tokens, kept, min(kept, checkpointed),
        _cache(host_config.get_text_config(), tokens["image"] + prompt, dtype),
    )  # fmt: skip


def _config(recipe: Recipe, host_config: PreTrainedConfig, image_tokens: int) -> MoaiConfig:
    vision = recipe.vision
    given = {"host": {}, "image_tokens": image_tokens, "vision": {"kind": vision.kind}, **trained_parts(recipe)}
    if isinstance(vision, HostVision):
        given |= host_vision(host_config)
    elif isinstance(vision, EncoderVision):
        given["connector"] = vision.connector.model_dump()
    return MoaiConfig(text_config=host_config, **given)


def _vision(encoder: EncoderVision, shape: str | None, fake: FakeTensorMode) -> VisionEncoder:
    """Build the encoder on "meta", since timm asks a tensor for a value, and put it on fake tensors."""
    with _quiet(), torch.device("meta"), no_init_weights():
        made = encoder_of(encoder, shape)
    with fake:
        return made._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))


def _pictures(encoder: EncoderVision | None) -> int:
    """How many pictures one image is for the encoder."""
    if encoder is None or encoder.tiles is None:
        return 1
    return sum(Tiles(**encoder.tiles.model_dump()).counts(1))


def _parts(model: MoaiForConditionalGeneration, quantization: str | None) -> tuple[Part, ...]:
    parts = [_host(model.host, quantization)]
    if isinstance(model.images, EncoderImages):  # a host's own vision is among its own parameters
        parts.append(_part("vision", model.images.vision))
    trained = {name: parts_of(model)[name].values() for name in model.config.trained or {}}
    sizes = {name: sum(p.numel() * p.dtype.itemsize for p in trained.get(name, ())) for name in ("host", "vision")}
    parts = [replace(part, gradients=sizes[part.name], optimizer=2 * sizes[part.name]) for part in parts]
    for name, module in model.adapters().items():
        part = _part(name, module)  # adapters are kept in FP32, and AdamW keeps two moments of each parameter
        parts.append(Part(name, part.parameters, part.weights, part.weights, 2 * part.weights))
    return tuple(parts)


def _host(host: nn.Module, quantization: str | None) -> Part:
    """The host, quantised or not; bitsandbytes leaves words, output layer and norms alone."""
    part = _part("host", host)
    if quantization is None:
        return part
    output, saved = host.get_output_embeddings(), 0
    for module in host.modules():
        if not isinstance(module, (nn.Linear, Conv1D)) or module is output:
            continue
        weight = module.weight
        rows = weight.shape[0] if isinstance(module, nn.Linear) else weight.shape[1]
        # An FP32 scale for every 64 weights of nf4, for every row of int8.
        quantized = weight.numel() / 2 + weight.numel() / 64 * 4 if quantization == "nf4" else weight.numel() + rows * 4
        saved += weight.numel() * weight.dtype.itemsize - int(quantized)
    return replace(part, weights=part.weights - saved)


def _part(name: str, module: nn.Module) -> Part:
    tensors = list(module.parameters())  # each once: tied embeddings lie in memory once
    return Part(name, sum(t.numel() for t in tensors), sum(t.numel() * t.dtype.itemsize for t in tensors))


def _cache(config: PreTrainedConfig, length: int, dtype: torch.dtype) -> int:
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * head * length * dtype.itemsize


@contextmanager
def _unmoved() -> Iterator[None]:
    """Leave modules where they are: peft moves each adapter to its layer, and fake parameters cannot be moved."""
    to = nn.Module.to
    nn.Module.to = lambda module, *_, **__: module
    try:
        yield
    finally:
        nn.Module.to = to


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings about settings that matter to weights only."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
