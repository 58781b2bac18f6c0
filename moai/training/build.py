"""From a recipe to a fresh model and its processor.

Knows: both halves' builders. No module below this file ever sees a recipe.
"""

from __future__ import annotations

import copy

import torch
from transformers import AutoTokenizer, ViTImageProcessor

from moai.assets.hashes import sha256_file
from moai.assets.host import resolve_host
from moai.assets.resolver import resolve
from moai.errors import RecipeError
from moai.model.config import MoaiConfig
from moai.model.encoders.facts import fact_ends
from moai.model.encoders.vision import VisionEncoder, build_vision
from moai.model.mixer.graft import decoder_layers
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processor.chat_templates import chat_template, find_image_token
from moai.model.processor.processor import MoaiProcessor
from moai.model.run_folder import host_hashes, load_host
from moai.plugins import registry
from moai.recipe.schema import Recipe
from moai.training.native_vision_build import build_seeing


def build(recipe: Recipe) -> tuple[MoaiForConditionalGeneration, MoaiProcessor]:
    """Load the frozen parts and initialise the adapters from ``recipe.seed``.

    Raises:
        MoaiError: whatever of the recipe does not fit together; the message names the key.
    """
    for name in (*recipe.perception.experts, *recipe.perception.options):
        registry().get_expert(name)
    registry().get_dataset(recipe.data.name)
    host = load_host(
        recipe.host.reference,
        recipe.host.revision,
        getattr(torch, recipe.host.dtype),
        quantization=recipe.host.quantization,
        seeing=recipe.host.sees,
        attn_implementation=recipe.host.attention,
    )
    _check_layers(recipe, host)
    vision = None if recipe.host.sees else build_vision(**vision_arguments(recipe))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if recipe.host.sees:
            model, processor = build_seeing(recipe, host, trained_parts(recipe), word_settings(recipe, host))
        else:
            tokens = image_tokens(recipe, vision)
            processor = build_processor(recipe, host, tokens)
            config = build_config(recipe, host, processor, tokens)
            model = MoaiForConditionalGeneration(config, host=host, vision=vision)
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model, processor


def _check_layers(recipe: Recipe, host) -> None:
    if recipe.mixer.layers is None and recipe.mixer.every is None and len(decoder_layers(host)) < 8:
        raise RecipeError("the host has fewer than 8 layers; name mixer.layers or mixer.every")


def vision_arguments(recipe: Recipe) -> dict:
    """Keyword arguments of ``build_vision``."""
    v = recipe.vision
    return {"architecture": v.architecture, "reference": v.reference, "revision": v.revision, "layer": v.layer,
            "drop_first": v.drop_first}  # fmt: skip


def image_tokens(recipe: Recipe, vision: VisionEncoder) -> int:
    """How many tokens the connector makes of one image, found by running one blank image."""
    options = recipe.connector.options
    try:
        connector = registry().get_connector(recipe.connector.kind)(vision.width, 8, **options)
    except TypeError as error:
        raise RecipeError(f"connector.options does not fit connector '{recipe.connector.kind}': {error}") from None
    size = recipe.vision.image_size
    with torch.no_grad():
        return connector(vision(torch.zeros(1, 3, size, size)).float()).shape[1]


def build_processor(recipe: Recipe, host, tokens: int) -> MoaiProcessor:
    """Tokenizer, image processor, chat template and experts of the recipe."""
    tokenizer = AutoTokenizer.from_pretrained(resolve_host(recipe.host.reference, recipe.host.revision))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    token = find_image_token(recipe.host.image_token, tokenizer)
    size = {"height": recipe.vision.image_size, "width": recipe.vision.image_size}
    return MoaiProcessor(
        image_processor=ViTImageProcessor(size=size, image_mean=recipe.vision.mean, image_std=recipe.vision.std),
        tokenizer=tokenizer,
        chat_template=chat_template(recipe.host.chat_template, tokenizer.chat_template, token),
        image_token=token,
        image_tokens=tokens,
        panoptic_map=recipe.perception.panoptic_map,
        **word_settings(recipe, host),
    )


def word_settings(recipe: Recipe, host) -> dict:
    """Keyword arguments of a processor: the experts, and how what they see is put to words."""
    p = recipe.perception
    return {
        "experts": list(p.experts),
        "expert_options": copy.deepcopy(p.options),
        "language": p.language,
        "style": p.style,
        "through": p.through,
        "max_aux_tokens": p.max_tokens,
        "max_length": getattr(host.config.get_text_config(), "max_position_embeddings", None),
    }


def build_config(recipe: Recipe, host, processor: MoaiProcessor, tokens: int) -> MoaiConfig:
    """Everything that ``from_pretrained`` will need, with the hashes of the frozen parts."""
    h, vision = recipe.host, vision_arguments(recipe)
    if recipe.vision.reference is not None:
        path = resolve(recipe.vision.reference, recipe.vision.revision)
        vision["sha256"] = sha256_file(path) if path.is_file() else None
    return MoaiConfig(
        text_config=copy.deepcopy(host.config),
        host={"reference": h.reference, "revision": h.revision, "dtype": h.dtype, "quantization": h.quantization,
              "sha256": host_hashes(h.reference, h.revision)},
        vision=vision,
        image_token_id=processor.image_token_id,
        image_tokens=tokens,
        fact_ends=fact_ends(processor.tokenizer) if recipe.perception.fact_context else None,
        word_order=recipe.perception.word_order,
        **trained_parts(recipe),
    )  # fmt: skip


def trained_parts(recipe: Recipe) -> dict:
    """What of ``MoaiConfig`` says how our parts are built and fed; the frozen ones aside."""
    mixer = recipe.mixer.model_dump()
    mixer["layers"] = list(mixer["layers"]) if mixer["layers"] is not None else None
    made = recipe.connector
    return {
        "connector": None if made is None else {"kind": made.kind, "options": dict(made.options)},
        "compressor": recipe.compressor.model_dump(),
        "mixer": mixer,
        "arithmetic": recipe.arithmetic,
        "context_layer": recipe.perception.context_layer,
    }
