"""From a recipe to a fresh model around a host that sees for itself, and its processor.

Knows: the host's own processor, and both halves' builders. Recipes with an encoder of ours are built in ``build``.
"""

from __future__ import annotations

from transformers import AutoProcessor, PreTrainedConfig, ProcessorMixin

from moai.assets.host import resolve_host
from moai.errors import HostError
from moai.model.encoders.facts import fact_ends
from moai.model.host.native_vision import host_image_token, host_placeholder
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processor.chat_templates import chat_template
from moai.model.processor.native_vision import SeeingProcessor
from moai.recipe.schema import Recipe


def build_seeing(
    recipe: Recipe, host, parts: dict, settings: dict
) -> tuple[MoaiForConditionalGeneration, SeeingProcessor]:
    """Compressor and mixers around a loaded vision-language host.

    Args:
        recipe: with ``host.sees: true``.
        host: what its ``host`` section names.
        parts: of ``trained_parts``; a connector is none of them here.
        settings: of ``word_settings``.

    Raises:
        MoaiError: the host or its processor is no vision-language model's; the message names the key.
    """
    folder = resolve_host(recipe.host.reference, recipe.host.revision)
    own = host_processor(recipe.host.reference, folder)
    processor = seeing_processor(recipe.host.chat_template, host.config, own, settings)
    model = MoaiForConditionalGeneration.around(
        host,
        reference=recipe.host.reference,
        revision=recipe.host.revision,
        quantization=recipe.host.quantization,
        fact_ends=fact_ends(processor.tokenizer) if recipe.perception.fact_context else None,
        word_order=recipe.perception.word_order,
        **{name: value for name, value in parts.items() if name != "connector"},
    )
    model.config.host["dtype"] = recipe.host.dtype  # a quantised host's own is that of a few of its weights
    if model.generation_config.eos_token_id is None:
        model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    return model, processor


def host_processor(reference: str, where, revision: str | None = None) -> ProcessorMixin:
    """The host's own processor.

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


def seeing_processor(
    wanted: str, config: PreTrainedConfig, processor: ProcessorMixin, settings: dict
) -> SeeingProcessor:
    """Chat template and words of a recipe around the host's processor.

    Args:
        wanted: ``host.chat_template``.
        config: the host's.
        processor: of :func:`host_processor`.
        settings: of :class:`SeeingProcessor`.

    Raises:
        RecipeError: ``host.chat_template: host``, and the host has none.
        HostError: the processor marks images by another token than the model reads.
    """
    tokenizer = processor.tokenizer
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    placeholder = host_placeholder(config, tokenizer, processor.image_token)
    own = processor.chat_template
    template = own["default"] if isinstance(own, dict) else own
    if wanted != "host" or not template:
        template = chat_template(wanted, tokenizer.chat_template, placeholder)
    # The processor's own template takes images as they are given, and needs no prelude.
    made = SeeingProcessor(processor, template, placeholder, **settings)
    if made.image_token_id != host_image_token(config):
        raise HostError(
            f"the processor marks images by '{made.image_token}' (id {made.image_token_id}), and "
            f"{type(config).__name__} reads id {host_image_token(config)}; give a folder in which both fit"
        )
    return made


_FIX = "host.sees: true needs a vision-language model with its processor files; without it, name an encoder in vision"
