"""Build a fresh model and its processor from a recipe; or the processor alone.

Knows: both halves' builders. No module below this file ever gets a recipe.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from moai.assets.host import resolve_host
from moai.assets.known_hashes import known_sha256
from moai.assets.resolver import resolve
from moai.data.sources import check_sources
from moai.errors import HostError, RecipeError
from moai.model.config import MoaiConfig
from moai.model.encoders.vision import VisionEncoder, build_vision
from moai.model.host.layers import decoder_layers
from moai.model.host.loading import host_configuration
from moai.model.host.native_vision import host_image_token, host_placeholder
from moai.model.host.scratch import scratch_config, scratch_host, scratch_tokenizer
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processor.chat_templates import chat_template, check_boundary, find_image_token
from moai.model.processor.image_places import encoder_image_processor
from moai.model.processor.processor import MoaiProcessor
from moai.model.run_folder import host_hashes, load_host
from moai.plugins import registry
from moai.recipe.schema import Recipe
from moai.recipe.sections import EncoderVision, HostVision, NoVision
from moai.training.build_settings import fact_settings, trained_parts, word_settings
from moai.training.start import Start, check_frozen_parts, open_start, start_as

Built = tuple[MoaiForConditionalGeneration, MoaiProcessor]


def build(recipe: Recipe) -> Built:
    """Load the frozen parts and initialise the adapters from ``recipe.seed``.

    Raises:
        MoaiError: whatever of the recipe does not fit together; the message names the key.
    """
    vision = _checked_vision(recipe)
    start = open_start(recipe)
    if start is not None:
        check_frozen_parts(start, recipe)
    host = _host(recipe, own_vision=isinstance(vision, HostVision))
    _check_layers(recipe, host)
    if isinstance(vision, EncoderVision):
        model, processor = _with_encoder(recipe, vision, host, start)
    else:
        built = _with_host_vision if isinstance(vision, HostVision) else _without_images
        model, processor = built(recipe, host, start)
    if start is not None:
        start_as(model, start)
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model, processor


def build_processor(recipe: Recipe) -> MoaiProcessor:
    """Build the processor of :func:`build` alone: no weights are read, and the encoder has shapes only.

    Raises:
        MoaiError: whatever of the recipe does not fit together; the message names the key.
    """
    vision, h = _checked_vision(recipe), recipe.host
    if h.scratch is not None:
        config = scratch_config(h.scratch)
    else:
        config = host_configuration(h.reference, h.revision, own_vision=isinstance(vision, HostVision))
    if isinstance(vision, HostVision):
        own = host_processor(h.reference, resolve_host(h.reference, h.revision))
        return _host_vision_processor(recipe, config, own)
    if isinstance(vision, NoVision):
        return _words_processor(recipe, config)
    empty = build_vision(**vision_arguments(vision), empty=True)
    return _encoder_processor(recipe, vision, config, image_tokens(vision, empty))


def _checked_vision(recipe: Recipe) -> EncoderVision | HostVision | NoVision:
    """Refuse experts and formats that are not there, and return where image tokens come from."""
    for name in (*recipe.perception.experts, *recipe.perception.options):
        registry().get_expert(name)
    check_sources(recipe.data.sources)
    return recipe.vision


def _host(recipe: Recipe, own_vision: bool) -> nn.Module:
    h, dtype = recipe.host, getattr(torch, recipe.host.dtype)
    if h.scratch is not None:
        return scratch_host(h.scratch, _tokenizer(recipe), dtype, seed=recipe.seed, attn_implementation=h.attention)
    return load_host(
        h.reference,
        h.revision,
        dtype,
        quantization=h.quantization,
        own_vision=own_vision,
        attn_implementation=h.attention,
    )


def _tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    h = recipe.host
    if h.scratch is not None:
        tokenizer = scratch_tokenizer(h.reference, h.revision)
    else:
        tokenizer = AutoTokenizer.from_pretrained(resolve_host(h.reference, h.revision))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _check_layers(recipe: Recipe, host: nn.Module) -> None:
    if recipe.mixer.layers is None and recipe.mixer.every is None and len(decoder_layers(host)) < 8:
        raise RecipeError("the host has fewer than 8 layers; name mixer.layers or mixer.every")


# With an encoder of ours ---------------------------------------------------------------------------------------------


def _with_encoder(recipe: Recipe, encoder: EncoderVision, host: nn.Module, start: Start | None) -> Built:
    vision = build_vision(**vision_arguments(encoder))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        tokens = image_tokens(encoder, vision)
        processor = _encoder_processor(recipe, encoder, host.config, tokens)
        _check_context(processor)
        config = _encoder_config(recipe, encoder, host, processor, start)
        model = MoaiForConditionalGeneration(config, host=host, vision=vision)
    return model, processor


_VISION = ("architecture", "reference", "revision", "layer", "drop_first", "image_size")


def vision_arguments(encoder: EncoderVision) -> dict[str, Any]:
    """Keyword arguments of ``build_vision``."""
    return encoder.model_dump(include=set(_VISION))


def image_tokens(encoder: EncoderVision, vision: VisionEncoder) -> int:
    """Count the tokens that the connector makes of one picture that is encoded; the encoder may be on the meta device.

    Raises:
        RecipeError: the connector does not take its options.
    """
    kind, options = encoder.connector.kind, encoder.connector.options
    try:
        connector = registry().get_connector(kind)(vision.width, 8, **options)
    except TypeError as error:
        raise RecipeError(f"vision.connector.options does not fit connector '{kind}': {error}") from None
    size, device = encoder.image_size, next(vision.parameters()).device
    with torch.no_grad():
        return connector.tokens(vision(torch.zeros(1, 3, size, size, device=device)).patches.shape[1])


def _check_context(processor: MoaiProcessor) -> None:
    """Refuse images that the host's context has no room for.

    Raises:
        RecipeError: says both numbers.
    """
    needed, limit = processor.images.least(1), processor.max_length
    if limit is not None and needed >= limit:
        raise RecipeError(
            f"an image takes {needed} tokens and the host's context holds {limit}; "
            "give vision.tiles a smaller grid, or a connector with fewer tokens"
        )


def _encoder_processor(recipe: Recipe, encoder: EncoderVision, config: PreTrainedConfig, tokens: int) -> MoaiProcessor:
    tokenizer = _tokenizer(recipe)
    token = find_image_token(encoder.image_token, tokenizer, encoder.image_boundary or ())
    check_boundary(encoder.image_boundary, token, tokenizer)
    return MoaiProcessor(
        image_processor=encoder_image_processor(encoder.image_size, encoder.fit, encoder.mean, encoder.std),
        tokenizer=tokenizer,
        chat_template=chat_template(recipe.host.chat_template, tokenizer.chat_template, token),
        image_token=token,
        image_tokens=tokens,
        image_boundary=encoder.image_boundary,
        tiles=encoder.tiles.model_dump(mode="json") if encoder.tiles else None,
        panoptic_map=encoder.panoptic_map,
        **word_settings(recipe, config),
    )


def _encoder_config(
    recipe: Recipe, encoder: EncoderVision, host: nn.Module, processor: MoaiProcessor, start: Start | None
) -> MoaiConfig:
    """Everything that ``from_pretrained`` will need, with the hashes of the frozen parts."""
    vision = {"kind": encoder.kind, **vision_arguments(encoder)}
    if encoder.reference is not None:
        path = resolve(encoder.reference, encoder.revision)
        vision["sha256"] = known_sha256(path) if path.is_file() else None
    return _text_host_config(recipe, host, processor, vision, start, connector=encoder.connector.model_dump())


# With words alone ----------------------------------------------------------------------------------------------------


def _without_images(recipe: Recipe, host: nn.Module, start: Start | None) -> Built:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        processor = _words_processor(recipe, host.config)
        config = _text_host_config(recipe, host, processor, {"kind": recipe.vision.kind}, start)
        return MoaiForConditionalGeneration(config, host=host), processor


def _words_processor(recipe: Recipe, config: PreTrainedConfig) -> MoaiProcessor:
    tokenizer = _tokenizer(recipe)
    return MoaiProcessor(
        tokenizer=tokenizer,
        chat_template=chat_template(recipe.host.chat_template, tokenizer.chat_template, ""),
        image_token=find_image_token(None, tokenizer),  # never written: what has it is refused
        image_tokens=0,
        panoptic_map=False,
        **word_settings(recipe, config),
    )


def _text_host_config(
    recipe: Recipe,
    host: nn.Module,
    processor: MoaiProcessor,
    vision: dict[str, Any],
    start: Start | None,
    **more: Any,
) -> MoaiConfig:
    h = recipe.host
    return MoaiConfig(
        text_config=copy.deepcopy(host.config),
        host={"reference": h.reference, "revision": h.revision, "dtype": h.dtype, "quantization": h.quantization,
              **({"sha256": host_hashes(h.reference, h.revision)} if h.scratch is None else {"scratch": True})},
        vision=vision,
        image_token_id=processor.image_token_id,
        image_tokens=processor.image_tokens,
        **fact_settings(recipe, processor),
        **_parts(recipe, start),
        **more,
    )  # fmt: skip


# With the host's own vision ------------------------------------------------------------------------------------------


def _with_host_vision(recipe: Recipe, host: nn.Module, start: Start | None) -> Built:
    h = recipe.host
    own = host_processor(h.reference, resolve_host(h.reference, h.revision))
    processor = _host_vision_processor(recipe, host.config, own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = MoaiForConditionalGeneration.around(
            host,
            reference=h.reference,
            revision=h.revision,
            quantization=h.quantization,
            **fact_settings(recipe, processor),
            **_parts(recipe, start),
        )
    model.config.host["dtype"] = h.dtype  # a quantised host's own is that of a few of its weights
    if model.generation_config.eos_token_id is None:
        model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    return model, processor


def host_processor(reference: str, where: str | Path, revision: str | None = None) -> ProcessorMixin:
    """Load the host's own processor.

    Args:
        reference: as the recipe names the host.
        where: its folder, or a hub id, of which there may be a ``revision``.

    Raises:
        HostError: there is none with an image processor and a tokenizer.
    """
    try:
        found = AutoProcessor.from_pretrained(where, revision=revision)
    except (OSError, ValueError) as error:
        raise HostError(f"'{reference}' has no processor ({error}); {_FIX}") from None
    if not isinstance(found, ProcessorMixin) or getattr(found, "image_token", None) is None:
        raise HostError(f"the processor of '{reference}' ({type(found).__name__}) takes no images; {_FIX}")
    return found


def _host_vision_processor(recipe: Recipe, config: PreTrainedConfig, own: ProcessorMixin) -> MoaiProcessor:
    """Build the processor around the host's own.

    Raises:
        RecipeError: ``host.chat_template: host``, and the host has none.
        HostError: the processor marks images by another token than the model.
    """
    tokenizer = own.tokenizer
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    placeholder = host_placeholder(config, tokenizer, own.image_token)
    template = own.chat_template["default"] if isinstance(own.chat_template, dict) else own.chat_template
    if recipe.host.chat_template != "host" or not template:
        template = chat_template(recipe.host.chat_template, tokenizer.chat_template, placeholder)
    # The processor's own template takes images as they are given, and needs no prelude.
    settings = word_settings(recipe, config)
    made = MoaiProcessor(host_processor=own, chat_template=template, placeholder=placeholder, **settings)
    if made.image_token_id != host_image_token(config):
        raise HostError(
            f"the processor marks images by '{made.image_token}' (id {made.image_token_id}), and "
            f"{type(config).__name__} by id {host_image_token(config)}; give a folder in which both fit"
        )
    return made


_FIX = (
    "vision: {kind: host} needs a vision-language model with its processor files; "
    "for another host set vision.kind to encoder, and name one"
)


def _parts(recipe: Recipe, start: Start | None) -> dict[str, Any]:
    """The fields of ``trained_parts``, with what trained of the host and the encoder of the run that it starts as."""
    parts = trained_parts(recipe)
    return parts if start is None else {**parts, "trained": start.trained(recipe)}
